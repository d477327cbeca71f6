"""The Ledger port on one SQLite file: each method is one transaction in the file's writer thread."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import structlog

from mailpoller.core.errors import ConfigError, LedgerLocked, LedgerUnavailable
from mailpoller.core.ports import (
    Clock,
)
from mailpoller.ledgers.sqlite import (
    claiming,
)
from mailpoller.ledgers.sqlite.books.acknowledgements import AcknowledgementsBook
from mailpoller.ledgers.sqlite.books.backlog import BacklogBook
from mailpoller.ledgers.sqlite.books.bearers import BearersBook
from mailpoller.ledgers.sqlite.books.claims import ClaimsBook
from mailpoller.ledgers.sqlite.books.folders import FoldersBook
from mailpoller.ledgers.sqlite.books.journal import JournalBook
from mailpoller.ledgers.sqlite.books.mailboxes import MailboxesBook
from mailpoller.ledgers.sqlite.books.outbox import OutboxBook
from mailpoller.ledgers.sqlite.books.queue_marks import QueueMarksBook
from mailpoller.ledgers.sqlite.books.stories import StoriesBook
from mailpoller.ledgers.sqlite.books.threads import ThreadsBook
from mailpoller.ledgers.sqlite.books.timekeeping import TimekeepingBook
from mailpoller.ledgers.sqlite.lock import Lock
from mailpoller.ledgers.sqlite.schema import SCHEMA
from mailpoller.ledgers.sqlite.values import Senders, micros
from mailpoller.storage.sqlite import Database, SqliteUnavailable
from mailpoller.storage.thread import completed

log = structlog.get_logger(__name__)

LOCK_PATIENCE = timedelta(seconds=2)
"""How long an operator's verb, or a process that is about to end, is waited for."""

_LOCK_RETRY_S = 0.1


class SqliteLedger(
    AcknowledgementsBook, BacklogBook, BearersBook, ClaimsBook, FoldersBook, JournalBook,
    MailboxesBook, OutboxBook, QueueMarksBook, StoriesBook, ThreadsBook, TimekeepingBook,
):  # fmt: skip
    """The :class:`~mailpoller.core.ports.Ledger` of one process."""

    @classmethod
    async def open(cls, path: Path, clock: Clock, *, senders: Senders = "keep") -> SqliteLedger:
        """See :meth:`SqliteLedgerConfig.open`. Claims that a killed process left open become suspects here."""
        # The group may read: operators in it use status, errors and trace beside a running service.
        database = Database(path, SCHEMA, file_mode=0o640, directory_mode=0o750)
        lock = Lock(path)
        try:
            await asyncio.to_thread(database.create)
            await _take(lock, clock)
            now = micros(clock.now())
            suspects, struck = await database.write(lambda connection: claiming.suspect_open_claims(connection, now))
        except BaseException as error:
            await database.close()
            lock.free()
            if isinstance(error, SqliteUnavailable) and error.kind in ("newer", "foreign"):
                raise ConfigError(str(error)) from error
            if isinstance(error, SqliteUnavailable):
                raise LedgerUnavailable(str(error)) from error
            raise
        log.info("ledger.opened", path=str(path), version=SCHEMA.version, suspects=suspects, struck=struck)
        ledger = cls(database, lock, clock)
        ledger.senders = senders
        return ledger

    async def close(self) -> None:
        """Finish what was asked for, close the file, free the lock. Harmless when repeated."""
        await self._database.close()
        self._readers.shutdown()
        self._lock.free()


async def _take(lock: Lock, clock: Clock) -> None:
    """Take the lock; one that is held for a moment only is waited for. Raises as :meth:`Lock.take`."""
    until = time.monotonic() + LOCK_PATIENCE.total_seconds()
    while True:
        try:
            await completed(asyncio.to_thread(lock.take, clock.now()))  # a disk may hang
            return
        except LedgerLocked:
            if time.monotonic() > until:
                raise
        await asyncio.sleep(_LOCK_RETRY_S)
