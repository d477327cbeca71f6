"""How fast octets come: a line that is slow and gets on is not one that is dead."""

from __future__ import annotations

import asyncio

REST = 0.001
"""Seconds between two turns of long work on the loop: threads get at nothing while it never waits."""
LEAST = 1000
"""Octets a second that count as progress: time in which so many come counts against no deadline."""


class Pace:
    """Counts octets as they are read. ``octets``: how many have come."""

    __slots__ = ("_at", "_seen", "octets")

    def __init__(self, now: float) -> None:
        self.octets = 0
        self._at = now
        self._seen = 0

    def begin(self, now: float) -> None:
        """What has come so far, and the time until now, is nobody's."""
        self._at, self._seen = now, self.octets

    def credit(self, now: float) -> float:
        """The seconds since this or :meth:`begin` was called last, if octets came at :data:`LEAST` a second; else 0."""
        elapsed, came = now - self._at, self.octets - self._seen
        self.begin(now)
        return elapsed if came and came >= LEAST * elapsed else 0.0


class PacedTimeout:
    """A deadline for an answer as a whole, which the time does not count against in which octets come fast enough."""

    __slots__ = ("_pace", "_timeout")

    def __init__(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout
        self._pace = Pace(asyncio.get_running_loop().time())

    def came(self, octets: int) -> None:
        """So many have come."""
        self._pace.octets += octets
        now, ends = asyncio.get_running_loop().time(), self._timeout.when()
        if ends is not None and not self._timeout.expired():
            self._timeout.reschedule(ends + self._pace.credit(now))
