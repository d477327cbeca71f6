"""What a server lists, by UIDL, LIST and STAT, each held against the others: none of them is believed alone."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

from mailpoller.sources.pop3.columns import Names, Sizes, ascends
from mailpoller.sources.pop3.protocol import Reply
from mailpoller.sources.pop3.reader import ProtocolViolation

MAX_LISTING = 64 << 20
"""Octets of the answer to LIST or UIDL: 1,000,000 messages with names of 50 octets fit."""
MAX_MESSAGES = 1_000_000
"""Messages in a maildrop. A listing of more is not believed."""
MAX_DISORDERED = 100_000
"""The same where the numbers do not ascend, as they do with every server that is known."""
LONG_NAME = 12
"""Characters of a name that is hardly given to two messages one after the other."""

_NUMBER = re.compile(rb"^[ \t]*(\d{1,9})(?![^ \t\r\n])", re.MULTILINE)
"""The first field of a line, whatever comes behind it."""
_UIDL = re.compile(rb"^[ \t]*(\d{1,9})[ \t]+([!-\xff]{1,500})(?![!-\xff])", re.MULTILINE)
"""The first two fields of a line; servers add more (RFC 1939 knows of none)."""
_LIST = re.compile(rb"^[ \t]*(\d{1,9})[ \t]+(\d{1,18})(?!\d)", re.MULTILINE)
_COUNTED = re.compile(r"\W*\d{1,7}\W*")
"""Names that a server may have counted, perhaps anew in each session."""
_STAT = re.compile(r"(\d{1,9})[ \t]+(\d{1,18})(?!\d)")


def counted(reply: Reply) -> int | None:
    """How many messages an answer to STAT tells of; None if it is none."""
    found = _STAT.match(reply.text) if reply.ok else None
    return None if found is None else int(found[1])


def totalled(reply: Reply) -> int | None:
    """How many octets they have."""
    found = _STAT.match(reply.text) if reply.ok else None
    return None if found is None else int(found[2])


class _Lines:
    """Takes the lines of a listing as they come: nothing of them is held but what they say."""

    def __init__(self) -> None:
        self.numbers = array("I")
        """The first field of each line that begins with a number."""
        self._rest = b""
        self._octets = 0

    def write(self, chunk: bytes) -> None:
        """Raises :class:`ProtocolViolation` for more than there can be."""
        self._octets += len(chunk)
        if self._octets > MAX_LISTING:
            raise ProtocolViolation(f"an answer is larger than {MAX_LISTING} octets")
        end = chunk.rfind(b"\n") + 1
        if end:
            self._read(self._rest + chunk[:end] if self._rest else chunk[:end])
            self._rest = chunk[end:]
        else:
            self._rest += chunk
        if len(self.numbers) > MAX_MESSAGES:
            raise ProtocolViolation(f"a listing of more than {MAX_MESSAGES} messages")
        if len(self._rest) > _LONGEST:
            raise ProtocolViolation(f"a line of a listing is longer than {_LONGEST} octets")

    def finish(self) -> None:
        if self._rest:
            self._read(self._rest)
            self._rest = b""

    def abort(self) -> None:
        self._rest = b""

    def _read(self, lines: bytes) -> None:
        raise NotImplementedError

    def _number(self, lines: bytes, numbers: Sequence[int]) -> None:
        """``numbers``: of those lines that could be read whole; mostly these are all."""
        if lines.count(b"\n") != len(numbers):
            numbers = [int(number) for number in _NUMBER.findall(lines)]
        self.numbers.extend(numbers)


class NameLines(_Lines):
    """The answer to UIDL. ``like``: the names of the listing before, with which memory is shared."""

    def __init__(self, like: Names | None = None) -> None:
        super().__init__()
        self.names = Names(like=like)
        self.named = array("I")
        """Whose each of the names is."""
        self.digest = sha256()
        """Of all its octets."""
        self.tell = True
        """Each name is long, and none may be counted: it hardly stands for two messages one after the other."""
        self.counted = False
        """A name may be one that the server counts."""

    def finish(self) -> None:
        super().finish()
        self.names.close()

    def write(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        super().write(chunk)

    def _read(self, lines: bytes) -> None:
        found = _UIDL.findall(lines)
        numbers = [int(number) for number, _ in found]
        self.named.extend(numbers)
        self._number(lines, numbers)
        for _, name in found:
            self.names.append(name)
            if len(name) < LONG_NAME:
                self.tell = False
            if not self.counted and _COUNTED.fullmatch(name.decode("latin-1")) is not None:
                self.counted = True


class SizeLines(_Lines):
    """The answer to LIST."""

    def __init__(self) -> None:
        super().__init__()
        self.sized = array("I")
        self.octets = array("q")

    def _read(self, lines: bytes) -> None:
        found = _LIST.findall(lines)
        numbers = [int(number) for number, _ in found]
        self.sized.extend(numbers)
        self.octets.extend([int(size) for _, size in found])
        self._number(lines, numbers)

    def sizes(self) -> Sizes:
        """number -> octets."""
        if ascends(self.sized):
            return Sizes(self.sized, self.octets)
        found = dict(sorted(zip(self.sized, self.octets, strict=True)))
        return Sizes(list(found), list(found.values()))


_LONGEST = 8192
"""Octets of a line."""


@dataclass(slots=True)
class Listing:
    """``names`` and, in the same order, ``named``: the numbers that bear them, ascending; ``sizes``: number -> octets,
    as far as they can be read. ``nameless``: numbers that UIDL shows without a name. ``lacking``: numbers that UIDL
    does not show at all, though LIST does. ``contradiction``: what does not fit, in words."""

    names: Names = field(default_factory=Names)
    named: Sequence[int] = ()
    sizes: Sizes = field(default_factory=Sizes)
    nameless: Sequence[int] = ()
    lacking: Sequence[int] = ()
    contradiction: str = ""
    outvoted: bool = False
    """Two of the three agree, and the numbers they tell are whole."""

    @classmethod
    def read(cls, uidl: NameLines | None, sizes: SizeLines, stat: Reply) -> Self:
        """From the answers to UIDL (None: refused), LIST and STAT. Raises :class:`ProtocolViolation` for a large one
        in no order."""
        by_list, count = _ascending(sizes.numbers), counted(stat)
        listing = cls(sizes=sizes.sizes())
        if uidl is None:
            listing.contradiction = _against(by_list, by_list, count)
            return listing
        by_uidl = _ascending(uidl.numbers)
        listing.names, listing.named = uidl.names, uidl.named
        if not ascends(uidl.named):
            told = list(zip(uidl.named, uidl.names, strict=True))
            # One number with two names: neither is believed.
            twice = Counter(number for number, _ in set(told))
            believed = {number: name for number, name in sorted(told) if twice[number] == 1}
            listing.names, listing.named = Names(believed.values()), array("I", believed)
            by_uidl = array("I", [number for number in by_uidl if twice[number] < 2])
        listing.nameless = _lacking(by_uidl, listing.named)
        listing.lacking = _lacking(by_list, by_uidl)
        listing.contradiction = _against(by_uidl, by_list, count)
        if listing.contradiction:
            two = (by_uidl, by_list, None), (by_uidl, by_uidl, count or -1), (by_list, by_list, count or -1)
            listing.outvoted = not all(_against(*pair) for pair in two)
        return listing

    def name(self, number: int) -> str | None:
        """The name that UIDL tells of a number."""
        place = bisect_left(self.named, number)
        if place == len(self.named) or self.named[place] != number:
            return None
        return self.names[place].decode("latin-1")


def _ascending(numbers: array[int]) -> array[int]:
    """The numbers in order, each once."""
    if ascends(numbers):
        return numbers
    if len(numbers) > MAX_DISORDERED:
        raise ProtocolViolation(f"a listing of {len(numbers)} messages in no order")
    return array("I", sorted(set(numbers)))


def _lacking(numbers: Sequence[int], shown: Sequence[int]) -> Sequence[int]:
    """Those of the numbers that are not shown, both ascending."""
    return () if numbers == shown else array("I", _apart(numbers, shown))


def _apart(numbers: Sequence[int], shown: Sequence[int]) -> Iterator[int]:
    place, end = 0, len(shown)
    for number in numbers:
        while place < end and shown[place] < number:
            place += 1
        if place == end or shown[place] != number:
            yield number


def _against(by_uidl: array[int], by_list: array[int], count: int | None) -> str:
    if by_uidl != by_list:
        same = len(by_uidl) - len(_lacking(by_uidl, by_list))
        return f"UIDL shows {len(by_uidl)} messages and LIST {len(by_list)}, {same} of them the same"
    if by_list and (len(by_list) != by_list[-1] or by_list[0] == 0):
        return f"the numbers go up to {by_list[-1]}, and there are {len(by_list)}"
    if count is not None and count != len(by_list):
        return f"STAT counts {count} messages, and {len(by_list)} are listed"
    return ""


def counted_name(uid: str) -> bool:
    """True if the server may give the name to another message, because it seems to count."""
    return _COUNTED.fullmatch(uid) is not None
