"""Files in a text: uuencode (POSIX) and yEnc (yenc.org, draft 1.3), as they came before MIME and still do."""

from __future__ import annotations

import re
from typing import NamedTuple

from mailpoller.mail.transfer import decoded
from mailpoller.mail.words import readable

KEPT = 100
"""Files of one text that are taken out of it."""

_UUENCODED = re.compile(
    rb"^begin [0-7]{3,4} ([^\r\n]{1,255}+)\r?\n"
    rb"((?:(?!end[ \t]*+\r?(?:\n|\Z))[\x20-\x60][^\r\n]{0,120}+\r?\n|\r?\n)++)end[ \t]*+(?:\r?\n|\Z)",
    re.MULTILINE,
)
_YENC_BEGIN = re.compile(rb"^=ybegin [^\r\n]{0,500}?name=([^\r\n]{1,255}+)\r?\n", re.MULTILINE)
_YENC_END = re.compile(rb"^=yend [^\r\n]{0,500}+(?:\r?\n|\Z)", re.MULTILINE)


class Embedded(NamedTuple):
    """A file in a text, from ``start`` to ``end``; ``encoding`` is how it is encoded there."""

    name: str
    start: int
    end: int
    encoding: str


def embedded(octets: bytes) -> list[Embedded]:
    """The files in a text, in order. What only looks like one, or does not end, is none. Time is linear."""
    found: list[Embedded] = []
    if b"begin " in octets:
        for one in _UUENCODED.finditer(octets):  # no line within one can begin another, so each is looked at once
            faults: list[str] = []
            size = sum(len(piece) for piece in decoded(octets, one.start(), one.end(), "x-uuencode", faults))
            if size and not faults and _is_full(one[2]):
                found.append(Embedded(_name(one[1]), one.start(), one.end(), "x-uuencode"))
            if len(found) == KEPT:
                break
    if b"=ybegin " in octets:
        at = 0
        while len(found) < KEPT and (begin := _YENC_BEGIN.search(octets, at)) is not None:
            end = _YENC_END.search(octets, begin.end())
            if end is None:
                break
            found.append(Embedded(_name(begin[1]), begin.start(), end.end(), "x-yenc"))
            at = end.end()
        found.sort(key=lambda one: one.start)
    return [one for number, one in enumerate(found) if not number or one.start >= found[number - 1].end]


def _is_full(lines: bytes) -> bool:
    """The first line holds what its length says, as far as spaces at its end were not lost: no word does."""
    line = lines.partition(b"\n")[0].rstrip(b"\r")
    return bool(line) and (len(line) - 1) * 2 >= (((line[0] - 32) & 63) + 2) // 3 * 4


def without(octets: bytes, files: list[Embedded]) -> bytes:
    """The text around them."""
    pieces = []
    at = 0
    for one in files:
        pieces.append(octets[at : one.start])
        at = one.end
    return b"".join((*pieces, octets[at:]))


def _name(written: bytes) -> str:
    return readable(written.decode("utf-8", "replace")).strip()
