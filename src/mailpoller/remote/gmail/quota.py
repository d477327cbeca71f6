"""Our share of the Gmail API: 15,000 quota units a minute for each user, which a bucket of tokens never exceeds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from mailpoller.core.ports import Clock
from mailpoller.remote.throttle import Throttle

PER_MINUTE = 15_000
"""Units that the service gives a user each minute (Gmail API, Usage limits)."""
BURST = 1_500.0
"""Units that may be spent at once after a quiet time."""
RATE = (PER_MINUTE - BURST) / 60
"""Units a second after that: so that no minute, wherever it begins, holds more than :data:`PER_MINUTE`."""


class Quota(Throttle):
    """Lets requests through as fast as the service allows: shared by everybody who speaks to one mailbox. First come,
    first served."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("Gmail", clock)
        self._queue = asyncio.Lock()
        self._level = BURST
        self._filled_at = clock.monotonic()

    @asynccontextmanager
    async def turn(self, units: int) -> AsyncIterator[None]:
        """As :meth:`take`, for a request that is made inside; whose end frees nothing."""
        await self.take(units)
        yield

    async def take(self, units: int) -> None:
        """Return when so many units may be spent, at most :data:`BURST`. Raises :class:`Busy` if the service wants to
        be left alone for long."""
        async with self._queue:
            await self._until(lambda now: self._wanted(units, now))
            self._level -= units

    def _wanted(self, units: int, now: float) -> float:
        """Seconds until there are so many units."""
        self._level = min(BURST, self._level + (now - self._filled_at) * RATE)
        self._filled_at = now
        return (units - self._level) / RATE


_quotas: WeakValueDictionary[tuple[str, str], Quota] = WeakValueDictionary()


def quota_for(url: str, user: str, clock: Clock) -> Quota:
    """The quota of this user of the service at ``url``, one for the whole process as long as anybody holds it."""
    key = url.lower(), user.lower()
    found = _quotas.get(key)
    if found is None:
        found = _quotas[key] = Quota(clock)
    return found
