"""How long to wait after a failure: growing, jittered, capped, and forgiven only after lasting success."""

from __future__ import annotations

import random
from datetime import timedelta

STABLE = timedelta(minutes=5)
"""How long all must go well before the growth is forgotten: a login that is followed by a drop is not success."""


BLIP = timedelta(seconds=3)
"""Most troubles are over in so long: a connection that was dropped, one refusal of a service."""


class Backoff:
    """The waits of one part that keeps failing.

    The n-th wait in a row is ``floor`` doubled n-1 times, at most ``cap``, and never below ``floor``; jitter only ever
    lengthens it, by up to a fifth, so that parts that failed together do not come back together. With ``blip`` there
    is one try before the first of them, after a third of ``blip`` to the whole of it, unless ``floor`` is less.
    """

    def __init__(self, floor: timedelta, cap: timedelta, *, blip: timedelta | None = None) -> None:
        self._blip = 0.0 if blip is None else min(blip, floor).total_seconds()
        self._floor = floor.total_seconds()
        self._cap = max(cap.total_seconds(), self._floor)
        self._failures = 0
        self._good_since: float | None = None

    def reset(self) -> None:
        """Forget every failure."""
        self._failures = 0
        self._good_since = None

    @property
    def failures(self) -> int:
        """Failures since the last lasting success."""
        return self._failures

    def failed(self, *, at_least: timedelta | None = None) -> float:
        """Note a failure; the seconds to wait now. ``at_least`` is the peer's own wish (Retry-After), honoured up to
        the cap."""
        self._good_since = None
        first = bool(self._blip) and not self._failures
        grown = max(0, self._failures - bool(self._blip))
        wait = min(self._cap, self._floor * 2.0 ** min(grown, 30))
        self._failures += 1
        if first and at_least is None:
            return self._blip * random.uniform(1 / 3, 1.0)
        if at_least is not None:
            wait = max(wait, min(at_least.total_seconds(), max(self._cap, 3600.0)))
        return wait * random.uniform(1.0, 1.2)

    def succeeded(self, now: float, stable: timedelta = STABLE) -> None:
        """Note that all is well at ``now`` (monotonic seconds); after ``stable`` of nothing but this the growth is
        forgotten."""
        if self._good_since is None:
            self._good_since = now
        if now - self._good_since >= stable.total_seconds():
            self._failures = 0
