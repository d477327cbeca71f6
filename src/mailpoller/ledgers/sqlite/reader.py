"""The ledger for reading only: what ``status``, ``errors`` and ``trace`` show, also while a daemon holds it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType

from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.ports import (
    AlarmEdge,
    Change,
    Fault,
    OutboxMail,
    Pause,
    QueueRecord,
    Standing,
    Story,
    Stuck,
    Wanted,
)
from mailpoller.core.record import record
from mailpoller.ledgers.sqlite import ageing, alarms, changes, folders, lately, outbox, queues, stories, waiting
from mailpoller.ledgers.sqlite.schema import SCHEMA
from mailpoller.ledgers.sqlite.values import instant, instant_or_none, micros
from mailpoller.storage.sqlite import SqliteUnavailable, connect_read_only


@record
class FolderStanding:
    """One folder in one epoch as ``status`` shows it. ``present``: this is the epoch that is polled.

    ``held``: why an operator must decide, or None; ``accepted``: what an operator decided and no listing has
    completed yet. ``advanced_at``: when the position last moved.
    """

    mailbox: str
    name: str
    epoch: str
    present: bool
    position: str | None
    complete: bool
    held: str | None
    accepted: str | None
    baseline_at: datetime
    opened_at: datetime
    advanced_at: datetime | None


class LedgerReader:
    """Reads committed records; takes no lock that a daemon would feel. One thread at a time.

    As a context manager it closes the file at the end, and what SQLite cannot read within the block (a damaged file)
    leaves it as :class:`LedgerUnavailable`.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, path: Path) -> LedgerReader:
        """Open the ledger at ``path``. Raises :class:`LedgerUnavailable` if there is none, if it may not be read, or
        if it is of another version."""
        try:
            return cls(connect_read_only(path, SCHEMA), path)
        except SqliteUnavailable as error:
            raise LedgerUnavailable(str(error)) from error
        except sqlite3.Error as error:
            missing = "there is no ledger, yet or any more" if not path.exists() else str(error)
            raise LedgerUnavailable(f"{path}: {missing}") from error

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, sqlite3.Error):
            raise LedgerUnavailable(f"{self._path}: {error}") from error

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @property
    def connection(self) -> sqlite3.Connection:
        """For the ledger's own long reads, which would keep its writer busy."""
        return self._connection

    def trace(self, term: str, *, limit: int = 50) -> Sequence[Story]:
        """See :meth:`~mailpoller.core.ports.Ledger.trace`."""
        return stories.trace(self._connection, term, limit)

    def messages(self, wanted: Wanted, *, limit: int = 50) -> Sequence[Story]:
        """The stories of settled messages, those that were settled last first."""
        return lately.messages(self._connection, wanted, limit)

    def per_hour(self, wanted: Wanted) -> Sequence[tuple[datetime, str, int]]:
        """How many messages were settled in each hour (UTC) in which any was: its beginning, outcome, number."""
        return lately.per_hour(self._connection, wanted)

    def aged(self, mailbox: str, until: datetime, *, limit: int) -> int:
        """How many of a mailbox's messages are to be moved or deleted since they were settled by ``until``; ``limit``
        at most."""
        return ageing.count_aged(self._connection, mailbox, until, limit)

    def deferred(self) -> Sequence[Story]:
        """The stories of all messages that are put off."""
        return stories.deferred(self._connection)

    def faults(
        self, subject: str | None = None, *, limit: int = 1000, since: datetime | None = None
    ) -> Sequence[Fault]:
        """Newest first."""
        return alarms.faults(self._connection, subject, limit, 0 if since is None else micros(since))

    def alarms(self) -> Sequence[AlarmEdge]:
        """Every alarm that is raised, oldest first."""
        return alarms.alarms(self._connection)

    def counts(self, mailbox: str) -> Mapping[str, int]:
        """See :meth:`~mailpoller.core.ports.Ledger.counts`."""
        return stories.counts(self._connection, mailbox)

    def standings(self) -> Mapping[str, Standing]:
        """See :meth:`~mailpoller.core.ports.Ledger.standings`."""
        return stories.standings(self._connection)

    def changes(self, since: datetime, *, limit: int = 1000) -> Sequence[Change]:
        """See :meth:`~mailpoller.core.ports.Ledger.changes`."""
        return changes.changes(self._connection, micros(since), limit)

    def pauses(self) -> Mapping[str, Pause]:
        """See :meth:`~mailpoller.core.ports.Ledger.pauses`."""
        return changes.pauses(self._connection)

    def queue_mark(self, name: str) -> QueueRecord | None:
        """See :meth:`~mailpoller.core.ports.Ledger.queue_mark`."""
        return queues.queue_mark(self._connection, name)

    def outbox(self, *, identity: str | None = None, all: bool = False, limit: int = 1000) -> Sequence[OutboxMail]:
        """See :meth:`~mailpoller.core.ports.Ledger.outbox_list`."""
        return outbox.listed(self._connection, identity, all, limit)

    def outbox_mail(self, id: str) -> OutboxMail | None:
        """See :meth:`~mailpoller.core.ports.Ledger.outbox_mail`."""
        return outbox.mail(self._connection, id)

    def last_polls(self) -> Mapping[str, datetime]:
        """See :meth:`~mailpoller.core.ports.Ledger.last_polls`."""
        return folders.last_polls(self._connection)

    def stuck(self, before: datetime, now: datetime) -> Sequence[Stuck]:
        """See :meth:`~mailpoller.core.ports.Ledger.stuck`."""
        return waiting.stuck(self._connection, micros(before), micros(now))

    def mailboxes(self) -> Sequence[str]:
        """The names that the ledger has rows of."""
        return folders.mailboxes(self._connection)

    def folders(self, mailbox: str | None = None) -> Sequence[FolderStanding]:
        """Every folder in every epoch, the present epoch first."""
        rows = self._connection.execute(
            "SELECT mailbox, name, epoch, turn = max(turn) OVER (PARTITION BY mailbox, name), position, complete, "
            "held, accepted, baseline_at, opened_at, advanced_at FROM folder WHERE ?1 IS NULL OR mailbox = ?1 ORDER "
            "BY mailbox, name, turn DESC",
            (mailbox,),
        )
        return [
            FolderStanding(
                box, name, epoch, bool(present), position, bool(complete), held, accepted,
                instant(baseline_at), instant(opened_at), instant_or_none(advanced_at),
            )
            for box, name, epoch, present, position, complete, held, accepted, baseline_at, opened_at,
            advanced_at in rows
        ]  # fmt: skip
