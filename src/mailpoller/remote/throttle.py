"""A service that wants to be left alone: nobody asks before it wants to be asked again."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Clock

LONGEST_PAUSE = 30.0
"""Seconds that a request waits for its turn here; for longer the engine waits, and frees what it holds meanwhile."""
_FIRST_PAUSE = 1.0
"""Seconds of the first pause where the service did not say how long; doubled each time until it serves us again."""
_SHORTEST_SLEEP = 0.001


class Busy(TransientError):
    """Throttled, or down, for longer than is worth waiting here."""


class Throttle:
    """What everybody knows who asks ``service`` (its name, for errors) in one name: until when it wants to be left
    alone."""

    def __init__(self, service: str, clock: Clock) -> None:
        self._service = service
        self.clock = clock
        self._paused_until = 0.0
        self._refusals = 0

    def throttled(self, wish: timedelta | None) -> float:
        """The service refused a request: nobody asks for as long as it wants, or for a while that doubles. Seconds of
        it."""
        if wish is not None:
            wait = wish.total_seconds()
        else:
            wait = _FIRST_PAUSE * 2 ** min(self._refusals, 8) * random.uniform(0.8, 1.2)
        self._refusals += 1
        self._paused_until = max(self._paused_until, self.clock.monotonic() + wait)
        return wait

    def served(self) -> None:
        """The service answered a request: the next refusal without a wish is a first one."""
        self._refusals = 0

    async def _until(self, wanted: Callable[[float], float]) -> None:
        """Return when the pause is over and ``wanted(now)``, seconds from ``now`` on the monotonic clock, is nothing,
        too.

        Raises :class:`Busy` if that is too long to be waited for here.
        """
        while True:
            now = self.clock.monotonic()
            wait = max(self._paused_until - now, wanted(now))
            if wait <= 0:
                return
            if wait > LONGEST_PAUSE:
                left = timedelta(seconds=wait)
                raise Busy(f"{self._service} wants to be left alone for {wait:.0f} s", retry_after=left)
            await self.clock.sleep(max(wait, _SHORTEST_SLEEP))
