"""Our share of Graph: four requests at a time and 10,000 in ten minutes, for each pair of application and mailbox."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from mailpoller.core.ports import Clock
from mailpoller.remote.throttle import Throttle

AT_ONCE = 4
"""Requests that Exchange Online serves at a time for one application in one mailbox."""
BUDGET = 9_500
"""Requests that we allow ourselves in :data:`WINDOW`, of the 10,000 that the service does: others may use the
application too."""
WINDOW = 600.0
"""Seconds over which requests are counted."""
_GRAIN = 10.0
"""Seconds that are counted as one, so that a window is sixty numbers."""


class Gate(Throttle):
    """Lets requests through as the service wants them: shared by everybody who speaks to one mailbox as one
    application.

    Turns are taken in the order in which they are asked for, so that a batch, which takes all four places, is not
    overtaken for ever.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__("Graph", clock)
        self._free = AT_ONCE
        self._left = asyncio.Condition()
        self._queue = asyncio.Lock()
        self._counts: deque[tuple[float, int]] = deque()

    @asynccontextmanager
    async def turn(self, places: int = 1, requests: int = 1) -> AsyncIterator[None]:
        """Hold ``places`` of the four for ``requests`` requests. Raises :class:`Busy` if it is not our turn for
        long."""
        async with self._queue:
            await self._until(self._wanted)
            async with self._left:
                while self._free < places:
                    await self._left.wait()
                self._free -= places
            try:
                await self._until(self._wanted)  # somebody may have been throttled while we waited
            except BaseException:
                await self._give_back(places)
                raise
            self._count(requests)
        try:
            yield
        finally:
            await asyncio.shield(self._give_back(places))

    async def _give_back(self, places: int) -> None:
        async with self._left:
            self._free += places
            self._left.notify_all()

    def _wanted(self, now: float) -> float:
        """Seconds until the window has room for another request."""
        while self._counts and self._counts[0][0] <= now - WINDOW:
            self._counts.popleft()
        full = sum(count for _, count in self._counts) >= BUDGET
        return self._counts[0][0] + WINDOW - now if full else 0.0

    def _count(self, requests: int) -> None:
        # A grain is dated by its end, so that a request counts for the whole window at least.
        end = (self.clock.monotonic() // _GRAIN + 1) * _GRAIN
        if self._counts and self._counts[-1][0] == end:
            self._counts[-1] = end, self._counts[-1][1] + requests
        else:
            self._counts.append((end, requests))


_gates: WeakValueDictionary[tuple[str, str, str], Gate] = WeakValueDictionary()


def gate_for(url: str, application: str, user: str, clock: Clock) -> Gate:
    """The gate of this application in this mailbox of the service at ``url``, one for the whole process as long as
    anybody holds it."""
    key = urlsplit(url).netloc.lower(), application.lower(), user.lower()
    found = _gates.get(key)
    if found is None:
        found = _gates[key] = Gate(clock)
    return found
