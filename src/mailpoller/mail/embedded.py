"""Files in a text: uuencode (POSIX) and yEnc (yenc.org, draft 1.3), as they came before MIME and still do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from mailpoller.mail.transfer import decoded
from mailpoller.mail.words import readable

KEPT = 1000
"""Files of one text that are taken out of it one by one; what stands behind them is one attachment more."""
FILE_CUT = "file-cut"
"""Defect: a file in a text has no end; it is what looks like one."""
FILES_CUT = "files-cut"
"""Defect: more files stand in a text than are told; from the first of those on all of it is an attachment."""

_UUENCODED = re.compile(
    rb"^begin [0-7]{3,4} ([^\r\n]{1,255}+)\r?\n"
    rb"((?:(?!end[ \t]*+\r?(?:\n|\Z))[\x20-\x60][^\r\n]{0,120}+\r?\n|\r?\n)++)end[ \t]*+(?:\r?\n|\Z)",
    re.MULTILINE,
)
_UUENCODED_CUT = re.compile(
    rb"^begin [0-7]{3,4} ([^\r\n]{1,255}+)\r?\n(?:M[\x20-\x60]{60,62}+\r?(?:\n|\Z))++"
    rb"(?:[\x20-\x60]{1,62}+\r?(?:\n|\Z)(?=\s*+\Z))?+",
    re.MULTILINE,
)
"""Without its end: nobody writes whole lines of 45 octets by hand."""
_YENC = re.compile(
    rb"^=y(?:begin [^\r\n]{0,500}?name=([^\r\n]{1,255}+)(?:\r?\n)|end [^\r\n]{0,500}+(?:\r?\n|\Z))", re.MULTILINE
)
_YENC_LINE = re.compile(rb" line=(\d{1,4})\b")
_LAST_LINE = re.compile(rb"[^\r\n]{0,1000}+\s*+\Z")
_LEAST_LINE, _LONGEST_LINE = 60, 1000


class Embedded(NamedTuple):
    """A file in a text, from ``start`` to ``end``; ``encoding`` is how it is encoded there. ``defect``: see above."""

    name: str
    start: int
    end: int
    encoding: str
    defect: str = ""


def embedded(octets: bytes) -> list[Embedded]:
    """The files in a text, in order. What only looks like one is none. Time is linear."""
    found: list[Embedded] = []
    if b"begin " in octets:
        for one in _UUENCODED.finditer(octets):  # no line within one can begin another, so each is looked at once
            faults: list[str] = []
            size = sum(len(piece) for piece in decoded(octets, one.start(), one.end(), "x-uuencode", faults))
            if size and not faults and _is_full(one[2]):
                found.append(Embedded(_name(one[1]), one.start(), one.end(), "x-uuencode"))
            if len(found) > KEPT:
                break
        for number, one in enumerate(_UUENCODED_CUT.finditer(octets)):
            found.append(Embedded(_name(one[1]), one.start(), one.end(), "x-uuencode", FILE_CUT))
            if number > 2 * KEPT:
                break
    if b"=ybegin " in octets:
        found += _yenc(octets)
    # Where one has its end it counts before what is cut.
    found.sort(key=lambda file: (file.start, -file.end))
    kept: list[Embedded] = []
    for file in found:
        if not kept or file.start >= kept[-1].end:
            kept.append(file)
    if len(kept) > KEPT:
        kept[KEPT:] = [Embedded("", kept[KEPT].start, len(octets), "", FILES_CUT)]
    return kept


def _yenc(octets: bytes) -> Iterator[Embedded]:
    begun: re.Match[bytes] | None = None
    count = 0
    for one in _YENC.finditer(octets):
        ends = one[1] is None
        if begun is not None and ends:
            yield Embedded(_name(begun[1]), begun.start(), one.end(), "x-yenc")
        elif begun is not None and (stop := _cut(octets, begun)):
            yield Embedded(_name(begun[1]), begun.start(), stop, "x-yenc", FILE_CUT)
        count += begun is not None
        begun = None if ends else one
        if count > 100 * KEPT:
            return
    if begun is not None and (stop := _cut(octets, begun)):
        yield Embedded(_name(begun[1]), begun.start(), stop, "x-yenc", FILE_CUT)


def _cut(octets: bytes, begun: re.Match[bytes]) -> int:
    """Where a file in yEnc without an end stops: behind the lines of the length that it says; 0 if there are none."""
    said = _YENC_LINE.search(begun[0])
    length = int(said[1]) if said is not None else 0
    if not _LEAST_LINE <= length <= _LONGEST_LINE:
        return 0
    at = begun.end()
    if octets.startswith(b"=ypart ", at):
        at = octets.find(b"\n", at) + 1 or len(octets)
    first = at
    while (end := octets.find(b"\n", at)) >= 0 and length <= end - octets.startswith(b"\r", end - 1) - at <= length + 1:
        at = end + 1
    if at == first:
        return 0
    return len(octets) if _LAST_LINE.match(octets, at) is not None else at


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
