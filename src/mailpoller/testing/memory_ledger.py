"""The SQLite ledger without a disk, which can fail at any step: for tests of whatever uses the Ledger port."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from mailpoller.core.delivery import OutcomeKind
from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.message import Folder, MessageRef
from mailpoller.core.ports import Clock, Ledger
from mailpoller.core.record import record
from mailpoller.ledgers.sqlite import SqliteLedger, claiming, threads
from mailpoller.ledgers.sqlite.folders import AGAIN
from mailpoller.ledgers.sqlite.schema import SCHEMA
from mailpoller.ledgers.sqlite.values import (
    instant,
    instant_of_seconds,
    instant_or_none,
    micros,
    mid_octets,
    mid_text,
    undocument,
)

P = ParamSpec("P")
T = TypeVar("T")

_STEP: ContextVar[str] = ContextVar("step", default="")
"""The method that the caller is in."""


@record
class MemoryFolder:
    """One folder in one epoch. ``id``: with the epoch's name in the ledger, which no other account or numbering
    shares; ``folder``: as the source names it."""

    folder: Folder
    id: Folder
    position: str | None
    complete: bool
    held: str | None
    accepted: str | None


@record
class MemoryOutcome:
    """What has become of a message."""

    kind: OutcomeKind
    reason: str
    fingerprint: bytes | None
    repeat_of: str | None


@record
class MemoryMessage:
    """What the ledger has committed of one message; see the schema. ``outcome`` is None unless it is settled."""

    ref: MessageRef
    mid: str
    state: str
    claimed_at: datetime
    due_at: datetime | None
    suspect: bool
    at_risk: bool
    strikes: int
    attempts: int
    generation: int
    waits_for: str | None
    receipts: dict[str, str] | None
    reason: str
    outcome: MemoryOutcome | None
    settled_at: datetime | None
    disposition_state: str
    disposition_reason: str
    absent_at: datetime | None
    doubts: int
    blame: int
    bearer: int
    identity: bytes | None = None


_MESSAGES = """
SELECT mailbox, name, epoch, uid, listed, received, mid, state, claimed_at, due_at, suspect, at_risk, strikes,
    attempts, generation,
    waits_for, receipts, reason, outcome, fingerprint, repeat_of, settled_at, disposition_state, disposition_reason,
    absent_at,
    doubts, blame, bearer, identity
FROM message JOIN folder ON folder.id = message.folder WHERE {where}
"""


class MemoryStore:
    """What would be on disk. A second :class:`MemoryLedger` on the same store is the process that is started after the
    first one was killed."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        for script in SCHEMA.migrations:
            self.connection.executescript(script)

    @property
    def messages(self) -> dict[tuple[Folder, str], MemoryMessage]:
        """All that is committed, by folder (as the ledger names its epoch) and uid."""
        rows = self.connection.execute(_MESSAGES.format(where="TRUE ORDER BY claimed_at, message.folder, uid"))
        return {(one.ref.folder, one.ref.uid): one for one in map(_message, rows)}

    def message(self, folder: Folder, uid: str) -> MemoryMessage | None:
        """What is committed of one message, or None."""
        row = self.connection.execute(
            _MESSAGES.format(where="mailbox = ? AND name = ? AND epoch = ? AND uid = ?"),
            (folder.mailbox, folder.name, folder.epoch, uid),
        ).fetchone()
        return None if row is None else _message(row)

    def planned(self, folder: Folder) -> set[str]:
        """The uids that a first listing of the folder showed, until all of them are worked on."""
        row = self.connection.execute(
            "SELECT listed FROM plan JOIN folder ON folder.id = plan.folder WHERE mailbox = ? AND name = ? AND epoch "
            "= ?",
            (folder.mailbox, folder.name, folder.epoch),
        ).fetchone()
        return {uid for uid, _ in undocument(row[0])} if row is not None and row[0] else set()

    def of_mid(self, mid: str) -> MemoryMessage | None:
        """What is committed of the message with this mid, or None."""
        row = self.connection.execute(_MESSAGES.format(where="mid = ?"), (mid_octets(mid),)).fetchone()
        return None if row is None else _message(row)

    def unfinished(self) -> list[MemoryMessage]:
        """All that something is still to be done about."""
        where = "state <> 'settled' OR due_at IS NOT NULL"
        return [_message(row) for row in self.connection.execute(_MESSAGES.format(where=where))]

    @property
    def folders(self) -> dict[tuple[str, str], list[MemoryFolder]]:
        """(mailbox, folder) -> its epochs, the present one last."""
        found: dict[tuple[str, str], list[MemoryFolder]] = {}
        for mailbox, name, epoch, position, complete, held, accepted in self.connection.execute(
            "SELECT mailbox, name, epoch, position, complete, held, accepted FROM folder ORDER BY turn"
        ):
            base = Folder(mailbox, name, epoch.partition(AGAIN)[0])
            one = MemoryFolder(base, Folder(mailbox, name, epoch), position, bool(complete), held, accepted)
            found.setdefault((mailbox, name), []).append(one)
        return found


def _message(row: Sequence[Any]) -> MemoryMessage:
    (
        mailbox, name, epoch, uid, listed, received, mid, state, claimed_at, due_at, suspect, at_risk, strikes,
        attempts, generation,
        waits_for, receipts, reason, outcome, fingerprint, repeat_of, settled_at, disposition_state,
        disposition_reason, absent_at,
        doubts, blame, bearer, identity,
    ) = row  # fmt: skip
    return MemoryMessage(
        ref=MessageRef(Folder(mailbox, name, epoch), uid, listed, instant_of_seconds(received)),
        mid=mid_text(mid),
        state=state,
        claimed_at=instant(claimed_at),
        due_at=instant_or_none(due_at),
        suspect=bool(suspect),
        at_risk=bool(at_risk),
        strikes=strikes,
        attempts=attempts,
        generation=generation,
        waits_for=waits_for,
        receipts=None if receipts is None else undocument(receipts),
        reason=reason,
        outcome=None if outcome is None else MemoryOutcome(outcome, reason, fingerprint, repeat_of),
        settled_at=instant_or_none(settled_at),
        disposition_state=disposition_state or "",
        disposition_reason=disposition_reason or "",
        absent_at=instant_or_none(absent_at),
        doubts=doubts,
        blame=blame,
        bearer=bearer,
        identity=identity,
    )


@dataclass(slots=True)
class _Failure:
    step: str
    error: Exception
    times: int
    after: bool


class MemoryLedger(SqliteLedger):
    """The :class:`~mailpoller.core.ports.Ledger` port without a disk. ``calls`` names every method called, in order."""

    def __init__(self, clock: Clock, store: MemoryStore | None = None) -> None:
        # Without a file, its thread and its lock; everything else is the ledger's own.
        self.store = MemoryStore() if store is None else store
        self.calls: list[str] = []
        self.closed = False
        self._clock = clock
        self._known = {}
        self._unsorted = threads.Unsorted()
        self._open_claims = set()
        self._failures: list[_Failure] = []
        claiming.suspect_open_claims(self.store.connection, micros(clock.now()))

    # --- for the test ------------------------------------------------------------------------------------------
    def fail(self, step: str, error: Exception | None = None, *, times: int = 1, after: bool = False) -> None:
        """The next ``times`` calls of the method ``step`` raise ``error`` (:class:`LedgerUnavailable` unless told).

        ``after``: once they have done their work, like a commit whose answer is lost.
        """
        self._failures.append(_Failure(step, error or LedgerUnavailable(f"{step}: asked to fail"), times, after))

    def heal(self) -> None:
        """Nothing fails any more."""
        self._failures.clear()

    def restarted(self) -> MemoryLedger:
        """The ledger as the next process finds it after this one was killed now."""
        return MemoryLedger(self._clock, self.store)

    def message(self, folder: Folder, uid: str) -> MemoryMessage | None:
        """What is recorded of one message in the folder's present epoch, or None."""
        epochs = [
            one for one in self.store.folders.get((folder.mailbox, folder.name), ()) if folder in (one.folder, one.id)
        ]
        return self.store.message(epochs[-1].id, uid) if epochs else None

    def _fail_if_asked(self, step: str, *, after: bool) -> None:
        for failure in self._failures:
            if failure.step == step and failure.after == after and failure.times > 0:
                failure.times -= 1
                raise failure.error

    # --- instead of a file and its thread ------------------------------------------------------------------------
    @property
    def path(self) -> Path:
        return Path(":memory:")

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """In a transaction, as on disk; the loop turns once, as a real commit would make it."""
        await asyncio.sleep(0)
        if self.closed:
            raise LedgerUnavailable("the ledger was closed")
        self._fail_if_asked(_STEP.get(), after=False)
        connection = self.store.connection
        connection.execute("BEGIN")
        try:
            answer = work(connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        self._fail_if_asked(_STEP.get(), after=True)
        return answer

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._write(work)

    async def _shorten_log(self) -> None:
        await asyncio.sleep(0)

    async def _read_aside(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._write(work)

    async def close(self) -> None:
        self.calls.append("close")
        self.closed = True


_Method = Callable[Concatenate[MemoryLedger, P], Coroutine[Any, Any, T]]


def _step(name: str, method: _Method[P, T]) -> _Method[P, T]:
    """Note the call, and that what is read and written now is its doing."""

    @functools.wraps(method)
    async def stepped(self: MemoryLedger, /, *args: P.args, **how: P.kwargs) -> T:
        self.calls.append(name)
        token = _STEP.set(name)
        try:
            return await method(self, *args, **how)
        finally:
            _STEP.reset(token)

    return stepped


for _name in dir(Ledger):
    if not _name.startswith("_") and _name != "close":
        setattr(MemoryLedger, _name, _step(_name, getattr(SqliteLedger, _name)))
