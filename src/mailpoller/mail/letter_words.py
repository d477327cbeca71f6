"""Words in a header, folded, and in encoded words where they are not plain ASCII (RFC 5322 section 2.2.3, RFC 2047).

The standard library's encoder knows other charsets for some than those it is given, and begins a long value with an
empty line. Here every character stays whole within one encoded word, and each word is of the charset that was asked
for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pybase64

from mailpoller.mail.reply_charset import CODECS

_LINE = 76
_WORD = 75
"""Characters of an encoded word at most (RFC 2047 section 2)."""
_LONGEST_PLAIN = 900
_TOKEN = re.compile(r" *[^ ]+| +")
_SPECIALS = frozenset('()<>[]:;@\\,."')
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
"""What stands for itself in a phrase too (RFC 2047 section 5)."""
_CRLF = "\r\n"


def unstructured(name: str, value: str, charset: str) -> str:
    """A field's value, folded; in encoded words if it is not ASCII, cannot be folded, or looks like one."""
    tokens = _TOKEN.findall(value)
    if not value.isascii() or "=?" in value or any(len(one) > _LONGEST_PLAIN for one in tokens):
        return encoded(value, charset, len(name) + 2)
    lines, room = [""], _LINE - len(name) - 2
    for token in tokens:
        if lines[-1] and len(lines[-1]) + len(token) > room and token.strip():
            lines.append("")
            room = _LINE
        lines[-1] += token
    return _CRLF.join(lines)


def phrase(name: str, charset: str) -> str:
    """A display name: bare, quoted, or in encoded words."""
    if not name.isascii() or "=?" in name or len(name) > 60:
        return encoded(name, charset, len("Resent-From: "))
    if any(one in _SPECIALS for one in name):
        return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return name


def encoded(text: str, charset: str, taken: int) -> str:
    """``text`` in encoded words, one to a line; ``taken``: characters that stand before the first. Raises
    :class:`UnicodeEncodeError` if the charset does not hold it."""
    charset = "utf-8" if text.isascii() else charset
    codec = CODECS[charset]
    octets = text.encode(codec)
    readable = codec != "iso2022_jp" and sum(one not in _SAFE and one != 0x20 for one in octets) * 4 < len(octets)
    return f"{_CRLF} ".join(_words(text, charset, codec, readable, taken))


def _words(text: str, charset: str, codec: str, readable: bool, taken: int) -> Iterator[str]:
    around = len(f"=?{charset}?q??=")
    room, piece, written = min(_WORD, _LINE - taken) - around, "", ""
    for character in text:
        longer = _written((piece + character).encode(codec), readable)
        if piece and len(longer) > room:
            yield f"=?{charset}?{'q' if readable else 'b'}?{written}?="
            room, piece = _WORD - around, ""
            longer = _written(character.encode(codec), readable)
        piece, written = piece + character, longer
    if piece:
        yield f"=?{charset}?{'q' if readable else 'b'}?{written}?="


def _written(octets: bytes, readable: bool) -> str:
    if not readable:
        return pybase64.b64encode(octets).decode("ascii")
    return "".join("_" if one == 0x20 else chr(one) if one in _SAFE else f"={one:02X}" for one in octets)
