"""What will stop working on a date that is known: told before it does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog

from mailpoller.core.ports import Clock, Expiring
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.alarm import Alarm, Kind

log = structlog.get_logger(__name__)

AHEAD_DAYS = (30, 14, 3)
"""How many days before the end it is told, each once."""

PAUSE = timedelta(days=1)


class Forecast:
    """Looks at every part's expiries at the start, and then once a day.

    Each of :data:`AHEAD_DAYS` is an alarm of its own, so that a mail comes for each; a credential that is found late
    is told once, for the nearest of them. All its alarms end when its date has moved away, or nobody has it any more.
    Parts that share a credential are told of together; of several dates for one the earliest counts. ``parts`` may
    change at any time.
    """

    def __init__(self, parts: Mapping[str, Expiring], alarm: Alarm, clock: Clock) -> None:
        self._parts = parts
        self._alarm = alarm
        self._clock = clock
        self._known: set[str] = set()
        self.ends: dict[str, datetime] = {}
        """What ends when, as far as it was known at the last look."""

    async def run(self, stop: asyncio.Event) -> None:
        """Look until ``stop``; the first time even if it is set already, for a service that runs only briefly."""
        await self.look()
        async with TaskGroup() as group:
            looking = group.create_task(self._look_daily(), name="forecast of expiries")
            await stop.wait()
            looking.cancel()

    def report(self) -> Mapping[str, Any]:
        """What ``status`` shows: the credentials whose end is known, the first one first."""
        ends = sorted(self.ends.items(), key=lambda item: (item[1], item[0]))
        return {"credentials": [{"credential": name, "ends_at": end.isoformat()} for name, end in ends]}

    async def _look_daily(self) -> None:
        while True:
            await self._clock.sleep(PAUSE.total_seconds())
            await self.look()

    async def look(self) -> None:
        """Raise and end what is due now."""
        now, ends = self._clock.now(), await self._ends()
        self.ends = ends
        for credential, end in ends.items():
            await self._judge(credential, end, now)
        for credential in self._known - ends.keys():
            for days in AHEAD_DAYS:
                await self._alarm.ended(Kind.CREDENTIALS_EXPIRE, _subject(credential, days))
        self._known = set(ends)

    async def _ends(self) -> dict[str, datetime]:
        ends: dict[str, datetime] = {}
        for name, part in list(self._parts.items()):
            try:
                found = await asyncio.to_thread(part.expiries)
            except Exception:  # one plug-in's bug is not to hide what others know
                log.exception("forecast.failed", part=name)
                continue
            for credential, end in found:
                ends[credential] = min(end, ends.get(credential, end))
        return ends

    async def _judge(self, credential: str, end: datetime, now: datetime) -> None:
        reached = [days for days in AHEAD_DAYS if end - now <= timedelta(days=days)]
        when = f"it {'ended' if end <= now else 'ends'} on {end:%Y-%m-%d}"
        for days in AHEAD_DAYS:
            subject = _subject(credential, days)
            if days not in reached:
                await self._alarm.ended(Kind.CREDENTIALS_EXPIRE, subject)
            elif days == min(reached) or await self._alarm.stands(Kind.CREDENTIALS_EXPIRE, subject):
                await self._alarm.raised(Kind.CREDENTIALS_EXPIRE, subject, when)


def _subject(credential: str, days: int) -> str:
    return f"{credential} ({days} days)"
