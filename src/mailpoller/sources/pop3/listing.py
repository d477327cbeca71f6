"""What a server lists, by UIDL, LIST and STAT, each held against the others: none of them is believed alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Self

from mailpoller.sources.pop3.protocol import Reply

_NUMBER = re.compile(rb"^[ \t]*(\d{1,9})(?![^ \t\r\n])", re.MULTILINE)
"""The first field of a line, whatever comes behind it."""
_UIDL = re.compile(rb"^[ \t]*(\d{1,9})[ \t]+([!-\xff]{1,500})(?![!-\xff])", re.MULTILINE)
"""The first two fields of a line; servers add more (RFC 1939 knows of none)."""
_LIST = re.compile(rb"^[ \t]*(\d{1,9})[ \t]+(\d{1,18})(?!\d)", re.MULTILINE)
_STAT = re.compile(r"(\d{1,9})[ \t]+(\d{1,18})(?!\d)")


def counted(reply: Reply) -> int | None:
    """How many messages an answer to STAT tells of; None if it is none."""
    found = _STAT.match(reply.text) if reply.ok else None
    return None if found is None else int(found[1])


def totalled(reply: Reply) -> int | None:
    """How many octets they have."""
    found = _STAT.match(reply.text) if reply.ok else None
    return None if found is None else int(found[2])


@dataclass(slots=True)
class Listing:
    """``names``: number -> name, ``sizes``: number -> octets, as far as they can be read. ``nameless``: numbers that
    UIDL shows without a name. ``lacking``: numbers that UIDL does not show at all, though LIST does.
    ``contradiction``: what does not fit, in words."""

    names: dict[int, str] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    nameless: Collection[int] = ()
    lacking: Collection[int] = ()
    contradiction: str = ""
    outvoted: bool = False
    """Two of the three agree, and the numbers they tell are whole."""

    @classmethod
    def read(cls, names: bytes | None, sizes: bytes, stat: Reply) -> Self:
        """From the answers to UIDL (None: refused), LIST and STAT."""
        listing = cls()
        by_list = _numbers(sizes)
        listing.sizes = {int(number): int(size) for number, size in _LIST.findall(sizes)}
        count = counted(stat)
        if names is None:
            listing.contradiction = _against(by_list, by_list, count)
            return listing
        by_uidl = _numbers(names)
        found = _UIDL.findall(names)
        listing.names = {int(number): name.decode("latin-1") for number, name in found}
        if len(found) > len(listing.names):
            # One number with two names: neither is believed.
            twice = Counter(int(number) for number, _ in set(found))
            for number in [number for number, times in twice.items() if times > 1]:
                del listing.names[number]
                by_uidl.discard(number)
        listing.nameless = sorted(by_uidl - listing.names.keys())
        listing.lacking = sorted(by_list - by_uidl)
        listing.contradiction = _against(by_uidl, by_list, count)
        if listing.contradiction:
            two = (by_uidl, by_list, None), (by_uidl, by_uidl, count or -1), (by_list, by_list, count or -1)
            listing.outvoted = not all(_against(*pair) for pair in two)
        return listing


def _numbers(body: bytes) -> set[int]:
    return {int(number) for number in _NUMBER.findall(body)}


def _against(by_uidl: set[int], by_list: set[int], count: int | None) -> str:
    if by_uidl != by_list:
        return f"UIDL shows {len(by_uidl)} messages and LIST {len(by_list)}, {len(by_uidl & by_list)} of them the same"
    if by_list and (len(by_list) != max(by_list) or 0 in by_list):
        return f"the numbers go up to {max(by_list)}, and there are {len(by_list)}"
    if count is not None and count != len(by_list):
        return f"STAT counts {count} messages, and {len(by_list)} are listed"
    return ""
