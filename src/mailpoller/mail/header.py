"""The header block: where it ends, and its fields, unfolded but not yet decoded."""

from __future__ import annotations

import re
from typing import NamedTuple

from mailpoller.core.spool import Block
from mailpoller.mail.charset import decode

CONSIDERED = 1 << 20
"""Octets of a message's header block that are looked at."""
FIELDS_KEPT = 2000
"""Fields of one header block that are kept."""

HEADER_CUT = "header-cut"
"""Defect: the header block is longer, or has more fields, than we look at."""
LINE_MALFORMED = "header-line-malformed"
"""Defect: a line among the fields is none; it was passed over."""
SEPARATOR_MISSING = "header-separator-missing"
"""Defect: no empty line ends the header block; the body begins with the first line that cannot be a field."""
BARE_CR = "header-bare-cr"
"""Defect: a carriage return stands alone in the header block; it counts as a space."""
NOT_UTF8 = "header-not-utf8"
"""Defect: raw octets above 127 that are not UTF-8 (RFC 6532); read as windows-1252."""
MBOX_LINE = "mbox-line"
"""Defect: a ``From `` line of an mbox stands before the header; it was passed over."""

_FIRST_LOOK = 1 << 14
_FIELD = re.compile(r"^([!-9;-~]{1,200}+) *+: *+(.*+)$", re.MULTILINE)
"""A field on its own line (RFC 5322 section 3.6.8): the name as written, and the value, which may end with spaces."""
_TABS = bytes.maketrans(b"\t", b" ")
_CONTROLS = bytes(octet for octet in (*range(32), 127) if octet not in b"\t\n")
_EMPTY_LINE = re.compile(rb"\n\r?\n")
"""Octets of a line end and of the empty line behind it. An expression finds it several times as fast as
``bytes.find``."""
_FIELD_LINE = re.compile(rb"[!-9;-~]++[ \t]*+:")
_MBOX = re.compile(rb">?From (?! *:)[^\n]*+(?:\n|\Z)")


class Header(NamedTuple):
    """A header block: its fields in order, each a name as written and a value, unfolded and stripped, with tabs as
    spaces; the offset at which the body begins; the defects (constant words); and whether all of it is printable
    ASCII."""

    fields: list[tuple[str, str]]
    body: int
    defects: list[str]
    plain: bool = False


def read_header(octets: Block, start: int, end: int, considered: int = CONSIDERED, kept: int = FIELDS_KEPT) -> Header:
    """Read the header block that begins at ``start``, of a message or part that ends at ``end``. Never raises.

    Lines end with CRLF or LF. Only the first ``considered`` octets are looked at, and ``kept`` fields kept.
    """
    defects: list[str] = []
    head = octets[start : min(end, start + min(_FIRST_LOOK, considered))]
    if head.startswith((b"From ", b">From ")):
        mbox = _MBOX.match(head)
        if mbox is not None:
            defects.append(MBOX_LINE)
            start += mbox.end()
            head = head[mbox.end() :]
    if head.startswith((b"\r\n", b"\n")):
        return Header([], start + (2 if head[0] == 13 else 1), defects)
    stop, skip = _empty_line(head)
    if stop < 0 and len(head) < end - start:
        head = octets[start : min(end, start + considered)]
        stop, skip = _empty_line(head)
    if stop >= 0:
        return _fields(head[:stop], start, start + stop + skip, kept, defects)
    if len(head) == end - start:
        return _fields(head.rstrip(b"\r\n"), start, end, kept, defects)
    defects.append(HEADER_CUT)
    cut = head.rfind(b"\n")
    body = _far_empty_line(octets, start + len(head) - 3, end)
    return _fields(head[:cut] if cut > 0 else head, start, body, kept, defects)


def _empty_line(head: bytes) -> tuple[int, int]:
    """(where the last line before the empty one ends, octets from there to the body), or (-1, 0)."""
    found = _EMPTY_LINE.search(head)
    return (found.start(), found.end() - found.start()) if found is not None else (-1, 0)


def _far_empty_line(octets: Block, start: int, end: int) -> int:
    """The body's offset when the header block is longer than we look at; ``end`` if it has no end."""
    step = 1 << 20
    for position in range(max(start, 0), end, step):
        piece = octets[position : min(end, position + step + 3)]
        stop, skip = _empty_line(piece)
        if stop >= 0:
            return position + stop + skip
    return end


def _fields(block: bytes, start: int, body: int, kept: int, defects: list[str]) -> Header:
    repair = False
    # One walk through the octets answers three questions: if what falls out are the CRs of the line ends (the caller
    # cut the last one in two) and nothing else, then no CR stands alone and there is no control character.
    stripped = block.translate(_TABS, _CONTROLS)
    plain = len(block) - len(stripped) == block.count(b"\r\n") + block.endswith(b"\r") and block.isascii()
    if plain:
        text = stripped.decode("ascii")
    else:
        text, repair = _decoded(block, defects)
    text = text.replace("\n ", " ")
    lines = text.count("\n") + 1
    fields = _FIELD.findall(text) if lines <= kept else []
    if len(fields) != lines:
        return _odd_fields(text, block, start, body, kept, defects, repair)
    if " \n" in text or text.endswith(" "):
        fields = [(name, value.rstrip(" ")) for name, value in fields]
    return Header([_repaired(field) for field in fields] if repair else fields, body, defects, plain)


def _decoded(block: bytes, defects: list[str]) -> tuple[str, bool]:
    """The block as text with line feeds and without tabs, and whether it was read as Latin-1 and has to be repaired."""
    repair = False
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        text, repair = block.decode("latin-1"), True
        defects.append(NOT_UTF8)
    text = text.replace("\r\n", "\n")
    if "\r" in text:
        text = text.rstrip("\r")  # of the line end that the caller cut in two
        if "\r" in text:
            defects.append(BARE_CR)
            text = text.replace("\r", " ")
    return text.replace("\t", " "), repair


def _odd_fields(text: str, block: bytes, start: int, body: int, kept: int, defects: list[str], repair: bool) -> Header:
    """Line by line, what the quick way does not take: a line that is no field, or too many of them."""
    lines = text.split("\n", kept)
    if len(lines) > kept:
        lines.pop()
        defects.append(HEADER_CUT)
    fields: list[tuple[str, str]] = []
    for line in lines:
        found = _FIELD.match(line)
        if found is None:
            if not line.strip():
                continue
            if LINE_MALFORMED not in defects:
                if (offset := _unmarked_body(block)) >= 0:
                    defects.append(SEPARATOR_MISSING)
                    return _fields(block[:offset].rstrip(b"\r\n"), start, start + offset, kept, defects)
                defects.append(LINE_MALFORMED)
            continue
        field = (found[1], found[2].rstrip(" "))
        fields.append(_repaired(field) if repair else field)
    return Header(fields, body, defects)


def _repaired(field: tuple[str, str]) -> tuple[str, str]:
    """A field of a block that was read as Latin-1 because it is not UTF-8."""
    name, value = field
    return field if value.isascii() else (name, decode(value.encode("latin-1"))[0])


def _unmarked_body(block: bytes) -> int:
    """Where the body begins if no empty line says so, or -1 if all of ``block`` is header.

    A line that is no field is passed over if a field follows it; if none does, or if it may be a boundary, then
    it is the first line of the body.
    """
    offset = 0
    strange = -1
    while offset < len(block):
        following = block.find(b"\n", offset) + 1 or len(block)
        if block[offset] in b" \t" or _FIELD_LINE.match(block, offset):
            strange = -1
        elif block.startswith(b"--", offset) or strange >= 0:
            return offset if strange < 0 else strange
        else:
            strange = offset
        offset = following
    return strange
