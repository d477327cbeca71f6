"""The Ledger port on one SQLite file: each method is one transaction in the file's writer thread."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

import structlog

from mailpoller.core.delivery import Cause, Disposed, Held, Outcome, Question, Settlement
from mailpoller.core.errors import ConfigError, LedgerLocked, LedgerUnavailable, MessageGone
from mailpoller.core.message import Account, Claim, Folder, MessageRef, Position
from mailpoller.core.ports import (
    AlarmEdge,
    Census,
    Change,
    Clock,
    Fault,
    FolderState,
    Heirless,
    Mark,
    OutboxBacklog,
    OutboxMail,
    Pause,
    QueueRecord,
    RecipientState,
    Sight,
    Standing,
    Story,
    Stuck,
    Traits,
)
from mailpoller.core.seals.ledger import SealedSettlement
from mailpoller.ledgers.sqlite import (
    alarms,
    alike,
    bearers,
    changes,
    claiming,
    erasure,
    folders,
    messages,
    outbox,
    pruning,
    queues,
    stories,
    threads,
    waiting,
)
from mailpoller.ledgers.sqlite.folders import Known
from mailpoller.ledgers.sqlite.lock import Lock
from mailpoller.ledgers.sqlite.reader import LedgerReader
from mailpoller.ledgers.sqlite.schema import SCHEMA
from mailpoller.ledgers.sqlite.values import Key, instant_of_seconds, micros
from mailpoller.storage.sqlite import Database, SqliteUnavailable
from mailpoller.storage.thread import Pool

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOCK_PATIENCE = timedelta(seconds=2)
"""How long an operator's verb, or a process that is about to end, is waited for."""
_LOCK_RETRY_S = 0.1


READERS = 4
"""Threads for long reads: of the ledger's own, so that nobody else's waiting delays them."""
PIECE = 200
"""Rows that a long work changes at once: others wait no longer than for these."""


class SqliteLedger:
    """The :class:`~mailpoller.core.ports.Ledger` of one process. Long reads go through a connection of their own."""

    def __init__(self, database: Database, lock: Lock, clock: Clock) -> None:
        self._database = database
        self._lock = lock
        self._clock = clock
        self._readers = Pool("ledger-reader", READERS)
        self._unsorted = threads.Unsorted()
        self._known: dict[Folder, Known] = {}
        # The claims that a caller of this process has in hand. Rows of others that are claimed can be claimed again:
        # their commit succeeded, but its caller was cancelled or told that it had failed.
        self._open_claims: set[Key] = set()

    @classmethod
    async def open(cls, path: Path, clock: Clock) -> SqliteLedger:
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
        return cls(database, lock, clock)

    async def close(self) -> None:
        """Finish what was asked for, close the file, free the lock. Harmless when repeated."""
        await self._database.close()
        self._readers.shutdown()
        self._lock.free()

    @property
    def path(self) -> Path:
        return self._database.path

    @property
    def commits(self) -> int:
        """Write transactions so far."""
        return self._database.commits

    @property
    def wal_bytes(self) -> int:
        """See :attr:`Database.wal_bytes`."""
        return self._database.wal_bytes

    # --- folders -----------------------------------------------------------------------------------------------
    async def open_folder(self, folder: Folder, account: Account, *, formerly: str | None = None) -> FolderState:
        now = self._now()
        known, state = await self._write(lambda c: folders.open_folder(c, folder, account, formerly, now))
        if formerly is not None:
            self._drop_known(formerly)
        self._known[folder] = known
        return state

    async def begin_anew(self, folder: Folder, reason: str) -> None:
        known, now = await self._find(folder), self._now()
        self._known[folder] = await self._write(lambda c: folders.begin_anew(c, known, now))
        log.warning("epoch.begun_anew", mailbox=folder.mailbox, folder=folder.name, reason=reason)

    async def heirless(self, folder: Folder, *, limit: int, earlier: bool) -> Sequence[Heirless]:
        known = await self._find(folder)
        return await self._read(lambda c: bearers.heirless(c, known, limit, earlier=earlier))

    async def inherit(self, claim: Claim, former: Heirless) -> Claim:
        known, now = await self._find(claim.ref.folder), self._now()
        return await self._write(lambda c: bearers.inherit(c, known, claim, former, now))

    async def strange(self, folder: Folder, doubtful: bool) -> None:
        known, now = await self._find(folder), self._now()
        await self._write(lambda c: folders.strange(c, known, doubtful, now))

    async def advance(self, folder: Folder, position: Position) -> None:
        known, now = await self._find(folder), self._now()
        await self._write(lambda c: folders.advance(c, known, position, now))

    async def plan(self, folder: Folder, refs: Sequence[MessageRef], position: Position | None) -> None:
        known, now = await self._find(folder), self._now()
        await self._write(lambda c: folders.plan(c, known, refs, position, now))

    async def planned(self, folder: Folder) -> Sequence[MessageRef]:
        known = await self._find(folder)
        rows = await self._read(lambda c: folders.planned(c, known))
        return [MessageRef(folder, uid, size) for uid, size in rows]

    async def complete(self, folder: Folder) -> None:
        known = await self._find(folder)
        await self._write(lambda c: folders.complete(c, known))

    async def unknown(self, folder: Folder, refs: Sequence[MessageRef]) -> int:
        known = await self._find(folder)
        return await self._read_aside(lambda c: folders.unknown(c, known, [ref.size for ref in refs]))

    async def left(self, folder: Folder) -> Collection[tuple[int | None, datetime | None]]:
        known = await self._find(folder)
        return await self._read(lambda c: folders.left(c, known))

    async def hold(self, folder: Folder, reason: str) -> bool:
        known = await self._find(folder)
        return await self._write(lambda c: folders.hold(c, known, reason))

    async def accept(self, mailbox: str, how: Literal["baseline", "replay", "absence"]) -> int:
        now = self._now()
        return await self._write(lambda c: folders.accept(c, mailbox, how, now))

    # --- messages ----------------------------------------------------------------------------------------------
    async def claim(self, refs: Sequence[MessageRef]) -> Sequence[Claim | Held | Settlement | Question]:
        keyed = list(zip(await self._found(refs), refs, strict=True))
        now = self._now()
        taken: list[Key] = []

        def work(connection: sqlite3.Connection) -> list[Claim | Held | Settlement | Question]:
            answers, keys = claiming.claim(connection, keyed, self._open_claims, now)
            taken.extend(keys)
            self._open_claims.update(keys)
            return answers

        try:
            return await self._write(work)
        except BaseException:
            # Nobody will ever work on these: whatever became of the commit, they can be claimed again.
            self._open_claims.difference_update(taken)
            raise

    async def recognise(self, refs: Sequence[MessageRef]) -> Sequence[Sight]:
        if not refs:
            return []
        known = await self._find(refs[0].folder)
        sights = await self._read(lambda c: bearers.recognise(c, known, refs))
        seen = [sight.ref for sight in sights if sight.state == "same"]
        if any(ref.received is not None for ref in seen):
            await self._write(lambda c: bearers.learn(c, known, seen))
        return sights

    async def identified(self, same: Sequence[MessageRef], other: Sequence[MessageRef]) -> None:
        if not same and not other:
            return
        folder = (same or other)[0].folder
        known, now = await self._find(folder), self._now()

        def work(connection: sqlite3.Connection) -> None:
            bearers.learn(connection, known, same)
            free = [ref for ref in other if (known.id, ref.uid) not in self._open_claims]
            bearers.succeed(connection, known, folder.mailbox, folder.name, free, now)

        await self._write(work)

    async def census(self, folder: Folder, refs: Sequence[MessageRef]) -> Census:
        known, now = await self._find(folder), self._now()
        census, absent, back = await self._read_aside(lambda c: bearers.census(c, known, folder, refs))
        for begin in range(0, len(absent), PIECE):
            piece = absent[begin : begin + PIECE]
            await self._write(functools.partial(bearers.mark_absent, known=known, absent=piece, present=(), now=now))
        if back:
            await self._write(lambda c: bearers.mark_absent(c, known, (), back, now))
        return census

    async def unsettled(self, folder: Folder, *, limit: int) -> Sequence[MessageRef]:
        known = await self._find(folder)
        return _refs(folder, await self._read(lambda c: bearers.unsettled(c, known, limit)))

    async def lost(self, folder: Folder, *, limit: int) -> Sequence[MessageRef]:
        known = await self._find(folder)
        return _refs(folder, await self._read(lambda c: bearers.lost(c, known, limit)))

    async def revive(self, refs: Sequence[MessageRef]) -> int:
        if not refs:
            return 0
        known, now = await self._find(refs[0].folder), self._now()
        return await self._write(lambda c: bearers.revive(c, known, refs, now))

    async def sighted(
        self, folder: Folder, present: Sequence[MessageRef], absent: Sequence[MessageRef]
    ) -> tuple[int, int]:
        known, now = await self._find(folder), self._now()

        def work(connection: sqlite3.Connection) -> tuple[int, int]:
            bearers.mark_absent(connection, known, [ref.uid for ref in absent], [ref.uid for ref in present], now)
            return bearers.absences(connection, known)

        return await self._write(work)

    async def blame(self, refs: Sequence[MessageRef]) -> None:
        await self._blame(refs, more=True)

    async def absolve(self, refs: Sequence[MessageRef]) -> None:
        await self._blame(refs, more=False)

    async def _blame(self, refs: Sequence[MessageRef], *, more: bool) -> None:
        uids: defaultdict[Folder, list[str]] = defaultdict(list)
        for ref in refs:
            uids[ref.folder].append(ref.uid)
        if not uids:
            return
        several = [(await self._find(folder), named) for folder, named in uids.items()]
        now = self._now()

        def write(connection: sqlite3.Connection) -> None:
            for known, named in several:
                bearers.blame(connection, known, named, more, now)

        await self._write(write)

    async def blamed(self, folder: Folder) -> Sequence[tuple[MessageRef, int]]:
        known = await self._find(folder)
        rows = await self._read(lambda c: bearers.blamed(c, known))
        return [(MessageRef(folder, uid, size), count) for uid, size, count in rows]

    async def suspects(self, folder: Folder, *, limit: int, down: Collection[str] = ()) -> Sequence[MessageRef]:
        known, now = await self._find(folder), self._now()
        rows = await self._read(lambda c: claiming.suspects(c, known, limit, down, now))
        return [MessageRef(folder, uid, size) for uid, size in rows]

    async def due(self, folder: Folder, *, limit: int, down: Collection[str] = ()) -> Sequence[MessageRef]:
        known, now = await self._find(folder), self._now()
        rows = await self._read(lambda c: claiming.due(c, known, limit, down, self._open_claims, now))
        return [MessageRef(folder, uid, size) for uid, size in rows]

    async def at_risk(self, claim: Claim) -> None:
        key = await self._key(claim.ref)
        await self._write(lambda c: claiming.at_risk(c, key))

    async def cleared(self, claim: Claim) -> None:
        key = await self._key(claim.ref)
        await self._write(lambda c: claiming.cleared(c, key))

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Settlement]:
        keyed = list(zip(await self._keys([outcome.claim.ref for outcome in outcomes]), outcomes, strict=True))
        now = self._now()

        def work(connection: sqlite3.Connection) -> None:
            if not messages.settle(connection, keyed, now):
                raise LedgerUnavailable(f"{self.path}: claims are not recorded any more; the mailbox was forgotten")

        await self._write(work)
        self._open_claims.difference_update(key for key, _ in keyed)
        return [
            SealedSettlement(outcome.claim.ref, outcome.claim.mid, outcome.kind, outcome.disposition)
            for outcome in outcomes
        ]

    async def defer(
        self,
        claims: Sequence[Claim],
        *,
        until: datetime,
        reason: str,
        queue: str | None = None,
        route: Sequence[str] | None = None,
        receipts: Mapping[str, str] | None = None,
        traits: Sequence[Traits | None] | None = None,
        cause: Cause = "",
    ) -> None:
        keys = await self._keys([claim.ref for claim in claims])
        work = functools.partial(
            messages.defer,
            keys=keys,
            until=micros(until),
            reason=reason,
            queue=queue,
            route=route,
            receipts=receipts,
            traits=traits or [None] * len(keys),
            cause=cause,
            now=self._now(),
        )
        await self._write(work)
        self._open_claims.difference_update(keys)

    async def release(self, claims: Sequence[Claim]) -> None:
        """As the port says; and even if this raises, the claims can be claimed again."""
        keys = await self._keys([claim.ref for claim in claims])
        now = self._now()
        try:
            await self._write(lambda c: messages.release(c, keys, now))
        finally:
            self._open_claims.difference_update(keys)

    async def disposed(self, results: Sequence[Disposed]) -> None:
        keyed = list(zip(await self._keys([result.settlement.ref for result in results]), results, strict=True))
        now = self._now()
        await self._write(lambda c: messages.disposed(c, keyed, now))

    async def repeats(self, mailbox: str, fingerprints: Sequence[bytes]) -> Mapping[bytes, str]:
        return await self._read(lambda c: alike.repeats(c, mailbox, fingerprints))

    async def former(self, folder: Folder, fingerprints: Sequence[bytes]) -> Mapping[bytes, Sequence[str]]:
        known = await self._find(folder)
        return await self._read(lambda c: alike.former(c, known, fingerprints))

    async def prune(self, folder: Folder, present: Collection[str], *, before: datetime) -> int:
        """As the port says; in pieces, so that no other write waits for all of it, and no more is in memory than a
        piece."""
        known, earlier_than, now = await self._find(folder), micros(before), self._now()
        there = present if isinstance(present, (set, frozenset, dict)) else set(present)
        complete, earlier = await self._read(lambda c: folders.present_and_former(c, known))
        forgotten = await self._prune(known.id, there, earlier_than, now)
        # Once this epoch's first listing was worked through, no message of a former one is needed: its numbering is
        # gone, and its fingerprints suppress nothing any more.
        for number in earlier if complete else ():
            forgotten += await self._prune(number, None, earlier_than, now)
        await self._write(lambda c: folders.pruned(c, known, now))
        return forgotten

    async def _prune(self, number: int, present: Collection[str] | None, before: int, now: int) -> int:
        forgotten, after = 0, ""
        while True:
            found = await self._read_aside(
                functools.partial(pruning.prunable, number=number, present=present, after=after, before=before, now=now)
            )
            for uids in _pieces(found.forgotten):
                forgotten += await self._write(
                    functools.partial(pruning.prune, number=number, uids=uids, before=before)
                )
                await self._shorten_log()
            for missed in _pieces(found.missed):
                await self._write(
                    functools.partial(pruning.note_missed, number=number, missed=missed, found=(), now=now)
                )
                await self._shorten_log()
            for back in _pieces(found.found):
                await self._write(functools.partial(pruning.note_missed, number=number, missed=(), found=back, now=now))
            if found.end is None:
                return forgotten
            after = found.end

    # --- mailboxes ---------------------------------------------------------------------------------------------
    async def polled(self, polls: Mapping[str, datetime]) -> None:
        await self._write(lambda c: folders.polled(c, polls))

    async def last_polls(self) -> Mapping[str, datetime]:
        return await self._read(folders.last_polls)

    async def first_runs(self) -> Mapping[str, datetime]:
        return await self._read(folders.first_runs)

    async def stuck(self, before: datetime) -> Sequence[Stuck]:
        earlier_than, now = micros(before), self._now()
        return await self._read_aside(lambda c: waiting.stuck(c, earlier_than, now))

    async def hasten(self, mailbox: str) -> int:
        now = self._now()
        return await self._write(lambda c: waiting.hasten(c, mailbox, now))

    async def mailboxes(self) -> Sequence[str]:
        return await self._read(folders.mailboxes)

    async def forget(self, mailbox: str) -> int:
        forgotten = 0
        for number in await self._read(lambda c: folders.ids(c, mailbox)):
            while uids := await self._read(functools.partial(pruning.some, number=number, limit=PIECE)):
                await self._write(functools.partial(pruning.forget, number=number, uids=uids))
                forgotten += len(uids)
        await self._write(lambda c: folders.forget(c, mailbox))
        self._drop_known(mailbox)
        return forgotten

    async def counts(self, mailbox: str) -> Mapping[str, int]:
        return await self._read_aside(lambda c: stories.counts(c, mailbox))

    async def standings(self) -> Mapping[str, Standing]:
        return await self._read_aside(stories.standings)

    async def oldest(self) -> Mapping[str, datetime]:
        return await self._read_aside(stories.oldest)

    # --- queues ------------------------------------------------------------------------------------------------
    async def queue_mark(self, name: str) -> QueueRecord | None:
        return await self._read(lambda c: queues.queue_mark(c, name))

    async def owed(self, name: str) -> int:
        return await self._read_aside(lambda c: queues.owed(c, name))

    async def note_queue(self, name: str, mark: Mark, receipts: int) -> None:
        now = self._now()
        await self._write(lambda c: queues.note_queue(c, name, mark, receipts, now))

    async def adopt_queue(self, name: str) -> QueueRecord | None:
        return await self._write(lambda c: queues.adopt_queue(c, name))

    # --- outbox ------------------------------------------------------------------------------------------------
    async def outbox_accept(self, mail: OutboxMail) -> OutboxMail:
        return await self._write(lambda c: outbox.accept(c, mail))

    async def outbox_known(self, intake: str, key: str) -> OutboxMail | None:
        return await self._read(lambda c: outbox.known(c, intake, key))

    async def outbox_due(self, identity: str, *, limit: int) -> Sequence[OutboxMail]:
        now = self._now()
        return await self._read(lambda c: outbox.due(c, identity, limit, now))

    async def outbox_backlog(self) -> Mapping[str, OutboxBacklog]:
        return await self._read_aside(outbox.backlog)

    async def outbox_answered(
        self, id: str, said: Mapping[str, tuple[RecipientState, str]], due_at: datetime | None
    ) -> None:
        due, now = None if due_at is None else micros(due_at), self._now()
        await self._write(lambda c: outbox.answered(c, id, said, due, now))

    async def outbox_list(self, *, identity: str | None = None, all: bool = False, limit: int) -> Sequence[OutboxMail]:
        return await self._read_aside(lambda c: outbox.listed(c, identity, all, limit))

    async def outbox_mail(self, id: str) -> OutboxMail | None:
        return await self._read(lambda c: outbox.mail(c, id))

    async def outbox_retry(self, id: str) -> int:
        now = self._now()
        return await self._write(lambda c: outbox.retry(c, id, now))

    async def outbox_cancel(self, id: str) -> int:
        now = self._now()
        return await self._write(lambda c: outbox.cancel(c, id, now))

    async def outbox_done(self, digests: Sequence[bytes]) -> Sequence[bytes]:
        return await self._read(lambda c: outbox.done(c, digests))

    async def outbox_forget(self, before: datetime) -> int:
        return await self._write(lambda c: outbox.forget(c, micros(before)))

    async def outbox_rename(self, former: str, name: str) -> int:
        return await self._write(lambda c: outbox.rename(c, former, name))

    # --- alarms and faults -------------------------------------------------------------------------------------
    async def raise_alarm(self, key: str, group: str, summary: str) -> bool:
        now = self._now()
        return await self._write(lambda c: alarms.raise_alarm(c, key, group, summary, now))

    async def clear_alarm(self, key: str) -> AlarmEdge | None:
        now = self._now()
        return await self._write(lambda c: alarms.clear_alarm(c, key, now))

    async def alarms(self) -> Sequence[AlarmEdge]:
        return await self._read(alarms.alarms)

    async def notified(self, keys: Sequence[str]) -> None:
        await self._write(lambda c: alarms.notified(c, keys))

    async def note(self, faults: Sequence[Fault]) -> None:
        await self._write(lambda c: alarms.note(c, faults))

    async def faults(self, subject: str | None = None, *, limit: int = 1000) -> Sequence[Fault]:
        return await self._read_aside(lambda c: alarms.faults(c, subject, limit))

    async def clear_faults(self, subject: str | None = None) -> int:
        return await self._write(lambda c: alarms.clear_faults(c, subject))

    # --- operators ---------------------------------------------------------------------------------------------
    async def record(self, event: str, who: str, detail: str) -> None:
        now = self._now()
        await self._write(lambda c: changes.record(c, event, who, detail, now))

    async def changes(self, since: datetime, *, limit: int = 1000) -> Sequence[Change]:
        return await self._read(lambda c: changes.changes(c, micros(since), limit))

    async def pause(self, what: str, who: str) -> bool:
        now = self._now()
        return await self._write(lambda c: changes.pause(c, what, who, now))

    async def resume(self, what: str) -> bool:
        return await self._write(lambda c: changes.resume(c, what))

    async def pauses(self) -> Mapping[str, Pause]:
        return await self._read(changes.pauses)

    async def configured(self, blocks: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
        return await self._write(lambda c: changes.configured(c, blocks))

    async def trace(self, term: str, *, limit: int = 50) -> Sequence[Story]:
        return await self._read_aside(lambda c: stories.trace(c, term, limit))

    async def conversations(
        self, mailbox: str, message_ids: Collection[str], mailboxes: Collection[str] | None
    ) -> Mapping[str, str]:
        if not message_ids:
            return {}
        return await self._read_aside(
            lambda c: threads.conversations(c, self._unsorted, mailbox, message_ids, mailboxes)
        )

    async def brought(self, mid: str, receipts: Mapping[str, str]) -> bool:
        """See :class:`~mailpoller.core.ports.Ledger`."""
        key = await self._read_aside(lambda c: stories.find(c, mid))
        return key is not None and await self._write(lambda c: stories.brought(c, key, receipts))

    async def erase(self, mids: Sequence[str], address: str = "") -> tuple[int, int]:
        keys = await self._read_aside(lambda c: erasure.keys_of(c, mids))
        erased = 0
        for begin in range(0, len(keys), PIECE):
            some = keys[begin : begin + PIECE]
            erased += await self._write(functools.partial(erasure.erase, keys=some))
        return erased, await self._write(lambda c: erasure.erase_notes(c, mids, address))

    async def reopen(self, mid: str) -> MessageRef:
        key = await self._read_aside(lambda c: stories.find(c, mid))
        if key is None:
            raise MessageGone(f"the ledger has no message {mid}")
        now = self._now()
        return await self._write(lambda c: stories.reopen(c, key, mid, now))

    # --- the thread --------------------------------------------------------------------------------------------
    def _now(self) -> int:
        return micros(self._clock.now())

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._database.write(work)
        except SqliteUnavailable as error:
            raise LedgerUnavailable(str(error)) from error

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._database.read(work)
        except SqliteUnavailable as error:
            raise LedgerUnavailable(str(error)) from error

    async def _shorten_log(self) -> None:
        await self._database.checkpoint()

    async def _read_aside(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """A read that may walk through many rows: beside the writer, which goes on meanwhile."""

        def read() -> T:
            try:
                with LedgerReader.open(self.path) as reader:
                    return work(reader.connection)
            except sqlite3.OperationalError as error:
                raise LedgerUnavailable(f"{self.path}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    async def _find(self, folder: Folder) -> Known:
        """The folder's row. Raises :class:`LedgerUnavailable` if it was never opened, or was forgotten: opening it
        helps."""
        known = self._known.get(folder)
        if known is None:
            known = await self._read(lambda c: folders.find(c, folder))
            if known is None:
                raise LedgerUnavailable(f"{self.path}: folder {folder.name} of {folder.mailbox} is not open")
            self._known[folder] = known
        return known

    async def _key(self, ref: MessageRef) -> Key:
        return (await self._find(ref.folder)).id, ref.uid

    async def _keys(self, refs: Sequence[MessageRef]) -> list[Key]:
        return [(known.id, ref.uid) for known, ref in zip(await self._found(refs), refs, strict=True)]

    async def _found(self, refs: Sequence[MessageRef]) -> list[Known]:
        """The row of each ref's folder. A batch is nearly always of one folder, which is looked up once."""
        rows: list[Known] = []
        folder: Folder | None = None
        for ref in refs:
            if ref.folder is not folder:
                folder = ref.folder
                known = await self._find(folder)
            rows.append(known)
        return rows

    def _drop_known(self, mailbox: str) -> None:
        for folder in [folder for folder in self._known if folder.mailbox == mailbox]:
            del self._known[folder]


def _refs(folder: Folder, rows: Iterable[bearers.Named]) -> list[MessageRef]:
    return [MessageRef(folder, uid, size, instant_of_seconds(received)) for uid, size, received in rows]


def _pieces(uids: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(uids), PIECE):
        yield uids[begin : begin + PIECE]


async def _take(lock: Lock, clock: Clock) -> None:
    """Take the lock; one that is held for a moment only is waited for. Raises as :meth:`Lock.take`."""
    until = time.monotonic() + LOCK_PATIENCE.total_seconds()
    while True:
        try:
            lock.take(clock.now())
            return
        except LedgerLocked:
            if time.monotonic() > until:
                raise
        await asyncio.sleep(_LOCK_RETRY_S)
