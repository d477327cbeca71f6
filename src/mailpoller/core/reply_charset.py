"""What a mailbox wishes its answers to be written in."""

from __future__ import annotations

from typing import Literal, get_args

from mailpoller.core.record import record

WrittenCharset = Literal[
    "us-ascii", "utf-8", "iso-8859-1", "iso-8859-2", "iso-8859-3", "iso-8859-4", "iso-8859-5", "iso-8859-7",
    "iso-8859-9", "iso-8859-10", "iso-8859-13", "iso-8859-14", "iso-8859-15", "iso-8859-16", "windows-1250",
    "windows-1251", "windows-1252", "windows-1253", "windows-1254", "windows-1257", "windows-1258", "koi8-r", "koi8-u",
    "iso-2022-jp", "gb2312", "gbk", "gb18030", "big5", "euc-kr", "tis-620",
]  # fmt: skip
"""The charsets that we write, by their names in mail."""
Preset = Literal["western-europe", "japanese", "simplified-chinese", "traditional-chinese"]
Replies = Literal["choose", "incoming", "default"]
Euro = Literal["latin-9", "unicode", "EUR", "ignore"]

WRITTEN: frozenset[str] = frozenset(get_args(WrittenCharset))


@record
class ReplyCharset:
    """``default``: the charset of the customers. ``replies``: which is tried first. ``euro``: what is done where that
    lacks this sign and nothing else."""

    default: str = "utf-8"
    replies: Replies = "choose"
    euro: Euro = "ignore"


PRESETS: dict[str, ReplyCharset] = {
    "western-europe": ReplyCharset("iso-8859-1", "choose", "EUR"),
    "japanese": ReplyCharset("iso-2022-jp", "choose", "EUR"),
    "simplified-chinese": ReplyCharset("gb2312", "choose", "EUR"),
    "traditional-chinese": ReplyCharset("big5", "choose", "EUR"),
}
"""Those of KANA Response."""
