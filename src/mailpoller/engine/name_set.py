"""The names of a listing, in as few octets as will do."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable

_BUCKETS = 256


class NameSet:
    """Names, of which can be asked whether one is among them: eight octets for each, where a set of a million strings
    has a hundred.

    What was added is among them for certain. What was not is taken for one of them once in 2**64 / ``len`` times, so
    it serves where that does no harm: to forget a message a day later, say.
    """

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(_BUCKETS)]
        self._sorted = False

    def add(self, names: Iterable[str]) -> None:
        """Some more."""
        self._sorted = False
        buckets = self._buckets
        for name in names:
            code = hash(name)
            buckets[code % _BUCKETS].append(code)

    def __contains__(self, name: object) -> bool:
        if not self._sorted:
            self._buckets = [array("q", sorted(bucket)) for bucket in self._buckets]
            self._sorted = True
        code = hash(name)
        bucket = self._buckets[code % _BUCKETS]
        place = bisect_left(bucket, code)
        return place < len(bucket) and bucket[place] == code

    def __len__(self) -> int:
        """How many were added; one that was added twice counts twice."""
        return sum(map(len, self._buckets))
