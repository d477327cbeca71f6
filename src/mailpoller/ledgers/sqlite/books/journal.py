"""See :class:`~mailpoller.core.ports.ledger.journal.Journal`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from mailpoller.core.ports import (
    AlarmEdge,
    Change,
    Fault,
    Pause,
)
from mailpoller.ledgers.sqlite import (
    alarms,
    changes,
)
from mailpoller.ledgers.sqlite.books.base import Book
from mailpoller.ledgers.sqlite.values import micros


class JournalBook(Book):
    """See :class:`~mailpoller.core.ports.ledger.journal.Journal`."""

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
