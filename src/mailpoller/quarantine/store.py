"""The quarantine as a sink and as a store: takes deliveries, and holds them until somebody decides or they expire."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import structlog

from mailpoller.core.delivery import QUARANTINE, Delivery, Receipt, Refusal
from mailpoller.core.errors import MessageGone, TransientError
from mailpoller.core.ports import Clock, DoubtKind, Mark, OctetsPlace, SinkDoubt
from mailpoller.core.quarantined import Quarantined, Selection
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.core.spool import Octets, Spool
from mailpoller.quarantine.files import Files, file_size
from mailpoller.quarantine.form import Damaged, described
from mailpoller.quarantine.index import Index
from mailpoller.storage.disk import in_words, of_the_disk, require_place, require_room, require_writable, transient
from mailpoller.storage.markfile import MarkFile
from mailpoller.storage.thread import Worker

log = structlog.get_logger(__name__)

T = TypeVar("T")

WARNED_BEFORE = timedelta(days=7)
"""What will expire is told so long before, or half of ``keep`` before if that is less."""
_EXPIRED_AT_ONCE = 1000
_MARK = ".mailpoller-quarantine"

EXPIRING = DoubtKind(
    "quarantine-expiring",
    "Mail in the {subject} will be removed soon",
    "No mail in the {subject} will be removed soon",
    "Look at it, and release or discard it: mailpoller quarantine list. quarantine.keep says how long it is kept.",
)
DAMAGED = DoubtKind(
    "quarantine-damaged",
    "Files in the {subject} cannot be read",
    "The files in the {subject} can be read again",
    "They are left as they are. Look at the disk, and at the files that the log names; put them back from a copy.",
)


class Store:
    """See :class:`~mailpoller.core.ports.Sink` and :class:`~mailpoller.core.ports.QuarantineStore`.

    Held is what lies in ``held``: one file with reason and octets, written beside it, synced, renamed, and the
    directory synced, once for a batch. ``keep``: so long at least; ``max_size``: octets of all files together, above
    which it takes nothing. What expires was told before; if its notice is owed it was kept twice as long.
    """

    octets_place: OctetsPlace = "beside"
    doubts: Collection[DoubtKind] = (EXPIRING, DAMAGED)

    def __init__(
        self, path: Path, clock: Clock, spool: Spool, *, keep: timedelta, max_size: int, min_free: int = 0
    ) -> None:
        self.path = path
        self.news = asyncio.Event()
        self._clock = clock
        self._spool = spool
        self._min_free = min_free
        self.limit(keep, max_size)
        self._files = Files(path)
        self._index = Index(path / "index.db")
        self._mark = MarkFile(QUARANTINE, path, path, _MARK)
        self._worker = Worker("quarantine")
        self._used = 0
        self._wanted = 0
        """Octets of the file for which there was no room; 0 if there was room for the last."""
        self._damaged: dict[str, str] = {}

    # --- a sink --------------------------------------------------------------------------------------------------
    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. Raises :class:`TransientError` if there is no room for any."""
        answers = await self._worker.do(self._deliver, batch)
        self.news.set()
        return answers

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`."""
        await self._worker.do(self._check)

    async def upkeep(self) -> Collection[SinkDoubt]:
        """See :class:`~mailpoller.core.ports.Upkept`: let go what has expired."""
        return await self._worker.do(self._upkeep)

    async def mark(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return await self._worker.do(self._mark.read)

    async def renewed(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return await self._worker.do(self._mark.renewed, -1)

    def expect(self, mark: Mark | None) -> None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        self._mark.expect(mark)
        if mark is None:
            self._index.close()  # another quarantine may lie there now

    def place(self) -> str:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return str(self.path)

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._worker.do(self._index.close)
        await self._worker.close()
        self._files.close()

    def limit(self, keep: timedelta, max_size: int) -> None:
        """See :class:`~mailpoller.core.ports.QuarantineStore`."""
        self._keep, self._max_size = keep, max_size
        self._limits_new = True
        self._warning = min(WARNED_BEFORE, keep / 2)

    # --- a store -------------------------------------------------------------------------------------------------
    async def owed(self, now: datetime, *, but: Collection[str], limit: int) -> Sequence[Quarantined]:
        """See :class:`~mailpoller.core.ports.QuarantineStore`."""
        return await self._worker.do(self._asked, lambda: self._index.owed(now, but, limit), [])

    async def notified(self, words: Mapping[str, str]) -> None:
        """See :class:`~mailpoller.core.ports.QuarantineStore`."""
        await self._worker.do(self._notified, words)

    async def put_off(self, delivery_ids: Collection[str], until: datetime, trouble: str, *, counted: bool) -> None:
        """See :class:`~mailpoller.core.ports.QuarantineStore`."""

        def note() -> None:
            self._index.put_off(delivery_ids, until, trouble, counted=counted)

        await self._worker.do(self._asked, note, None)

    async def find(self, selection: Selection, *, limit: int) -> Sequence[Quarantined]:
        """See :class:`~mailpoller.core.ports.QuarantineStore`."""
        return await self._worker.do(self._asked, lambda: self._index.find(selection, self._clock.now(), limit), [])

    async def octets(self, held: Quarantined) -> Octets:
        """See :class:`~mailpoller.core.ports.QuarantineStore`."""
        return await self._worker.do(self._octets, held.delivery_id)

    async def remove(self, delivery_ids: Collection[str]) -> int:
        """See :class:`~mailpoller.core.ports.QuarantineStore`."""
        return await self._worker.do(self._remove, delivery_ids)

    async def take_over(self, held: Quarantined, octets: Octets) -> None:
        """Hold from now on what was held in another place; once more is as once. Raises :class:`TransientError`."""
        await self._worker.do(self._take_over, held, octets)
        self.news.set()

    # --- in the worker's thread ----------------------------------------------------------------------------------
    @contextmanager
    def _disk(self, doing: str) -> Iterator[None]:
        try:
            with transient(f"{doing} the quarantine {self.path}"):
                yield
        except sqlite3.Error as error:
            # Read anew from the files; a damaged one is of no use to anybody.
            self._index.close() if isinstance(error, sqlite3.OperationalError) else self._index.discard()
            raise TransientError(f"cannot {doing} the quarantine {self.path}: {error}") from error

    def _open(self) -> None:
        """Make what is missing, and have the index agree with the files."""
        self._mark.require()
        if self._index.opened and (self.path / "held").is_dir():
            return
        with self._disk("open"):
            self._index.close()
            self._files.make()
            self._index.open()
            self._agree()
            _, self._used = self._index.total()
        self._mark.keep(-1)

    def _agree(self) -> None:
        there, known = dict(self._files.names()), self._index.names()
        self._index.drop(known.keys() - there.keys())
        self._index.owe({one: owed for one, owed in there.items() if one in known and known[one] is not owed})
        missing = sorted(there.keys() - known.keys())
        found: list[Quarantined] = []
        self._damaged.clear()
        for one in missing:
            try:
                if (held := self._files.described(one)) is not None:
                    found.append(held)
            except Damaged as error:
                self._damaged[one] = str(error)
                log.error("quarantine.damaged", file=one, reason=str(error))
            if len(found) >= _EXPIRED_AT_ONCE:
                self._index.add(found)
                found.clear()
        self._index.add(found)
        if missing or known.keys() - there.keys():
            log.info("quarantine.surveyed", held=len(there), read=len(missing), gone=len(known.keys() - there.keys()))

    def _check(self) -> None:
        """Creates nothing: if it is not there yet, a place where it can be made is enough."""
        self._mark.require()
        if not (self.path / "held").is_dir():
            require_place(self.path, self._min_free)
            return
        require_room(self.path, self._min_free)
        require_writable(self.path / "tmp")
        self._open()
        if self._used + max(self._wanted, 1) > self._max_size:
            raise TransientError(self._full())

    def _full(self) -> str:
        return (
            f"the quarantine is full: {self._used:,} octets of {self._max_size:,} (quarantine.max_size). Mail that "
            f"belongs into it stays on its server. Release or discard some, or raise max_size"
        )

    def _deliver(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        self._open()
        require_room(self.path, self._min_free)
        with self._disk("write to"):
            known = self._known([one.delivery_id for one in batch])
            now = self._clock.now()
            fresh = {
                one.delivery_id: (described(one, now), one.raw.octets) for one in batch if one.delivery_id not in known
            }
            vast = {one for one, (held, _) in fresh.items() if file_size(held) > self._max_size}
            fitting = {one: kept for one, kept in fresh.items() if one not in vast}
            lacking = self._lack_room(fitting)
            if lacking and len(lacking) == len(batch):
                raise TransientError(self._full())
            taken = {one: kept for one, kept in fitting.items() if one not in lacking}
            faults = self._files.hold(taken.values()) if taken else {}
            if faults and len(faults) == len(batch) and (fault := of_the_disk(faults.values())):
                raise TransientError(in_words(fault, f"write to the quarantine {self.path}"))
            self._note([kept for one, (kept, _) in taken.items() if one not in faults])
        answers: list[Receipt | Refusal] = []
        told: set[str] = set()
        for one in batch:
            delivery_id = one.delivery_id
            if delivery_id in vast:
                words = f"the message is larger than the quarantine: quarantine.max_size is {self._max_size:,}"
                answers.append(Refusal(delivery_id, words, unasked=True))
            elif delivery_id in lacking:
                answers.append(Refusal(delivery_id, self._full(), blame="queue"))
            elif (fault_of := faults.get(delivery_id)) is not None:
                answers.append(Refusal(delivery_id, in_words(fault_of, "write the message"), blame="queue"))
            else:
                repeated = delivery_id in known or delivery_id in told
                answers.append(SealedReceipt(delivery_id, reference=delivery_id, repeated=repeated))
                told.add(delivery_id)
        return answers

    def _note(self, held: Sequence[Quarantined]) -> None:
        """They are held, whatever becomes of the index: it is compared with the files when it is next opened."""
        self._used += sum(map(file_size, held))
        try:
            self._index.add(held)
        except sqlite3.Error as error:
            log.debug("quarantine.index_closed", reason=str(error))
            self._index.close()

    def _known(self, delivery_ids: Collection[str]) -> Collection[str]:
        """Those of these that are held. The file is looked at: a row of the index is no receipt."""
        rows = self._index.known(delivery_ids)
        known = {one for one in rows if self._files.holds(one)}
        self._index.drop(rows.keys() - known)
        return known

    def _lack_room(self, fresh: Mapping[str, tuple[Quarantined, Octets]]) -> set[str]:
        """Those for which there is no room; what the smallest of them needs is noted."""
        room, lacking, wanted = self._max_size - self._used, set(), 0
        for delivery_id, (held, _) in fresh.items():
            size = file_size(held)
            if size > room:
                lacking.add(delivery_id)
                wanted = min(wanted, size) if wanted else size
            else:
                room -= size
        self._wanted = wanted
        return lacking

    def _upkeep(self) -> list[SinkDoubt]:
        if not (self.path / "held").is_dir():
            return []
        self._open()
        now = self._clock.now()
        with self._disk("look after"):
            if self._limits_new:
                self._limits_new = False  # before the look: they may change meanwhile
                try:
                    self._index.unwarn(held_since=now - self._keep + self._warning)
                except sqlite3.Error:
                    self._limits_new = True
                    raise
            expired = self._index.expired(now, self._keep, self._warning, _EXPIRED_AT_ONCE)
            ids = [held.delivery_id for held in expired]
            for held in expired:
                log.warning("quarantine.expired", mid=held.mid, mailbox=held.mailbox, reason=held.reason)
            self._let_go(ids)
            count = self._index.warn(now, held_before=now - self._keep + self._warning)
        doubts = []
        if count:
            days = f"{self._warning / timedelta(days=1):.0f} days" if self._warning >= timedelta(days=2) else "hours"
            doubts.append(SinkDoubt(EXPIRING, f"{count:,} messages within {days}"))
        if self._damaged:
            name, why = next(iter(self._damaged.items()))
            doubts.append(SinkDoubt(DAMAGED, f"{len(self._damaged):,}, among them {name}: {why}"))
        return doubts

    def _asked(self, question: Callable[[], T], nothing: T) -> T:
        """Creates nothing: only a delivery does, once it is certain that it is the quarantine that it was."""
        if not (self.path / "held").is_dir():
            self._mark.require()
            return nothing
        self._open()
        with self._disk("read"):
            return question()

    def _notified(self, words: Mapping[str, str]) -> None:
        def note() -> None:
            self._files.notified(words)
            self._index.notified(words)

        self._asked(note, None)

    def _octets(self, delivery_id: str) -> Octets:
        if not (self.path / "held").is_dir():
            self._mark.require()
            raise MessageGone(f"{delivery_id} is not in the quarantine")
        self._open()
        with self._disk("read"):
            try:
                octets = self._files.octets(delivery_id, self._spool)
            except Damaged as error:
                if delivery_id not in self._damaged:
                    log.error("quarantine.damaged", file=delivery_id, reason=str(error))
                self._damaged[delivery_id] = str(error)
                raise
            if octets is None:
                self._index.drop([delivery_id])
                raise MessageGone(f"{delivery_id} is not in the quarantine any more")
        self._damaged.pop(delivery_id, None)
        return octets

    def _remove(self, delivery_ids: Collection[str]) -> int:
        return self._asked(lambda: self._let_go(delivery_ids), 0)

    def _let_go(self, delivery_ids: Collection[str]) -> int:
        if not delivery_ids:
            return 0
        sizes = self._index.known(delivery_ids)
        gone = self._files.remove(delivery_ids)
        self._index.drop(delivery_ids)
        self._used = max(0, self._used - sum(sizes.values()))
        self._wanted = 0
        for one in delivery_ids:
            self._damaged.pop(one, None)
        return gone

    def _take_over(self, held: Quarantined, octets: Octets) -> None:
        self._open()
        with self._disk("write to"):
            if self._known([held.delivery_id]):
                return
            held = replace(held, held_at=self._clock.now())
            if faults := self._files.hold([(held, octets)]):
                raise faults[held.delivery_id]
            self._note([held])
