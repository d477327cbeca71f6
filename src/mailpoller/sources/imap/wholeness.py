"""Whether the lines of a listing are all that there are."""

from __future__ import annotations

from array import array
from itertools import pairwise

from mailpoller.sources.imap.bookmark import MAX_GAPS, Gap
from mailpoller.sources.imap.details import (
    Lines,
)


def is_whole(uids: array[int], lines: Lines, exists: int | None, below: int | None) -> bool:
    """The lines' sequence numbers are contiguous, from the first one that is new up to EXISTS."""
    if exists is not None and lines.last < exists:
        return False
    if not uids:
        return True
    numbers = [lines.numbers[uid] for uid in uids]
    if below is not None and numbers[0] > below + 1:
        return False
    return numbers[-1] - numbers[0] == len(numbers) - 1 and all(one + 1 == other for one, other in pairwise(numbers))


def are_all_hits(uids: array[int], numbers: dict[int, int], exists: int | None, below: int | None) -> bool:
    """The hits of a SEARCH are as many as EXISTS says, counted from the sequence number of the first one."""
    if not uids:
        return exists is None or exists == 0 or (below is not None and exists <= below)
    known = next(((place, numbers[uid]) for place, uid in enumerate(uids) if uid in numbers), None)
    if known is None:
        return True  # nothing to check it by: what is listed is refused one by one, or gone
    first = known[1] - known[0]
    if below is not None and first > below + 1:
        return False
    return first >= 1 and (exists is None or first + len(uids) - 1 >= exists)


def fewest(gaps: list[Gap]) -> tuple[Gap, ...]:
    """As many gaps as are kept; those that are too many are made one with their neighbours."""
    gaps.sort(key=lambda gap: gap.low)
    while len(gaps) > MAX_GAPS:
        one, other = gaps[0], gaps[1]
        gaps[:2] = [
            Gap(one.low, max(one.high, other.high), one.missing + other.missing, min(one.sessions, other.sessions),
            min(one.day, other.day))
        ]  # fmt: skip
    return tuple(gaps)
