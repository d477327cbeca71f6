"""In which charset a reply is written: one that the customer can read, and that holds every character of it.

The rules are those of KANA Response. A ladder ends at UTF-8, which holds all: nothing is ever written as a question
mark. The one replacement there is, ``EUR`` for the euro sign, is asked for by name.
"""

from __future__ import annotations

from mailpoller.core.record import record
from mailpoller.core.reply_charset import WRITTEN, ReplyCharset

EURO = "\u20ac"

_PYTHON_NAMES = {
    "us-ascii": "ascii", "iso-2022-jp": "iso2022_jp", "koi8-r": "koi8_r", "koi8-u": "koi8_u", "tis-620": "tis_620",
    "euc-kr": "euc_kr",
}  # fmt: skip
CODECS = {
    name: _PYTHON_NAMES.get(name, name.replace("windows-", "cp").replace("iso-8859-", "iso8859_")) for name in WRITTEN
}
"""The charsets that we write, with Python's names."""

SUPERSETS = {
    "iso-8859-1": ("windows-1252",),
    "iso-8859-9": ("windows-1254",),
    "gb2312": ("gbk", "gb18030"),
    "gbk": ("gb18030",),
}
"""What holds all that the charset holds, and more, and is read wherever it is."""

_ALSO_READ_AS = {"big5": "cp950", "gb2312": "gbk", "euc_kr": "cp949"}
"""What many readers take the charset for. Where the two differ one of them would show something else."""

_WRITTEN_AS = {
    "ascii": "us-ascii", "utf8": "utf-8", "latin1": "iso-8859-1", "latin-1": "iso-8859-1", "cp1252": "windows-1252",
    "x-sjis": "iso-2022-jp", "shift_jis": "iso-2022-jp", "shift-jis": "iso-2022-jp", "windows-31j": "iso-2022-jp",
    "cp932": "iso-2022-jp", "euc-jp": "iso-2022-jp", "ks_c_5601-1987": "euc-kr", "cp936": "gbk", "x-gbk": "gbk",
}  # fmt: skip
"""What arrives under other names, or is read in mail but not written."""


@record
class Written:
    """The charset, and whether the euro sign is to be written as ``EUR`` for it."""

    charset: str
    euro_as_text: bool = False


def known(charset: str) -> str:
    """The charset under the name that we write, or nothing if we write none of that name."""
    name = charset.strip().lower()
    name = _WRITTEN_AS.get(name, name)
    return name if name in CODECS else ""


def holds(charset: str, text: str) -> bool:
    """True if the text can be written in the charset and read back as it was, by any reader."""
    codec = CODECS[charset]
    if codec == "iso2022_jp" and any(one in "\x0e\x0f\x1b" for one in text):
        return False  # these are how it shifts
    try:
        octets = text.encode(codec)
        same = octets.decode(codec) == text and octets == text.encode(_ALSO_READ_AS.get(codec, codec))
    except UnicodeError:
        return False
    return same and not (codec == "big5" and _of_several_tables(octets))


def _of_several_tables(octets: bytes) -> bool:
    """True if a pair of Big5 is among those that vendors gave to kana, Cyrillic and digits in circles, each his own."""
    at = 0
    while at < len(octets):
        if octets[at] < 0x81:
            at += 1
            continue
        if b"\xc6\xa1" <= octets[at : at + 2] <= b"\xc8\xfe":
            return True
        at += 2
    return False


def written(text: str, wish: ReplyCharset, incoming: str = "") -> Written:
    """In which charset all of ``text`` is written. ``incoming``: that of the message which is answered, or nothing.

    ``choose``: the first that holds it of US-ASCII, incoming, default. ``incoming`` and ``default``: that one, if it
    holds it. Else, if one of them lacks the euro sign alone, what ``euro`` says; else a superset, else UTF-8.
    """
    came, usual = known(incoming), known(wish.default) or "utf-8"
    asked = {"choose": ["us-ascii", came, usual], "incoming": [came or usual], "default": [usual]}[wish.replies]
    wanted = [one for one in dict.fromkeys(asked) if one]
    for one in wanted:
        if holds(one, text):
            return Written(one)
    if EURO in text and wish.euro != "ignore":
        without = text.replace(EURO, "EUR")
        lacking = next((one for one in wanted if one != "us-ascii" and holds(one, without)), "")
        if lacking and wish.euro == "EUR":
            return Written(lacking, euro_as_text=True)
        if lacking and wish.euro == "latin-9" and holds("iso-8859-15", text):
            return Written("iso-8859-15")
        if lacking:
            return Written("utf-8")
    wider = (more for one in wanted for more in SUPERSETS.get(one, ()))
    ladder = filter(None, ["us-ascii", came, usual, *wider])
    return Written(next((one for one in ladder if holds(one, text)), "utf-8"))
