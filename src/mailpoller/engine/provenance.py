"""Whether the outbox is the one that sent here last, or a copy, which must not send what was sent already."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import structlog

from mailpoller.core.errors import MachineTrouble, MailpollerError
from mailpoller.core.ports import Clock, Outbox, OutboxMark
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.storage.witness_file import Witness, WitnessFile

log = structlog.get_logger(__name__)

FILE = "outbox.witness"
"""Its name in the state directory."""
ANEW_EVERY = timedelta(minutes=1)
"""How often the mark grows while mail is sent."""
UNKNOWN = "it is not known yet whether this outbox is a copy"


class Provenance:
    """Holds the outbox until it is known to be no copy, or an operator accepts it.

    The ledger bears a mark: an identity and a height, the machine and the state directory. Files say the same identity
    and height: one in the state directory, and one in ``elsewhere`` if there is such a directory, which is not put back
    together with the ledger. The height grows before mail is sent, in the ledger first: so a ledger that is lower than
    a file is an older one. ``held``: why nothing is sent, in words, or nothing.
    """

    def __init__(
        self, ledger: Outbox, state: Path, clock: Clock, *, machine: str, elsewhere: Path | None, alarm: Alarm | None
    ) -> None:
        self.held = UNKNOWN
        self._ledger = ledger
        self._place = state.absolute()
        self._machine = machine
        self._elsewhere = elsewhere
        self._alarm = alarm
        self._clock = clock
        self._beside = WitnessFile(self._place / FILE)
        self._mark: OutboxMark | None = None
        self._grown_at: float | None = None
        """Monotonic; None: nothing was sent since."""
        self._unwritten = ""
        self._one = asyncio.Lock()
        """One change of the mark at a time."""

    async def look(self) -> str:
        """Compare, unless that is done; why it is held. What is no copy, or is begun, gets a higher mark. Raises
        :class:`LedgerUnavailable`."""
        async with self._one:
            return await self._look()

    async def _look(self) -> str:
        if self._mark is not None:
            return self.held
        found = await self._ledger.outbox_mark()
        waits = bool(await self._ledger.outbox_backlog())
        try:
            reason = await asyncio.to_thread(self._unlike, found, waits)
        except MachineTrouble as error:
            await self._hold(f"it cannot be told whether this outbox is a copy: {error}")
            return self.held
        if reason:
            await self._hold(reason)
            return self.held
        if found is None:
            # Height 0: the file is still to come. A higher mark without a file is one that lost it.
            found = OutboxMark(uuid4().hex, 0, self._machine, str(self._place))
            await self._ledger.outbox_note_mark(found)
        if not found.height and not await self._write(found):
            await self._hold(f"it cannot be noted which outbox this is: {self._unwritten}")
            return self.held
        await self._take(replace(found, machine=self._machine or found.machine, place=str(self._place)))
        return self.held

    async def accept(self) -> str:
        """An operator says that this outbox is to send: why it was held. Raises :class:`MailpollerError` if it is not,
        and :class:`LedgerUnavailable`."""
        async with self._one:
            return await self._accept()

    async def _accept(self) -> str:
        reason = await self._look()
        if not reason:
            raise MailpollerError("this outbox is not held: it is the one that sent here last")
        # Another identity, so that the outbox that it was copied from does not count as the older one.
        mark = OutboxMark(uuid4().hex, 0, self._machine, str(self._place))
        await self._ledger.outbox_note_mark(mark)
        if not await self._write(mark):
            raise MachineTrouble(self._unwritten)
        await self._take(mark)
        log.warning("outbox.copy_accepted", reason=reason)
        return reason

    async def sends(self) -> None:
        """To be called before mail is sent. Raises :class:`LedgerUnavailable`."""
        async with self._one:
            if self._mark is not None and self._grown_at is None:
                await self._grow(self._mark)
                self._grown_at = self._clock.monotonic()

    async def sent(self, *, all_of_it: bool = False) -> None:
        """To be called every minute, and at the end (``all_of_it``). Raises :class:`LedgerUnavailable`."""
        async with self._one:
            if self._mark is None or self._grown_at is None:
                return
            if all_of_it or self._clock.monotonic() - self._grown_at >= ANEW_EVERY.total_seconds():
                await self._grow(self._mark)
                self._grown_at = None

    def _unlike(self, mark: OutboxMark | None, waits: bool) -> str:
        beside = self._beside.read()
        if mark is None:
            if beside is not None and waits:
                return f"the ledger is an older one: {self._beside.path} bears a mark, and the ledger bears none"
            return ""
        if mark.machine and mark.machine != self._machine:
            return "it was copied from another host: the machine id is not the one that sent last"
        if beside is None and mark.height:
            return f"it was restored or copied: {self._beside.path}, which tells how far it got, is missing"
        if beside is not None and beside.identity != mark.identity:
            return f"it was restored or copied: {self._beside.path} is that of another outbox"
        for file in filter(None, (self._beside, self._aside(mark))):
            witness = file.read()
            if witness is not None and witness.identity == mark.identity and witness.height > mark.height:
                return f"it is an older copy: it got to {mark.height:,}, and {file.path} says {witness.height:,}"
        if mark.place != str(self._place):
            original = WitnessFile(Path(mark.place) / FILE)
            try:
                other = original.read()
            except MachineTrouble:  # not ours to read: nothing speaks against a move
                other = None
            apart = not _same_file(original.path, self._beside.path)
            if other is not None and other.identity == mark.identity and apart:
                return f"it is a copy: the outbox that it was copied from lies at {mark.place}"
        return ""

    def _aside(self, mark: OutboxMark) -> WitnessFile | None:
        return None if self._elsewhere is None else WitnessFile(self._elsewhere / f"{mark.identity}.{FILE}")

    async def _take(self, mark: OutboxMark) -> None:
        await self._grow(mark)
        self.held = ""
        if self._alarm is not None:
            await self._alarm.ended(Kind.OUTBOX_COPIED, "outbox")

    async def _grow(self, mark: OutboxMark) -> None:
        mark = replace(mark, height=mark.height + 1)
        await self._ledger.outbox_note_mark(mark)
        self._mark = mark
        await self._write(mark)

    async def _write(self, mark: OutboxMark) -> bool:
        """False if the state directory cannot take it now. Mail goes out all the same once there is a file: the ledger
        is ahead of it then."""
        trouble: dict[WitnessFile, str] = {}
        for file in filter(None, (self._beside, self._aside(mark))):
            try:
                await asyncio.to_thread(file.write, Witness(mark.identity, mark.height))
            except MachineTrouble as error:
                trouble[file] = str(error)
        if (words := "; ".join(trouble.values())) and self._unwritten != words:
            log.warning("outbox.unwitnessed", reason=words)
        self._unwritten = words
        return self._beside not in trouble

    async def _hold(self, reason: str) -> None:
        if self.held != reason:
            self.held = reason
            log.error("outbox.copied", reason=reason)
        if self._alarm is not None:
            await self._alarm.raised(Kind.OUTBOX_COPIED, "outbox", reason)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
