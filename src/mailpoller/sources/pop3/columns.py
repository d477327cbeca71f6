"""A maildrop's listing in columns: a million names take 80 MB, and in dictionaries 800.

Names stand joined in pieces, which a listing shares with the one before it as far as the two are the same.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Self, overload

from mailpoller.wire.pace import REST

_PIECE = 256
"""Names of a piece."""
_TURN = 1000
"""Names that are dealt with in one go: two milliseconds, for whoever else waits may need twenty turns."""


class Names(Sequence[bytes]):
    """Names in order. ``like``: the names of an earlier listing, to share pieces with."""

    __slots__ = ("_begun", "_like", "_open", "_pieces")

    def __init__(self, names: Iterable[bytes] = (), like: Names | None = None) -> None:
        self._pieces: list[bytes] = []
        self._like = [] if like is None else like._pieces
        self._begun: list[bytes] = []  # of the last piece
        self._open: tuple[int, list[bytes]] = (-1, [])  # the piece that was looked into last
        for name in names:
            self.append(name)

    def append(self, name: bytes) -> None:
        """Add a name, in which there is no line feed."""
        self._begun.append(name)
        if len(self._begun) == _PIECE:
            piece, place = b"\n".join(self._begun), len(self._pieces)
            self._pieces.append(self._like[place] if self._like[place : place + 1] == [piece] else piece)
            self._begun.clear()

    def close(self) -> Self:
        """That was all; let go of the earlier listing."""
        self._like = []
        return self

    def __len__(self) -> int:
        return len(self._pieces) * _PIECE + len(self._begun)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        place, offset = divmod(index, _PIECE)
        if place == len(self._pieces):
            return self._begun[offset]
        looked_into = self._open
        if looked_into[0] != place:  # the ledger looks from a thread of its own
            self._open = looked_into = place, self._pieces[place].split(b"\n")
        return looked_into[1][offset]

    def __iter__(self) -> Iterator[bytes]:
        return chain(chain.from_iterable(piece.split(b"\n") for piece in self._pieces), self._begun)

    def shared(self, other: Names) -> int:
        """With how many names both begin alike, as far as that can be seen at once."""
        same = 0
        for one, two in zip(self._pieces, other._pieces, strict=False):
            if one is not two:
                break
            same += _PIECE
        return same


class Numbers(Mapping[str, int]):
    """uid -> message number, in order. To be filled by :meth:`index` before anything is looked up."""

    __slots__ = ("_marks", "_names", "_numbers", "_table", "repeated")

    def __init__(self, names: Names | None = None, numbers: Sequence[int] = ()) -> None:
        self._names = Names() if names is None else names
        self._numbers = numbers
        self._table = array("I")  # places of names, plus one, by their hash
        self._marks = array("I")  # hashes of names, by their place
        self.repeated: set[str] = set()
        """Names that several messages bear."""

    async def index(self) -> Self:
        """Make the names such that they are found."""
        count = len(self._names)
        mask = (1 << (count * 3 // 2).bit_length()) - 1
        table, marks = array("I", bytes(4 * (mask + 1))), array("I", bytes(4 * count))
        self._table, self._marks = table, marks
        for place, name in enumerate(self._names):
            hashed = hash(name)
            marks[place] = mark = hashed & 0xFFFFFFFF
            slot = hashed >> 32 & mask
            while there := table[slot]:
                if marks[there - 1] == mark and self._names[there - 1] == name:
                    self.repeated.add(_read(name))
                    break
                slot = (slot + 1) & mask
            else:
                table[slot] = place + 1
            if place % _TURN == _TURN - 1:
                await asyncio.sleep(REST)
        return self

    def place(self, uid: str) -> int:
        """Where in the order the uid stands; -1 if it is not there."""
        try:
            name = _written(uid)
        except UnicodeEncodeError:
            return -1
        if not self._table:
            return -1
        hashed, mask = hash(name), len(self._table) - 1
        mark, slot = hashed & 0xFFFFFFFF, hashed >> 32 & mask
        while there := self._table[slot]:
            if self._marks[there - 1] == mark and self._names[there - 1] == name:
                return there - 1
            slot = (slot + 1) & mask
        return -1

    def __getitem__(self, uid: str) -> int:
        if (place := self.place(uid)) < 0:
            raise KeyError(uid)
        return self._numbers[place]

    def __contains__(self, uid: object) -> bool:
        return isinstance(uid, str) and self.place(uid) >= 0

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return map(_read, self._names)

    def uid(self, place: int) -> str:
        """The uid at this place of the order."""
        return _read(self._names[place])

    def number(self, place: int) -> int:
        """The message number at this place of the order."""
        return self._numbers[place]

    def shared(self, other: Numbers) -> int:
        """With how many uids and numbers both begin alike, as far as that can be seen at once."""
        return _alike(self._numbers, other._numbers, self._names.shared(other._names))


class Sizes(Mapping[int, int]):
    """number -> octets, for numbers that ascend; those from 1 on without a gap are found at once."""

    __slots__ = ("_dense", "_numbers", "_places", "_sizes")

    def __init__(self, numbers: Sequence[int] = (), sizes: Sequence[int] = ()) -> None:
        self._numbers = numbers
        self._sizes = sizes
        self._dense = not numbers or (numbers[0] == 1 and numbers[-1] == len(numbers))
        self._places = {} if self._dense else {number: place for place, number in enumerate(numbers)}

    def __getitem__(self, number: int) -> int:
        if not self._dense:
            return self._sizes[self._places[number]]
        if not 1 <= number <= len(self._sizes):
            raise KeyError(number)
        return self._sizes[number - 1]

    def shared(self, other: Sizes) -> int:
        """Up to which number both tell the same."""
        count = min(len(self), len(other))
        same = _alike(self._sizes, other._sizes, _alike(self._numbers, other._numbers, count))
        return self._numbers[same - 1] if same else 0

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)


class Some(Sequence[str]):
    """Uids at some places of the order, each made when it is asked for."""

    def __init__(self, numbers: Numbers, places: Sequence[int]) -> None:
        self._numbers = numbers
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._numbers.uid(place) for place in self._places[index]]
        return self._numbers.uid(self._places[index])


def _alike(one: Sequence[int], other: Sequence[int], count: int) -> int:
    """With how many of the first ``count`` numbers both begin, in steps of a piece."""
    same = 0
    while same < count and one[same : same + _PIECE] == other[same : same + _PIECE]:
        same += _PIECE
    return min(same, count)


def ascends(numbers: Sequence[int]) -> bool:
    """True if each number is greater than the one before."""
    return all(one < other for one, other in pairwise(numbers))


def _written(uid: str) -> bytes:
    return uid.encode("latin-1")


def _read(name: bytes) -> str:
    return name.decode("latin-1")
