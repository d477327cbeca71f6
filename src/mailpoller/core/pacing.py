"""How often something may be done: so many times a second, by all together who share it."""

from __future__ import annotations


class Pacer:
    """A rate that several share. Whoever comes too early is told how long to wait, in the order of coming.

    ``rate``: times a second; 0: any number. ``burst``: so many at once after a pause; one at least. Times are seconds
    of a monotonic clock, the same for all who share it.
    """

    __slots__ = ("_burst", "_free_at", "rate", "taken", "waited")

    def __init__(self, rate: float = 0.0, burst: int = 1) -> None:
        self.taken = 0
        """How often it was used."""
        self.waited = 0.0
        """Seconds that those who came too early were told to wait, all together."""
        self._free_at = float("-inf")
        self.limit(rate, burst)

    def limit(self, rate: float, burst: int = 1) -> None:
        """Another rate from now on. Who was told to wait waits as long as was said."""
        self.rate, self._burst = rate, max(1, burst)

    def take(self, now: float) -> float:
        """Use it once: in so many seconds from now."""
        self.taken += 1
        if not self.rate:
            return 0.0
        at = max(self._free_at, now - (self._burst - 1) / self.rate)
        self._free_at = at + 1 / self.rate
        wait = max(0.0, at - now)
        self.waited += wait
        return wait

    def left(self, now: float) -> float:
        """Seconds until it may be used without waiting."""
        return max(0.0, self._free_at - now) if self.rate else 0.0
