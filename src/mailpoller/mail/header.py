"""The header block: where it ends, and its fields, unfolded but not yet decoded."""

from __future__ import annotations

import re
from typing import NamedTuple

from mailpoller.core.spool import Block
from mailpoller.mail.charset import codec_for, decode
from mailpoller.mail.words import octets_escaped

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
"""Defect: raw octets above 127 that are not UTF-8 (RFC 6532); read in the charset that the message declares for its
text, else as windows-1252."""
BLANK_FIRST = "header-after-blank-line"
"""Defect: empty lines, or spaces, stand before the header; they were passed over."""
BYTE_ORDER_MARK = "byte-order-mark"
"""Defect: a byte order mark stands before the header; it was passed over."""
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
_CRLF = re.compile(rb"\r\n").findall
_FOLDED = re.compile(r"\n ").split
"""Quicker by half than ``count`` and ``replace``, unless there is nothing but these: not for the headers of parts, of
which somebody may send a thousand."""
_FIELD_LINE = re.compile(rb"[!-9;-~]++[ \t]*+:")
_BOM = b"\xef\xbb\xbf"
_BLANK = re.compile(rb"(?:[ \t]*+\r?\n){0,100}+[ \t]*+")
_KNOWN_FIELD = re.compile(
    rb"(?:from|sender|reply-to|to|cc|subject|date|message-id|received|return-path|delivered-to|mime-version|content-type"
    rb"|content-transfer-encoding|dkim-signature|in-reply-to|references|x-[!-9;-~]++)[ \t]*+:",
    re.IGNORECASE,
)
_NEEDED_FIELD = re.compile(rb"^(from|subject|date|message-id|content-type|mime-version)[ \t]{0,20}:", re.I | re.M)
_STRANGE_LINES = 8
_LOOKED_PAST = (b"\xef", b"\r", b"\n", b" ", b"\t")
_CHARSET = re.compile(rb"charset\s{0,20}+\*?=\s{0,20}+[\"']?([\w.:-]{1,60})", re.IGNORECASE)
_MBOX = re.compile(rb">?From (?! *:)[^\n]*+(?:\n|\Z)")


class Header(NamedTuple):
    """A header block: its fields in order, each a name as written and a value, unfolded and stripped, with tabs as
    spaces; the offset at which the body begins; the defects (constant words); and whether all of it is printable
    ASCII."""

    fields: list[tuple[str, str]]
    body: int
    defects: list[str]
    plain: bool = False


def read_header(
    octets: Block, start: int, end: int, considered: int = CONSIDERED, kept: int = FIELDS_KEPT, *, top: bool = False
) -> Header:
    """Read the header block that begins at ``start``, of a message or part that ends at ``end``. Never raises.

    Lines end with CRLF or LF. Only the first ``considered`` octets are looked at, and ``kept`` fields kept. ``top``:
    it is a message's own, which every message has, so that what stands before it is looked past.
    """
    defects: list[str] = []
    head = octets[start : min(end, start + min(_FIRST_LOOK, considered))]
    if head.startswith((b"From ", b">From ")):
        mbox = _MBOX.match(head)
        if mbox is not None:
            defects.append(MBOX_LINE)
            start += mbox.end()
            head = head[mbox.end() :]
    if top and head[:1] in _LOOKED_PAST and (skipped := _before_the_header(head, defects)):
        start += skipped
        head = octets[start : min(end, start + min(_FIRST_LOOK, considered))]
    if head.startswith((b"\r\n", b"\n")):
        return Header([], start + (2 if head[0] == 13 else 1), defects)
    header = _read(octets, start, end, considered, kept, head, defects)
    return _mended(header, octets, end) if NOT_UTF8 in defects else header


def _read(octets: Block, start: int, end: int, considered: int, kept: int, head: bytes, defects: list[str]) -> Header:
    """The header block that begins at ``start``; ``head`` is the first look at it."""
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


def _before_the_header(head: bytes, defects: list[str]) -> int:
    """Octets of a byte order mark, empty lines and spaces that stand before a field; what else follows is a body."""
    skipped = 0
    if head.startswith(_BOM):
        skipped = len(_BOM)
        defects.append(BYTE_ORDER_MARK)
    blank = _BLANK.match(head, skipped)
    if blank is not None and blank.end() > skipped and _KNOWN_FIELD.match(head, blank.end()):
        defects.append(BLANK_FIRST)
        return blank.end()
    return skipped


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
    # One walk through the octets answers three questions: if what falls out are the CRs of the line ends (the caller
    # cut the last one in two) and nothing else, then no CR stands alone and there is no control character.
    stripped = block.translate(_TABS, _CONTROLS)
    usual = len(block) <= _FIRST_LOOK and kept == FIELDS_KEPT
    ends = len(_CRLF(block)) if usual else block.count(b"\r\n")
    plain = len(block) - len(stripped) == ends + block.endswith(b"\r") and block.isascii()
    text = stripped.decode("ascii") if plain else _decoded(block, defects)
    text = " ".join(_FOLDED(text)) if usual else text.replace("\n ", " ")
    lines = text.count("\n") + 1
    fields = _FIELD.findall(text) if lines <= kept else []
    if len(fields) != lines:
        return _odd_fields(text, block, start, body, kept, defects)
    if " \n" in text or text.endswith(" "):
        fields = [(name, value.rstrip(" ")) for name, value in fields]
    return Header(fields, body, defects, plain)


def _decoded(block: bytes, defects: list[str]) -> str:
    """The block as text with line feeds and without tabs; octet by octet, if it is not UTF-8: see :func:`_mended`."""
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        text = block.decode("latin-1")
        if NOT_UTF8 not in defects:
            defects.append(NOT_UTF8)
    text = text.replace("\r\n", "\n")
    if "\r" in text:
        text = text.rstrip("\r")  # of the line end that the caller cut in two
        if "\r" in text:
            defects.append(BARE_CR)
            text = text.replace("\r", " ")
    return text.replace("\t", " ")


def _odd_fields(text: str, block: bytes, start: int, body: int, kept: int, defects: list[str]) -> Header:
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
                    if NOT_UTF8 in defects:
                        defects.remove(NOT_UTF8)  # that was said of more than the header
                    return _fields(block[:offset].rstrip(b"\r\n"), start, start + offset, kept, defects)
                defects.append(LINE_MALFORMED)
            continue
        fields.append((found[1], found[2].rstrip(" ")))
    return Header(fields, body, defects)


def _mended(header: Header, octets: Block, end: int) -> Header:
    """The fields of a block that was read octet by octet, because it is not UTF-8, in a charset that fits."""
    declared = next((value for name, value in header.fields if name.lower() == "content-type"), "")
    found = _CHARSET.search(declared.encode("utf-8", "replace")) or _CHARSET.search(
        octets[header.body : min(end, header.body + _FIRST_LOOK)]  # of the first part
    )
    charset = found[1].decode("ascii", "replace") if found is not None else ""
    if codec_for(charset) is None:
        charset = ""
    fields = [field if field[1].isascii() else (field[0], _mended_value(field[1], charset)) for field in header.fields]
    return header._replace(fields=fields)


def _mended_value(value: str, charset: str) -> str:
    held = octets_escaped(value.encode("latin-1"))
    try:
        return held.decode("utf-8")
    except UnicodeDecodeError:
        text, defect = decode(held, charset)
        return decode(held)[0] if defect else text


def _unmarked_body(block: bytes) -> int:
    """Where the body begins if no empty line says so, or -1 if all of ``block`` is header.

    A line that is no field, with what is folded to it, is passed over if a field follows it, and so are several if one
    does that the message needs; if none does, or if it may be a boundary, then the first of them is the first line of
    the body.
    """
    offset = 0
    strange = -1
    lines = 0
    needed: list[int] | None = None
    while offset < len(block):
        following = block.find(b"\n", offset) + 1 or len(block)
        if block[offset] in b" \t" and offset:
            pass  # it is of the line above
        elif _FIELD_LINE.match(block, offset):
            strange = -1
        elif block.startswith(b"--", offset):
            return offset
        elif strange >= 0:
            lines += 1
            if needed is None:
                needed = _needed_fields(block)
            if lines > _STRANGE_LINES or not any(offset < at <= offset + _FIRST_LOOK for at in needed):
                return strange
        else:
            strange = offset
            lines = 1
        offset = following
    return strange


def _needed_fields(block: bytes) -> list[int]:
    """Where the fields that every message has once stand first."""
    first: dict[bytes, int] = {}
    for found in _NEEDED_FIELD.finditer(block):
        first.setdefault(found[1].lower(), found.start())
    return list(first.values())
