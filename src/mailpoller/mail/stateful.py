"""Charsets whose octets mean different things at different places, read with a slip in them.

ISO-2022-JP (RFC 1468), -KR (RFC 1557) and -CN (RFC 1922), HZ (RFC 1843) and UTF-7 (RFC 2152) write everything in
seven bits. So a strict codec that gives up on one character, such as a ① of NEC's row 13, leaves text that looks like
valid ASCII and is nothing but escapes. Here each stretch is read alone: what is wrong in one costs that one.
"""

from __future__ import annotations

import binascii
import re
from functools import lru_cache

STATEFUL = frozenset(("iso2022_jp_ext", "iso2022_jp", "iso2022_jp_1", "iso2022_jp_2", "iso2022_jp_2004", "iso2022_jp_3",
                      "iso2022_kr", "hz", "utf_7"))  # fmt: skip
"""Codecs that are read here if they refuse."""

_PIECE = re.compile(
    rb"\x1b(?:\$?[(-/][0-?]?[@-~]|\$[@-B]|[NOno])|[\x0e\x0f\x8e\x8f]|[^\x1b\x0e\x0f\x8e\x8f\n]++|.", re.DOTALL
)
_JAPANESE = frozenset((b"\x1b$@", b"\x1b$B", b"\x1b$(B", b"\x1b$(@", b"\x1b$(O", b"\x1b$(Q"))
_TWO_OCTETS = {
    b"\x1b$(D": "jisx0212", b"\x1b$(P": "plane2", b"\x1b$A": "gb18030", b"\x1b$(A": "gb18030", b"\x1b$(C": "cp949",
    **dict.fromkeys(_JAPANESE, "jis"),
}  # fmt: skip
_SHIFTED = {b"\x1b$)C": "cp949", b"\x1b$)A": "gb18030", b"\x1b$)B": "jis", b"\x1b$)G": "cns", b"\x1b$)E": "cns"}
_UP = bytes(octet | 0x80 for octet in range(256))
_HZ = re.compile(rb"~\{([^~\n]*+)(~\}|(?=\n|~|\Z))|~(~|\n|\}|\r\n)")
_SHIFT = re.compile(rb"\+([A-Za-z0-9+/]*+)(-?+)")


def read(octets: bytes, codec: str) -> str:
    """The text, with U+FFFD for what is none; linear in time; never raises. ``codec`` is one of :data:`STATEFUL`."""
    if codec == "utf_7":
        return _utf_7(octets)
    if codec == "hz":
        return _hz(octets)
    return _iso_2022(octets)


def _iso_2022(octets: bytes) -> str:
    """Designations hold to the end of the line, as all three RFCs want it."""
    out: list[str] = []
    first, second, shifted = "", "", False
    for piece in _PIECE.findall(octets):
        lead = piece[0]
        if lead == 0x1B:
            if piece in _TWO_OCTETS:
                first, shifted = _TWO_OCTETS[piece], False
            elif piece in _SHIFTED:
                second = _SHIFTED[piece]
            elif piece in (b"\x1b(I", b"\x1b)I"):
                first, second = ("kana", second) if piece == b"\x1b(I" else (first, "kana")
            elif piece[1:2] == b"(":
                first = ""
            continue  # what is not known designates nothing that we could show
        if lead in (0x0E, 0x0F):
            shifted = lead == 0x0E
        elif piece == b"\n":
            first, shifted = "", False
            out.append("\n")
        else:
            stretch = _short_stretch if len(piece) <= _SHORT else _stretch
            out.append(stretch(piece, second or "kana" if shifted else first))
    return "".join(out)


def _stretch(octets: bytes, charset: str) -> str:
    """Octets of one charset, each of seven bits; of ASCII if it is ""."""
    if not charset:
        if octets.isascii():
            return octets.decode("ascii")
        for codec in ("utf-8", "cp932"):  # eight bits have no meaning here, and are sent
            try:
                return octets.decode(codec)
            except UnicodeDecodeError:
                pass
        return octets.decode("cp932", "replace")
    upper = octets.rstrip(b"\r").translate(_UP)
    tail = "\r" * (len(octets) - len(upper))
    if charset == "kana":
        return upper.decode("cp932", "replace") + tail
    if charset in ("cp949", "gb18030"):
        return upper.decode(charset, "replace") + tail
    if charset == "jisx0212":
        return _in_threes(upper).decode("euc_jp", "replace") + tail
    if charset == "plane2":
        return _in_threes(upper).decode("euc_jis_2004", "replace") + tail
    if charset == "cns":
        return "\ufffd" * (len(upper) // 2) + tail
    try:
        return upper.decode("euc_jis_2004") + tail
    except UnicodeDecodeError:  # the rows in which NEC put what IBM had
        return "".join(_japanese(upper[at : at + 2]) for at in range(0, len(upper), 2)) + tail


_SHORT = 8
_short_stretch = lru_cache(maxsize=1 << 13)(_stretch)
"""Of a text that changes its charset at every second character the same few come again and again."""


def _in_threes(upper: bytes) -> bytes:
    """Each pair behind the octet that selects the supplementary set of EUC."""
    return b"".join(b"\x8f" + upper[at : at + 2] for at in range(0, len(upper), 2))


@lru_cache(maxsize=1 << 13)
def _japanese(pair: bytes) -> str:
    """One pair of EUC's octets, which as Shift_JIS is the same in other numbers."""
    for codec, octets in (("euc_jis_2004", pair), ("cp932", _shift_jis(pair))):
        try:
            return octets.decode(codec)
        except UnicodeDecodeError:
            pass
    return "\ufffd"


def _shift_jis(pair: bytes) -> bytes:
    row, cell = pair[0] - 0xA1, pair[-1] - 0xA1
    if len(pair) < 2 or not (0 <= row < 94 and 0 <= cell < 94):
        return b"\x81"
    lead = row // 2 + (0x81 if row < 62 else 0xC1)
    return bytes((lead, cell + 0x9F if row % 2 else cell + (0x40 if cell < 63 else 0x41)))


def _hz(octets: bytes) -> str:
    out: list[str] = []
    end = 0
    for found in _HZ.finditer(octets):
        out.append(_stretch(octets[end : found.start()], ""))
        end = found.end()
        if found[1] is not None:
            out.append(_stretch(found[1], "gb18030") if found[1] else "")
        elif found[3] == b"~":
            out.append("~")
    out.append(_stretch(octets[end:], ""))
    return "".join(out)


def _utf_7(octets: bytes) -> str:
    out: list[str] = []
    end = 0
    for found in _SHIFT.finditer(octets):
        out.append(octets[end : found.start()].decode("utf-8", "replace"))
        end = found.end()
        encoded = found[1]
        if not encoded:
            out.append("+")
        elif len(encoded) < 3 or (whole := _unpacked(encoded)) is None:
            out.append(found[0].decode("ascii"))  # a plus sign that somebody meant
        else:
            out.append(whole)
    out.append(octets[end:].decode("utf-8", "replace"))
    return "".join(out)


def _unpacked(encoded: bytes) -> str | None:
    """The UTF-16 in modified base64; None if it is none."""
    try:
        units = binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4))
    except binascii.Error:
        return None
    return units[: len(units) & ~1].decode("utf-16-be", "replace")
