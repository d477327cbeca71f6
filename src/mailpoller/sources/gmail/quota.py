"""Our share of the Gmail API: 15,000 quota units a minute for each user, which a bucket of tokens never exceeds."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from weakref import WeakValueDictionary

from mailpoller.core.ports import Clock
from mailpoller.sources.gmail.errors import Busy

PER_MINUTE = 15_000
"""Units that the service gives a user each minute (Gmail API, Usage limits)."""
BURST = 1_500.0
"""Units that may be spent at once after a quiet time."""
RATE = (PER_MINUTE - BURST) / 60
"""Units a second after that: so that no minute, wherever it begins, holds more than :data:`PER_MINUTE`."""
LONGEST_PAUSE = 30.0
"""Seconds that a request waits for its turn here; for longer the engine waits, and frees what it holds meanwhile."""
_FIRST_PAUSE = 1.0
"""Seconds of the first pause where the service did not say how long; doubled each time until it serves us again."""


class Quota:
    """Lets requests through as fast as the service allows: shared by everybody who speaks to one mailbox. First come, first served."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue = asyncio.Lock()
        self._level = BURST
        self._filled_at = clock.monotonic()
        self._paused_until = 0.0
        self._refusals = 0

    async def take(self, units: int) -> None:
        """Return when so many units may be spent, at most :data:`BURST`. Raises :class:`Busy` if the service wants to be left alone for long."""
        async with self._queue:
            while (wait := self._wanted(units)) > 0:
                if wait > LONGEST_PAUSE:
                    raise Busy(f"Gmail wants to be left alone for {wait:.0f} s", retry_after=timedelta(seconds=wait))
                await self._clock.sleep(max(wait, 0.001))
            self._level -= units

    def throttled(self, wish: timedelta | None) -> float:
        """The service refused a request: nobody asks for as long as it wants, or for a while that doubles. Seconds of it."""
        if wish is not None:
            wait = wish.total_seconds()
        else:
            wait = _FIRST_PAUSE * 2 ** min(self._refusals, 8) * random.uniform(0.8, 1.2)
        self._refusals += 1
        self._paused_until = max(self._paused_until, self._clock.monotonic() + wait)
        return wait

    def served(self) -> None:
        """The service answered a request: the next refusal is a first one."""
        self._refusals = 0

    def _wanted(self, units: int) -> float:
        """Seconds until so many units may be spent."""
        now = self._clock.monotonic()
        self._level = min(BURST, self._level + (now - self._filled_at) * RATE)
        self._filled_at = now
        return max(self._paused_until - now, (units - self._level) / RATE)


_quotas: WeakValueDictionary[tuple[str, str], Quota] = WeakValueDictionary()


def quota_for(url: str, user: str, clock: Clock) -> Quota:
    """The quota of this user of the service at ``url``, one for the whole process as long as anybody holds it."""
    key = url.lower(), user.lower()
    found = _quotas.get(key)
    if found is None:
        found = _quotas[key] = Quota(clock)
    return found
