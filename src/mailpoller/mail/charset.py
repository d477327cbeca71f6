"""Octets to text: the charset ladder, which always arrives at valid Unicode.

Declared charset, then its aliases as mail really uses them, then UTF-8, then windows-1252. A name from a mail is only
ever looked up in our own table: ``codecs.lookup`` would import a module for any name that a stranger makes up,
remember it for good, and hand out "charsets" such as ``hex`` or ``unicode_escape`` that are no charsets at all.
"""

from __future__ import annotations

import codecs
import encodings
import re
import sys
from encodings.aliases import aliases as _python_aliases
from functools import lru_cache

UNKNOWN = "charset-unknown"
"""Defect: no codec is known by the declared name."""
WRONG = "charset-wrong"
"""Defect: the octets are not of the declared charset (or, with none declared, not UTF-8)."""

_NOT_CHARSETS = frozenset(
    (
        "base64_codec",
        "bz2_codec",
        "hex_codec",
        "quopri_codec",
        "rot_13",
        "uu_codec",
        "zlib_codec",
        "mbcs",
        "oem",
        "tactis",
    )
)

_WITHOUT_ALIAS = (
    "cp720", "cp737", "cp856", "cp874", "cp875", "cp1006", "koi8_r", "koi8_u", "koi8_t", "kz1048", "mac_croatian",
    "mac_farsi", "mac_arabic", "mac_romanian", "utf_8_sig", "big5hkscs", "gb18030", "hz",
)  # fmt: skip

_AS_MAIL_USES_THEM = {
    # Names that mean a larger set than they say (the WHATWG Encoding Standard reads them so, and so do mail clients).
    "iso_8859_1": "cp1252", "iso8859_1": "cp1252", "latin_1": "cp1252", "latin1": "cp1252", "l1": "cp1252",
    "iso_8859_9": "cp1254", "iso8859_9": "cp1254", "latin5": "cp1254",
    "iso_8859_11": "cp874", "iso8859_11": "cp874", "tis_620": "cp874", "tis620": "cp874", "windows_874": "cp874",
    "shift_jis": "cp932", "sjis": "cp932", "x_sjis": "cp932", "windows_31j": "cp932", "ms_kanji": "cp932",
    "shiftjis": "cp932",
    "euc_kr": "cp949", "ks_c_5601_1987": "cp949", "ks_c_5601": "cp949", "ksc_5601": "cp949", "korean": "cp949",
    "windows_949": "cp949", "iso_ir_149": "cp949",
    "gb2312": "gb18030", "gbk": "gb18030", "gb_2312_80": "gb18030", "x_gbk": "gb18030", "cp936": "gb18030",
    "hz_gb_2312": "hz",
    "gb18030_2000": "gb18030", "chinese": "gb18030", "big5": "big5hkscs", "big5_hkscs": "big5hkscs",
    "x_x_big5": "big5hkscs",
    "iso_2022_jp": "iso2022_jp_ext", "csiso2022jp": "iso2022_jp_ext", "iso_2022_jp_ms": "iso2022_jp_ext",
    # Names that nobody registered, and that arrive all the same.
    "utf8": "utf_8", "utf_8mb4": "utf_8", "utf8mb4": "utf_8", "unicode_1_1_utf_8": "utf_8", "x_unicode20utf8": "utf_8",
    "unicode_1_1_utf_7": "utf_7", "x_user_defined": "cp1252", "ansi": "cp1252", "x_ansi": "cp1252", "cp_850": "cp850",
    "iso_8859_8_i": "iso8859_8", "iso_8859_8_e": "iso8859_8", "iso_8859_6_i": "iso8859_6", "iso_8859_6_e": "iso8859_6",
    "x_mac_roman": "mac_roman", "macroman": "mac_roman", "x_mac_ce": "mac_latin2", "x_mac_cyrillic": "mac_cyrillic",
    "koi8": "koi8_r", "koi": "koi8_r", "x_koi8_r": "koi8_r", "koi8_ru": "koi8_u", "x_cp1250": "cp1250",
    "x_cp1251": "cp1251",
    "x_cp1252": "cp1252", "win_1251": "cp1251", "win1251": "cp1251", "win_1252": "cp1252", "unicode": "utf_16",
}  # fmt: skip

_SEPARATORS = re.compile(r"[^a-z0-9]+")
_CODECS = {
    _SEPARATORS.sub("_", name): codec
    for name, codec in (
        *((name, name) for name in (*_WITHOUT_ALIAS, *_python_aliases.values())),
        *_python_aliases.items(),
        *_AS_MAIL_USES_THEM.items(),
    )
    if codec not in _NOT_CHARSETS
}

_LONGEST_NAME = 60
_REPAIRED_AT_MOST = 1 << 20
_LANGUAGE = re.compile(r"\*.*", re.DOTALL)
_SURROGATES = re.compile("[\ud800-\udfff]")
_UNICODE_FORMS = frozenset(("utf_7", "utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le"))
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
    key = _SEPARATORS.sub("_", _LANGUAGE.sub("", name).strip().lower()).strip("_")
    codec = _CODECS.get(key)
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
    try:
        text = str(octets, codec)
    except UnicodeError:
        try:
            return str(octets, "utf-8"), WRONG
        except UnicodeDecodeError:
            if codec in ("ascii", "utf_8", "utf_8_sig"):
                return _guess(octets), WRONG
            # Python replaces one bad sequence at a time here, at half a microsecond each.
            text = str(octets[:_REPAIRED_AT_MOST], codec, "replace")
            return scrub(text), WRONG
    return (scrub(text) if codec in _UNICODE_FORMS else text), ""


def _guess(octets: bytes) -> str:
    """Octets that are not UTF-8: damaged UTF-8 if some of it is well-formed beyond ASCII, else windows-1252."""
    text = str(octets, "utf-8", "replace")
    rest = text.replace("\ufffd", "")
    return codecs.charmap_decode(octets, "strict", _WINDOWS_1252)[0] if rest.isascii() else text
