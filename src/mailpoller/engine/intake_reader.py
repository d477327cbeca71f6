"""Reads the intakes in which programs leave entries, and opens those to which they bring them, each by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic

import structlog

from mailpoller.core.errors import (
    EntryPutOff,
    EntryRefused,
    LedgerUnavailable,
    MachineTrouble,
    MailpollerError,
    TransientError,
    machine_trouble,
)
from mailpoller.core.ports import EntryAnswer, EntryListener, EntrySource, TakenEntry, WaitingEntry
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.acceptance import Acceptance
from mailpoller.engine.alarm import Alarm, Kind

log = structlog.get_logger(__name__)

LOOK_S = 1.0
"""How often an intake is looked into."""
TROUBLE_S = 10.0
"""And after trouble; so much later also an entry is looked at again that had to wait for itself."""
AT_ONCE = 50
_AGAIN_PER_S = 100
"""Entries that have to wait for themselves are looked at again no faster than this, however many there are."""
_MOST_PUT_OFF = 20_000
"""So many of them are passed over. Beyond that what comes after them waits, too."""


@dataclass(slots=True)
class _Reading:
    """An intake at work."""

    source: EntrySource | EntryListener
    stop: asyncio.Event
    task: asyncio.Task[None]


class IntakeReader:
    """A task for each intake. ``sources`` may be replaced at any time; one that is not among them any more is closed.

    An entry is answered once its mail is on the disk, or why it cannot be; a crash between the two makes it be taken
    once more under its own key, and answered alike. No entry stops another one: one that has to wait for itself (for
    the message that it answers, say) is passed over by the others.
    """

    def __init__(
        self,
        acceptance: Acceptance,
        sources: Mapping[str, EntrySource | EntryListener],
        alarm: Alarm,
        *,
        largest: int,
    ) -> None:
        self.sources = sources
        self._acceptance = acceptance
        self._alarm = alarm
        self._largest = largest
        self._put_off: dict[EntrySource, dict[int, float]] = {}
        """Source -> numbers of entries that wait for themselves -> when each is looked at again."""

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; then what is in hand is answered."""
        at_work: dict[str, _Reading] = {}
        async with TaskGroup() as group:
            while not stop.is_set():
                for name, reading in list(at_work.items()):
                    if self.sources.get(name) is not reading.source:
                        reading.stop.set()
                        if reading.task.done():
                            del at_work[name]
                for name, source in self.sources.items():
                    if name not in at_work:  # a predecessor ends first
                        ended = asyncio.Event()
                        task = group.create_task(self._read(name, source, ended), name=f"intake {name}")
                        at_work[name] = _Reading(source, ended, task)
                await _wait(stop, LOOK_S)
            for reading in at_work.values():
                reading.stop.set()

    async def _read(self, name: str, source: EntrySource | EntryListener, stop: asyncio.Event) -> None:
        trouble, alarmed = "", True  # an earlier run may have raised it

        def well() -> None:
            nonlocal trouble, alarmed
            if alarmed:
                self._alarm.tell_end(Kind.INTAKE_FAILING, name)
            trouble, alarmed = "", False

        while not stop.is_set():
            wait = LOOK_S
            try:
                if await self._worked(name, source, stop, well):
                    wait = 0.0
                well()
            except Exception as error:
                wait, reason = TROUBLE_S, str(error)
                if not isinstance(error, MailpollerError) and machine_trouble(error) is None:
                    log.exception("intake.crashed", intake=name)
                    reason = f"this is a bug: {type(error).__name__}"
                if reason != trouble:
                    trouble = reason
                    log.warning("intake.waiting", intake=name, reason=reason)
                    self._alarm.fault(name, "intake.waiting", reason)
                if not isinstance(error, LedgerUnavailable):  # which has an alarm of its own
                    alarmed = True
                    self._alarm.tell(Kind.INTAKE_FAILING, name, reason, group=f"intake {name}")
            await _wait(stop, wait)
        if not isinstance(source, EntryListener):
            self._put_off.pop(source, None)
        if name not in self.sources:
            self._alarm.tell_end(Kind.INTAKE_FAILING, name)
        await source.close()

    async def _worked(
        self, name: str, source: EntrySource | EntryListener, stop: asyncio.Event, well: Callable[[], None]
    ) -> bool:
        """A round at a source; all of them at a listener. True if there may be more."""
        if not isinstance(source, EntryListener):
            return await self.step(name, source)
        await source.serve(partial(self._taken, name), stop, largest=self._largest, opened=well)
        return False

    async def _taken(self, name: str, octets: bytes, key: str) -> TakenEntry:
        """See :class:`~mailpoller.core.ports.EntryTaker`."""
        try:
            mail, repeated = await self._acceptance.take(name, octets, key, said=True)
        except EntryRefused as error:
            log.info("intake.refused", intake=name, reason=str(error))
            raise
        except TransientError:
            raise
        except Exception as error:
            if (trouble := machine_trouble(error)) is not None:
                raise MachineTrouble(trouble) from None
            log.exception("intake.crashed", intake=name)
            raise
        return TakenEntry(mail.id, mail.message_id, len(mail.recipients), repeated)

    async def step(self, name: str, source: EntrySource) -> bool:
        """Answer some entries; True if there may be more. Raises :class:`TransientError`: the rest waits."""
        later, now = self._put_off.setdefault(source, {}), monotonic()
        for number in [number for number, again in later.items() if again < now - 10 * TROUBLE_S]:
            del later[number]  # it is not there any more, or nobody came to look
        waiting = [number for number, again in later.items() if again > now]
        if len(waiting) >= _MOST_PUT_OFF:
            raise TransientError(f"{len(waiting)} entries have to wait, and those after them wait for these")
        entries = await source.waiting(limit=AT_ONCE, largest=self._largest, but=waiting)
        answers: list[EntryAnswer] = []
        try:
            for entry in entries:
                try:
                    answers.append(await self._answered(name, entry))
                except EntryPutOff as error:
                    if entry.number not in later:
                        log.info("intake.put_off", intake=name, entry=entry.number, reason=str(error))
                    later[entry.number] = monotonic() + max(TROUBLE_S, len(later) / _AGAIN_PER_S)
                else:
                    later.pop(entry.number, None)
        finally:
            if answers:
                await source.answer(answers)
        return bool(entries)

    async def _answered(self, name: str, entry: WaitingEntry) -> EntryAnswer:
        try:
            if entry.octets is None:
                unread = (
                    f"{entry.size} octets are more than outbox.max_mail, {self._largest}"
                    if entry.size
                    else "an entry is text, one JSON object"
                )
                await self._acceptance.refuse(name, entry.key, entry.number, unread)
            mail, _ = await self._acceptance.take(name, entry.octets, entry.key, number=entry.number)
        except EntryRefused as error:
            reason = str(error)
        except (TransientError, LedgerUnavailable):
            raise
        except Exception as error:
            if machine_trouble(error) is not None:
                raise
            log.exception("intake.crashed", intake=name)
            reason = f"this is a bug: {type(error).__name__}"
        else:
            return EntryAnswer(entry.number, mail.id, mail.message_id)
        log.info("intake.refused", intake=name, entry=entry.number, reason=reason)
        return EntryAnswer(entry.number, reason=reason)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
