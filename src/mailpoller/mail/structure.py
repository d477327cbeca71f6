"""The MIME structure of a message, found by searching its octets for boundaries, not by reading its lines.

Only multiparts are descended into. A ``message/rfc822`` part is a leaf, an attachment like any other; nothing is ever
decompressed, and an encoding within an encoding is not followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from mailpoller.core.spool import Block
from mailpoller.mail.header import BARE_CR, read_header
from mailpoller.mail.parameters import disposition, file_name, media_type

DEEPEST = 50
"""Multiparts within multiparts that are opened."""
PARTS_KEPT = 1000
"""Parts, multiparts among them, that are looked into."""

BOUNDARY_MISSING = "boundary-missing"
"""Defect: a multipart that names no boundary, or whose boundary is nowhere in it; taken as plain text."""
BOUNDARY_UNCLOSED = "boundary-unclosed"
"""Defect: the last boundary of a multipart is missing; its last part runs to the end."""
TYPE_MALFORMED = "content-type-malformed"
"""Defect: a Content-Type that is none; taken as text/plain (RFC 2045 section 5.2)."""
DEPTH_CUT = "depth-cut"
"""Defect: multiparts nested deeper than we follow; the innermost one is kept whole, as an attachment."""
PARTS_CUT = "parts-cut"
"""Defect: more parts than we look into; the rest of each multipart is kept whole, as one attachment."""

CONTENT = ("content-type", "content-transfer-encoding", "content-disposition", "content-id")
"""The fields that describe a body (RFC 2045 section 3, RFC 2183), in lower case."""

_HEADER_CONSIDERED = 1 << 16
_FIELDS_KEPT = 200
_PIECE = 1 << 22
_LINE_END = re.compile(rb"(--)?+[ \t]{0,1000}+(?:\r?\n|\Z)")
_LONGEST_LINE_END = 1004
_DOUBTS = 256
_LEAST_BUDGET = 1 << 26


class Part(NamedTuple):
    """A leaf. ``start`` and ``end`` bound its still encoded body in the message's octets.

    ``content_type`` and ``encoding`` in lower case; ``within`` is the subtype of the multipart around it, "" at the
    top; ``opaque``: what we declined to look into, never the message's own text; ``flowed``: of ``format=flowed``
    (RFC 3676), and with ``delsp`` if it says so.
    """

    content_type: str
    charset: str
    start: int
    end: int
    encoding: str = ""
    disposition: str = ""
    name: str = ""
    content_id: str = ""
    within: str = ""
    opaque: bool = False
    flowed: Literal["", "flowed", "delsp"] = ""


def scan(octets: Block, start: int, end: int, fields: Mapping[str, str]) -> tuple[list[Part], list[str]]:
    """The leaves of a message whose body lies between ``start`` and ``end``, in order, and defects (constant words).

    ``fields``: the values of the message's Content fields, by name in lower case. Never raises; time is bounded by
    ten times the octets, memory by a few megabytes.
    """
    scanner = _Scanner(octets, end - start)
    scanner.entity(fields, start, end, "text/plain", "", 0)
    return scanner.parts, scanner.defects


class _Scanner:
    def __init__(self, octets: Block, size: int) -> None:
        self.octets = octets
        self.parts: list[Part] = []
        self.defects: list[str] = []
        self.seen = 0
        self.budget = 10 * size + _LEAST_BUDGET  # octets that are searched in all, whatever is nested in what

    def note(self, defect: str) -> None:
        if defect not in self.defects:
            self.defects.append(defect)

    def entity(self, fields: Mapping[str, str], start: int, end: int, default: str, within: str, depth: int) -> None:
        """A message or part: its Content fields, and where its body lies."""
        values: dict[str, str] = {}
        kind = default
        written = fields.get("content-type")
        if written is not None:
            token, values, defect = media_type(written)
            if defect:
                self.note(defect)
            kind = token or "text/plain"
            if not token:
                self.note(TYPE_MALFORMED)
        opaque = False
        if kind.startswith("multipart/"):
            if depth >= DEEPEST or self.budget < end - start:
                self.note(DEPTH_CUT)
                opaque = True
            elif self.multipart(values.get("boundary", "").rstrip(" "), start, end, kind[10:], depth):
                return
            else:
                self.note(BOUNDARY_MISSING)
                kind = "text/plain"
        how, name = "", ""
        if "content-disposition" in fields:
            how, asked, defect = disposition(fields["content-disposition"])
            if defect:
                self.note(defect)
            name = file_name(asked, values)
        elif "name" in values:
            name = file_name({}, values)
        encoding = fields.get("content-transfer-encoding", "")
        if encoding:
            encoding = encoding.partition(";")[0].strip().strip('"').lower()[:40]
        content_id = fields.get("content-id", "").strip()[:998]
        charset = values.get("charset", "").strip()
        flowed = _flowed(values) if "format" in values else ""
        self.parts.append(Part(kind, charset, start, end, encoding, how, name, content_id, within, opaque, flowed))

    def multipart(self, boundary: str, start: int, end: int, subtype: str, depth: int) -> bool:
        """Look at every part between the boundaries; False if there is no boundary at all."""
        if not boundary:
            return False
        self.budget -= end - start
        default = "message/rfc822" if subtype == "digest" else "text/plain"
        opened = -1  # where the part begins whose end we are looking for
        for line, after, closing in self.boundaries(b"\n--" + boundary.encode("utf-8", "replace"), start, end):
            stop = line - 1 if line > opened and self.octets[line - 1] == 13 else line
            if 0 <= opened < stop:  # between two boundaries without a single octet there is no part
                if self.seen >= PARTS_KEPT:
                    self.note(PARTS_CUT)
                    self.parts.append(Part("application/octet-stream", "", opened, end, within=subtype, opaque=True))
                    return True
                self.part(opened, stop, default, subtype, depth)
            opened = after
            if closing:
                return True
        if opened < 0:
            return False
        self.note(BOUNDARY_UNCLOSED)
        if opened < end:
            self.part(opened, end, default, subtype, depth)
        return True

    def part(self, start: int, end: int, default: str, within: str, depth: int) -> None:
        """One part, header and body."""
        self.seen += 1
        header = read_header(self.octets, start, end, _HEADER_CONSIDERED, _FIELDS_KEPT)
        body = header.body
        if body >= end and BARE_CR in header.defects:
            # No body at all: within a message whose lines end properly, this part's end with a carriage return alone.
            lines = bytes(self.octets[start : min(end, start + _HEADER_CONSIDERED)])
            if b"\r\r" in lines and b"\n" not in lines:
                lines = lines.replace(b"\r", b"\n")
                header = read_header(lines, 0, len(lines), _HEADER_CONSIDERED, _FIELDS_KEPT)
                body = start + header.body
                self.note(BARE_CR)
        for defect in header.defects:
            self.note(defect)
        fields: dict[str, str] = {}
        for name, value in header.fields:
            fields.setdefault(name.lower(), value)
        self.entity(fields, body, end, default, within, depth + 1)

    def boundaries(self, needle: bytes, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """(offset of the line feed before it, offset after its line, whether it closes) of each boundary line.

        A mapped file is searched in pieces: ``mmap.find`` takes quadratic time on ``-----``, ``bytes.find`` does not.
        """
        begin = max(start - 1, 0)
        octets = self.octets
        if isinstance(octets, bytes):
            yield from _search(octets, needle, begin, end, 0, end)
            return
        overlap = len(needle) + _LONGEST_LINE_END + 1
        after = begin
        for base in range(begin, end, _PIECE):
            piece = octets[base : min(end, base + _PIECE + overlap)]
            for found in _search(piece, needle, max(after - base, 0), len(piece), base, _PIECE):
                after = found[1] - 1
                yield found


def _flowed(values: Mapping[str, str]) -> Literal["", "flowed", "delsp"]:
    if values["format"].strip().lower() != "flowed":
        return ""
    return "delsp" if values.get("delsp", "").strip().lower() == "yes" else "flowed"


def _search(piece: bytes, needle: bytes, begin: int, end: int, base: int, stop: int) -> Iterator[tuple[int, int, bool]]:
    """The boundary lines of ``piece`` that begin in it between ``begin`` and ``stop``; offsets are moved by
    ``base``."""
    length = len(needle)
    doubts = 0
    at = piece.find(needle, begin, end)
    while 0 <= at < stop:
        ending = _LINE_END.match(piece, at + length, end)
        if ending is not None:
            yield base + at, base + ending.end(), ending[1] is not None
            at = piece.find(needle, ending.end() - 1, end)
            continue
        doubts += 1
        if doubts > _DOUBTS:  # hostile: thousands of lines that only begin like a boundary are faster passed over in C
            for found in re.compile(re.escape(needle) + _LINE_END.pattern).finditer(piece, at, end):
                if found.start() < stop:
                    yield base + found.start(), base + found.end(), found[1] is not None
            return
        at = piece.find(needle, at + length, end)
