"""Which codec of Python is meant by a charset's name as mail writes it: a closed table.

The names of IANA, those of the WHATWG Encoding Standard, Python's own, and what nobody registered and arrives all the
same. A name from a mail is only ever looked up here: ``codecs.lookup`` would import a module for any name that a
stranger makes up, remember it for good, and hand out "charsets" such as ``hex`` or ``unicode_escape`` that are none.
"""

from __future__ import annotations

import re
from encodings.aliases import aliases as _python_aliases

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
    "iso_8859_1_1987": "cp1252", "csisolatin1": "cp1252", "iso_ir_100": "cp1252", "cp819": "cp1252", "ibm819": "cp1252",
    "iso_8859_9": "cp1254", "iso8859_9": "cp1254", "latin5": "cp1254", "l5": "cp1254", "iso_8859_9_1989": "cp1254",
    "csisolatin5": "cp1254", "iso_ir_148": "cp1254",
    "iso_8859_11": "cp874", "iso8859_11": "cp874", "tis_620": "cp874", "tis620": "cp874", "windows_874": "cp874",
    "dos_874": "cp874",
    "shift_jis": "cp932", "sjis": "cp932", "windows_31j": "cp932", "ms_kanji": "cp932", "shiftjis": "cp932",
    "csshiftjis": "cp932", "cswindows31j": "cp932",
    "euc_kr": "cp949", "ks_c_5601_1987": "cp949", "ks_c_5601_1989": "cp949", "ks_c_5601": "cp949", "ksc_5601": "cp949",
    "korean": "cp949", "iso_ir_149": "cp949", "cseuckr": "cp949", "csksc56011987": "cp949", "uhc": "cp949",
    "gb2312": "gb18030", "gbk": "gb18030", "gb_2312": "gb18030", "gb_2312_80": "gb18030", "cp936": "gb18030",
    "csgb2312": "gb18030", "csiso58gb231280": "gb18030", "iso_ir_58": "gb18030", "euc_cn": "gb18030",
    "gb18030_2000": "gb18030", "chinese": "gb18030", "cp54936": "gb18030", "csgbk": "gb18030", "csgb18030": "gb18030",
    "hz_gb_2312": "hz", "cp52936": "hz",
    "big5": "big5hkscs", "big5_hkscs": "big5hkscs", "cn_big5": "big5hkscs", "csbig5": "big5hkscs",
    "big5_tw": "big5hkscs", "big5_eten": "big5hkscs",
    "iso_2022_jp": "iso2022_jp_ext", "csiso2022jp": "iso2022_jp_ext", "iso_2022_jp_ms": "iso2022_jp_ext",
    "cp50220": "iso2022_jp_ext", "cp50221": "iso2022_jp_ext", "cp50222": "iso2022_jp_ext", "jis": "iso2022_jp_ext",
    "cp51932": "euc_jp", "cseucpkdfmtjapanese": "euc_jp", "eucjp_ms": "euc_jp", "cp51949": "cp949",
    "cp51936": "gb18030",
    # Python has no codec for it, and this one refuses what is not ASCII in it: see mail/stateful.py.
    "iso_2022_cn": "iso2022_kr", "iso_2022_cn_ext": "iso2022_kr", "cp50227": "iso2022_kr", "cp50225": "iso2022_kr",
    "csiso2022kr": "iso2022_kr",
    # Hebrew and Arabic, for which the order of writing was part of the name (RFC 1556).
    "iso_8859_8_i": "iso8859_8", "iso_8859_8_e": "iso8859_8", "iso_8859_6_i": "iso8859_6", "iso_8859_6_e": "iso8859_6",
    "logical": "iso8859_8", "visual": "iso8859_8", "csiso88598i": "iso8859_8", "csiso88598e": "iso8859_8",
    "csiso88596i": "iso8859_6", "csiso88596e": "iso8859_6", "dos_862": "cp862", "dos_720": "cp720",
    "iso_8859_8_1999": "iso8859_8", "sun_eu_greek": "iso8859_7", "iso_8859_6_1987": "iso8859_6",
    "koi8": "koi8_r", "koi": "koi8_r", "cskoi8r": "koi8_r", "koi8_ru": "koi8_u", "koi8u": "koi8_u",
    "cp20866": "koi8_r", "cp21866": "koi8_u", "csptcp154": "ptcp154",
    "mac": "mac_roman", "csmacintosh": "mac_roman", "mac_ce": "mac_latin2", "mac_ukrainian": "mac_cyrillic",
    "mac_centraleurroman": "mac_latin2", "mac_centraleurope": "mac_latin2", "cp10000": "mac_roman",
    "cp10006": "mac_greek", "cp10007": "mac_cyrillic", "cp10029": "mac_latin2", "cp10079": "mac_iceland",
    "cp10081": "mac_turkish",
    # Unicode.
    "utf8": "utf_8", "utf_8mb4": "utf_8", "utf8mb4": "utf_8", "unicode_1_1_utf_8": "utf_8", "unicode11utf8": "utf_8",
    "unicode20utf8": "utf_8", "unicode_2_0_utf_8": "utf_8", "utf_8n": "utf_8", "csutf8": "utf_8", "cesu_8": "utf_8",
    "cp65001": "utf_8", "cp65000": "utf_7", "unicode_1_1_utf_7": "utf_7", "unicode_2_0_utf_7": "utf_7",
    "csunicode11utf7": "utf_7", "unicode": "utf_16", "csunicode": "utf_16", "iso_10646_ucs_2": "utf_16",
    "ucs_2": "utf_16", "csutf16": "utf_16", "unicodefffe": "utf_16_be", "unicodefeff": "utf_16_le",
    "unicodelittle": "utf_16_le", "unicodebig": "utf_16_be", "cp1200": "utf_16_le", "cp1201": "utf_16_be",
    "iso_10646_ucs_4": "utf_32", "ucs_4": "utf_32", "csucs4": "utf_32", "cp12000": "utf_32_le", "cp12001": "utf_32_be",
    # Names that nobody registered.
    "user_defined": "cp1252", "ansi": "cp1252", "iso_8859": "cp1252", "iso8859": "cp1252", "8bit": "cp1252",
    "latin": "cp1252", "western": "cp1252", "default": "cp1252", "cp20127": "ascii", "us": "ascii", "en_us": "ascii",
    "ansi_x3_4_1968": "ascii", "iso_646_irv_1991": "ascii", "csascii": "ascii", "7bit": "ascii",
    "ibm00858": "cp858", "cp00858": "cp858", "pc_multilingual_850_euro": "cp858",
}  # fmt: skip

_WIDER = {
    "latin_1": "cp1252", "iso8859_9": "cp1254", "iso8859_11": "cp874", "tis_620": "cp874", "shift_jis": "cp932",
    "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949", "big5": "big5hkscs", "iso2022_jp": "iso2022_jp_ext",
}  # fmt: skip
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_LANGUAGE = re.compile(r"\*.*", re.DOTALL)
_CODE_PAGE = re.compile(
    r"(?:cp|windows|window|win|ibm|dos|ms|msdos|ansi|ccsid|codepage|cswindows|csibm|cspc)?0{0,3}(\d{3,5})"
)
_EXPERIMENTAL = ("x_", "x", "cs")

CODECS = {
    _SEPARATORS.sub("_", name): _WIDER.get(codec, codec)
    for name, codec in (
        *((name, name) for name in (*_WITHOUT_ALIAS, *_python_aliases.values())),
        *_python_aliases.items(),
        *_AS_MAIL_USES_THEM.items(),
    )
    if codec not in _NOT_CHARSETS
}
"""Codec by name in lower case, with ``_`` for whatever stands between letters and digits."""

# Punctuation is the first thing that senders get wrong: iso8859-1, utf_8, win1251, x-eucjp.
_SQUASHED = {name.replace("_", ""): codec for name, codec in CODECS.items()}


def codec_named(name: str) -> str | None:
    """The name of Python's codec, or None; any case and punctuation, with or without ``x-`` or a language (RFC 2231
    section 5). ``name`` is short: the caller has seen to that."""
    key = _SEPARATORS.sub("_", _LANGUAGE.sub("", name).strip().lower()).strip("_")
    for _ in range(3):  # x-x-big5
        found = CODECS.get(key) or _SQUASHED.get(squashed := key.replace("_", "")) or _numbered(squashed)
        if found is not None:
            return found
        prefix = next((prefix for prefix in _EXPERIMENTAL if key.startswith(prefix)), None)
        if prefix is None:
            return None
        key = key[len(prefix) :]
    return None


def _numbered(squashed: str) -> str | None:
    """A code page by its number, whatever stands before it; 28591 and its neighbours are the ISO 8859 family."""
    page = _CODE_PAGE.fullmatch(squashed)
    if page is None:
        return None
    number = page[1].lstrip("0") or "0"
    if (found := _SQUASHED.get(f"cp{number}")) is not None:
        return found
    part = int(number) - 28590
    return _SQUASHED.get(f"iso8859{part}") if 1 <= part <= 16 else None
