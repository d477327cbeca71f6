"""How long something took, counted in buckets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate


class Histogram:
    """Durations in seconds, counted by upper bounds, the last of which is infinite. Costs the same however many there
    were."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.total = 0.0
        """Sum of all durations."""

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._counts)

    def add(self, seconds: float) -> None:
        """Count one. Less than nothing, as between two clocks, is nothing."""
        seconds = max(0.0, seconds)
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds

    def cumulated(self) -> Iterator[tuple[float, int]]:
        """Each bound with how many took at most so long."""
        return zip((*self._bounds, float("inf")), accumulate(self._counts), strict=True)
