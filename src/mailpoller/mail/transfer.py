"""Content-Transfer-Encoding undone, a piece at a time, so that a large attachment never lies in memory whole."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

import pybase64

from mailpoller.core.spool import Block

BASE64_MALFORMED = "base64-malformed"
"""Defect: padding in the middle or a character too many; decoded as far as it makes sense. Or no base64 at all, though
it is declared; taken as it stands."""
ENCODING_UNKNOWN = "encoding-unknown"
"""Defect: no such Content-Transfer-Encoding; the octets are taken as they are."""
UUENCODE_MALFORMED = "uuencode-malformed"
"""Defect: a line could not be decoded; it was passed over. Or no ``begin`` at all; taken as it stands."""

_EMPTY = (b"`", b"")
_NOT_UU = re.compile(rb"[^\x20-\x60\r\n]")
_PIECE = 1 << 20
_ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
_FOREIGN = bytes(octet for octet in range(256) if octet not in _ALPHABET)
_MOST_PADDINGS = 1000
_SAMPLE = 1 << 14
_ESCAPED_BY_YENC = (0, 9, 10, 13, 32, 46, 61)  # the equal sign last, since it begins the others
_MOVED_BY_42 = bytes((octet - 42) & 255 for octet in range(256))
_BASE64_LINE = re.compile(rb"^[ \t]*+[A-Za-z0-9+/]{2,}+={0,2}+[ \t\r]*+$", re.MULTILINE)
_BASE64_LINES = re.compile(rb"(?:[ \t]*+(?:[A-Za-z0-9+/]{2,}+={0,2}+)?+[ \t]*+\r?\n)*+")
_LEAST_BEGUN = 16
_FOOTERS_WITHIN = 1 << 20
_STRANGE = bytes(octet for octet in range(256) if octet not in (*_ALPHABET, 9, 10, 13, 32))


def decoded(octets: Block, start: int, end: int, encoding: str, defects: list[str]) -> Iterator[bytes]:
    """The decoded octets of a body in pieces of about a megabyte at most. Never raises; what is wrong goes to
    ``defects``.

    ``encoding`` in lower case. Malformed input is decoded as far as it makes sense.
    """
    if encoding == "base64":
        return _base64(octets, start, end, defects)
    if encoding == "quoted-printable":
        return _quoted_printable(octets, start, end)
    if encoding in ("x-uuencode", "uuencode", "x-uue", "uue"):
        return _uuencode(octets, start, end, defects)
    if encoding == "x-yenc":
        return _yenc(octets, start, end)
    if encoding not in ("", "7bit", "8bit", "binary"):
        defects.append(ENCODING_UNKNOWN)
    return (octets[at : min(end, at + _PIECE)] for at in range(start, end, _PIECE))


def is_base64(octets: Block, start: int, end: int) -> bool:
    """False for a body that is plainly something else, such as the text itself, though it calls itself base64.

    The first octets tell: at least half of what they hold stands in lines of base64, or they begin with a few, or
    hardly anything in them is strange.
    """
    sample = octets[start : min(end, start + _SAMPLE)]
    strange = len(sample) - len(sample.translate(None, _STRANGE))
    spaces = sample.strip().count(b" ")
    if not strange and not spaces:
        return True
    if len(sample) < end - start:
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    whole = len(sample.translate(None, b" \t\r\n"))
    if (strange + spaces) * 20 < whole:  # a slip here and there
        return True
    if not strange:  # words alone
        return whole % 4 == 0
    if sum(len(line.strip()) for line in _BASE64_LINE.findall(sample)) * 2 >= whole:
        return True
    begun = _BASE64_LINES.match(sample)
    quanta = len(begun[0].translate(None, b" \t\r\n")) if begun is not None else 0
    return quanta >= _LEAST_BEGUN and quanta % 4 == 0  # a few lines of it, and a long footer


def base64_end(octets: Block, start: int, end: int) -> int:
    """Where a body that :func:`is_base64` goes on in plain text: lists and gateways append footers to what they do not
    decode. ``end`` if it does not."""
    held = octets[start : min(end, start + _FOOTERS_WITHIN)]
    if end - start > len(held):
        return end
    begun = _BASE64_LINES.match(held)
    stop = begun.end() if begun is not None else 0
    rest = held[stop:]
    if not stop or not rest.strip() or is_base64(rest, 0, len(rest)):
        return end
    return start + stop


def _base64(octets: Block, start: int, end: int, defects: list[str]) -> Iterator[bytes]:
    """Characters outside of the alphabet are ignored, as RFC 2045 section 6.8 demands.

    A piece of whole lines usually holds whole quanta of four characters; where it does not, what is left over is
    carried.
    """
    carry = b""
    at = start
    while at < end:
        piece = octets[at : min(end, at + _PIECE)]
        last = at + len(piece) == end
        if not last:
            piece = piece[: piece.rfind(b"\n") + 1] or piece
        at += len(piece)
        if not carry and not _goes_on_after_padding(piece, last):
            try:
                yield pybase64.b64decode(piece)
                continue
            except binascii.Error:
                pass
        piece = carry + piece.translate(None, _FOREIGN)
        whole = len(piece) if last else len(piece) & ~3
        piece, carry = piece[:whole], piece[whole:]
        try:
            yield pybase64.b64decode(piece, validate=True)
        except binascii.Error:
            if BASE64_MALFORMED not in defects:
                defects.append(BASE64_MALFORMED)
            yield _odd_base64(piece)


def _goes_on_after_padding(piece: bytes, last: bool) -> bool:
    """True if there may be more after an equal sign, which decoders by the book would drop."""
    padding = piece.find(b"=")
    return padding >= 0 and not (last and not piece[padding:].strip(b"=\r\n \t"))


def _odd_base64(piece: bytes) -> bytes:
    """Base64 with padding in the middle (several encodings in a row) or a cut end: each stretch decoded on its own."""
    *stretches, rest = piece.split(b"=", _MOST_PADDINGS)
    stretches.append(rest.replace(b"=", b""))
    out = []
    for stretch in stretches:
        if len(stretch) % 4 == 1:
            stretch = stretch[:-1]
        if stretch:
            out.append(binascii.a2b_base64(stretch + b"=" * (-len(stretch) % 4)))
    return b"".join(out)


def _quoted_printable(octets: Block, start: int, end: int) -> Iterator[bytes]:
    """Cut after a line end where there is one, and never inside of ``=3D``."""
    at = start
    while at < end:
        piece = octets[at : min(end, at + _PIECE)]
        if at + len(piece) < end:
            cut = piece.rfind(b"\n") + 1
            if not cut:
                escape = piece.rfind(b"=", len(piece) - 2)
                cut = escape if escape > 0 else len(piece)
            piece = piece[:cut]
        yield binascii.a2b_qp(piece)
        at += len(piece)


def _uuencode(octets: Block, start: int, end: int, defects: list[str]) -> Iterator[bytes]:
    """What stands between ``begin`` and ``end``, by the length that each line begins with: what follows it is a
    checksum, or nothing. Without a ``begin`` the octets as they stand."""
    out: list[bytes] = []
    append, decode, search = out.append, binascii.a2b_uu, _NOT_UU.search  # of a million lines
    inside = begun = malformed = False
    for piece in _in_lines(octets, start, end):
        doubtful = search(piece) is not None
        for line in piece.splitlines():
            if not inside:
                inside = line.startswith(b"begin ")
                begun = begun or inside
                continue
            if len(line) < 4 or line[-1] <= 32:
                bare = line.strip()
                if bare == b"end":
                    inside = False
                    continue
                if bare in _EMPTY:
                    continue
            # What fills the last group of four up is nobody's: some encoders leave there what was in their buffer.
            wanted = (((line[0] - 32) & 63) * 4 + 5) // 3
            if doubtful and search(line, 1, wanted) is not None:
                malformed = True  # as the exception would say, which costs more than all else
                continue
            try:
                append(decode(line[:wanted]))
            except binascii.Error:
                malformed = True
        if out:
            yield b"".join(out)
            out.clear()
        if malformed and UUENCODE_MALFORMED not in defects:
            defects.append(UUENCODE_MALFORMED)
    if not begun and end > start:
        defects.append(UUENCODE_MALFORMED)
        yield from (octets[at : min(end, at + _PIECE)] for at in range(start, end, _PIECE))


def _yenc(octets: Block, start: int, end: int) -> Iterator[bytes]:
    """What stands in the lines that are none of yEnc's own (yenc.org, draft 1.3): each octet moved by 42, and after an
    equal sign by 64 more."""
    for piece in _in_lines(octets, start, end):
        lines = [line for line in piece.split(b"\n") if not line.startswith((b"=ybegin ", b"=ypart ", b"=yend "))]
        joined = b"".join(line.rstrip(b"\r") for line in lines)
        for critical in _ESCAPED_BY_YENC:
            joined = joined.replace(b"=" + bytes([critical + 64]), bytes([critical]))
        yield joined.translate(_MOVED_BY_42)


def _in_lines(octets: Block, start: int, end: int) -> Iterator[bytes]:
    """Pieces of whole lines, if lines are not longer than a piece."""
    at = start
    while at < end:
        piece = octets[at : min(end, at + _PIECE)]
        if at + len(piece) < end:
            piece = piece[: piece.rfind(b"\n") + 1 or len(piece)]
        at += len(piece)
        yield piece
