"""Octets to text: the charset ladder, which always arrives at valid Unicode.

Declared charset, under the names that mail really uses (:mod:`mailpoller.mail.charset_names`), then UTF-8, then
windows-1252.
"""

from __future__ import annotations

import codecs
import encodings
import re
import sys
from functools import lru_cache

from mailpoller.mail import stateful
from mailpoller.mail.charset_names import codec_named

UNKNOWN = "charset-unknown"
"""Defect: no codec is known by the declared name."""
WRONG = "charset-wrong"
"""Defect: the octets are not of the declared charset (or, with none declared, not UTF-8)."""

_LONGEST_NAME = 60
_REPAIRED_AT_MOST = 1 << 20
_PIECE = 1 << 16
_SURROGATES = re.compile("[\ud800-\udfff]")
_UNICODE_FORMS = frozenset(("utf_7", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le"))
_UTF_16 = frozenset(("utf_16", "utf_16_be", "utf_16_le"))
_STATELESS = re.compile(rb"[^\x1b\x0e~+]*").fullmatch
_ASCII = frozenset(("ascii", "us-ascii", "utf-8", "utf8", ""))


def _whole_table(codec: str) -> str:
    """The 256 characters of a single-octet codec, with U+FFFD for octets it leaves undefined; empty for all others."""
    codecs.lookup(codec)
    table = getattr(sys.modules.get(f"{encodings.__name__}.{codec}"), "decoding_table", "")
    return table.replace("\ufffe", "\ufffd") if isinstance(table, str) and len(table) == 256 else ""


_WINDOWS_1252 = _whole_table("cp1252")


@lru_cache(maxsize=512)
def _codec(name: str) -> tuple[str, str] | None:
    """Python's codec for a charset name (any case and punctuation) and its table if it has one; None if there is
    none."""
    codec = codec_named(name)
    if codec is None:
        return None
    try:
        return codec, _whole_table(codec)
    except LookupError:  # this Python was built without it
        return None


def codec_for(name: str) -> str | None:
    """The name of Python's codec for a charset as mail names it, or None. Never one that is not a charset; never
    raises."""
    found = _codec(name) if len(name) <= _LONGEST_NAME else None
    return found[0] if found else None


def scrub(text: str) -> str:
    """``text`` with U+FFFD in the place of every lone surrogate."""
    return _SURROGATES.sub("\ufffd", text)


def decode(octets: bytes, charset: str = "") -> tuple[str, str]:
    """The text of ``octets``, and a defect or "". Always valid Unicode; linear in time; never raises.

    ``charset`` is the declared name as it was written, or "".
    """
    if charset in _ASCII or charset.lower() in _ASCII:
        try:
            return str(octets, "utf-8"), ""
        except UnicodeDecodeError:
            return _guess(octets), WRONG
    found = _codec(charset) if len(charset) <= _LONGEST_NAME else None
    if found is None:
        try:
            return str(octets, "utf-8"), UNKNOWN
        except UnicodeDecodeError:
            return _guess(octets), UNKNOWN
    codec, table = found
    if table:
        text, _ = codecs.charmap_decode(octets, "strict", table)
        return text, WRONG if "\ufffd" in text else ""
    if codec in _UTF_16 and b"\n" in octets and b"\0" not in octets and octets.isascii():
        return str(octets, "ascii"), WRONG  # in which a line feed has a NUL beside it
    try:
        text = str(octets, codec)
    except UnicodeError:
        if codec in stateful.STATEFUL and not _STATELESS(octets):
            return _stretches(octets, codec)
        try:
            return str(octets, "utf-8"), WRONG
        except UnicodeDecodeError:
            if codec in ("ascii", "utf_8", "utf_8_sig"):
                return _guess(octets), WRONG
            return scrub(_repaired(octets, codec)), WRONG
    return (scrub(text) if codec in _UNICODE_FORMS else text), ""


def _stretches(octets: bytes, codec: str) -> tuple[str, str]:
    """What a stateful codec refused, stretch by stretch. NEC's and IBM's characters are no fault of the sender: all
    clients write them."""
    text = stateful.read(octets[:_REPAIRED_AT_MOST], codec)
    if len(octets) > _REPAIRED_AT_MOST:
        text += _guess(octets[_REPAIRED_AT_MOST:])
        return scrub(text), WRONG
    fault = "\ufffd" in text or codec in ("hz", "utf_7") or not octets.isascii()
    return scrub(text), WRONG if fault else ""


def _repaired(octets: bytes, codec: str) -> str:
    """Octets that are not all of their charset, with U+FFFD where they are not.

    Python replaces one bad sequence at a time here, at half a microsecond each. So of what is beyond the first
    megabyte only the pieces are repaired that need no repair, and the others are read as windows-1252: nothing is cut.
    """
    out = [str(octets[:_REPAIRED_AT_MOST], codec, "replace")]
    for at in range(_REPAIRED_AT_MOST, len(octets), _PIECE):
        piece = octets[at : at + _PIECE]
        try:
            out.append(str(piece, codec))
        except UnicodeError:
            out.append(_guess(piece))
    return "".join(out)


def _guess(octets: bytes) -> str:
    """Octets that are not UTF-8: damaged UTF-8 if some of it is well-formed beyond ASCII, else windows-1252."""
    text = str(octets, "utf-8", "replace")
    rest = text.replace("\ufffd", "")
    return codecs.charmap_decode(octets, "strict", _WINDOWS_1252)[0] if rest.isascii() else text
