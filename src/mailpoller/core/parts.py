"""A batch in parts, where the other side takes only so much at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


def parts(batch: Iterable[_T], size: Callable[[_T], int], *, octets: int, messages: int) -> Iterator[list[_T]]:
    """The same in order, in parts of at most so many messages and octets; one that is larger alone is a part."""
    part: list[_T] = []
    total = 0
    for one in batch:
        more = size(one)
        if part and (len(part) >= messages or total + more > octets):
            yield part
            part, total = [], 0
        part.append(one)
        total += more
    if part:
        yield part
