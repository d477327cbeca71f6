"""What RTF says: its plain text, or the text or HTML from which it was made (MS-OXRTFEX)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import Literal, NamedTuple

from mailpoller.mail.charset import decode, scrub
from mailpoller.mail.contents.unpack import Closed

TOKENS = 120_000
"""Words, groups and stretches of text that are looked at."""
DEEPEST = 1_000
"""Groups within groups."""
KEPT = 1_000_000
"""Characters of the result."""

_TOKEN = re.compile(
    rb"([^\\{}\r\n]++)"
    rb"|\\(?:([A-Za-z]{1,32}+)(-?[0-9]{1,10}+)? ?|'([0-9A-Fa-f]{2})|([^A-Za-z]))"
    rb"|([{}])|[\r\n\\]"
)
_SPACES = {
    b"par": "\n", b"line": "\n", b"sect": "\n", b"page": "\n", b"row": "\n", b"tab": "\t", b"cell": "\t",
    b"nestcell": "\t", b"nestrow": "\n", b"lquote": "‘", b"rquote": "’", b"ldblquote": "“", b"rdblquote": "”",
    b"bullet": "•", b"endash": "–", b"emdash": "—", b"enspace": "\u2002", b"emspace": "\u2003", b"zwj": "\u200d",
    b"zwnj": "\u200c",
}  # fmt: skip
_ESCAPES = {b"\\": "\\", b"{": "{", b"}": "}", b"~": "\xa0", b"_": "-", b"\n": "\n", b"\r": "\n"}
# What holds no words of the text.
_DESTINATIONS = frozenset(
    b"fonttbl colortbl stylesheet info pict object header headerl headerr headerf footer footerl footerr footerf "
    b"footnote generator themedata colorschememapping datastore xmlnstbl listtable listoverridetable rsidtbl "
    b"revtbl filetbl fldinst shppict nonshppict pntext pntxta pntxtb annotation atnid atnauthor bkmkstart bkmkend xe "
    b"tc txe rxe latentstyles mmathPr wgrffmtfilter".split()
)
_CHARSETS = {0: "", 1: "", 77: "macintosh", 128: "shift_jis", 129: "cp949", 130: "johab", 134: "gb18030", 136: "big5",
             161: "windows-1253", 162: "windows-1254", 163: "windows-1258", 177: "windows-1255", 178: "windows-1256",
             186: "windows-1257", 204: "windows-1251", 222: "windows-874", 238: "windows-1250"}  # fmt: skip
_PAGES = {932: "shift_jis", 936: "gb18030", 949: "cp949", 950: "big5", 10000: "macintosh", 65001: "utf-8"}
_FONTS = 2_000


class Rich(NamedTuple):
    """What was written: ``kind`` says whether it is HTML."""

    text: str
    kind: Literal["plain", "html"]


@dataclass(slots=True)
class _State:
    """What holds within a group, and is inherited by those within it."""

    font: int = -1
    html: bool = False
    hidden: bool = False
    skip: bool = False
    uc: int = 1

    def inner(self) -> _State:
        return _State(self.font, self.html, self.hidden, self.skip, self.uc)


def read_rtf(octets: bytes) -> Rich:
    """The text of a document; where it was made of HTML (``\\fromhtml1``) that HTML, as it was.

    Linear in time. Raises :class:`~mailpoller.mail.contents.unpack.Closed` for what is no RTF, or has more pieces than
    we look at. What is cut off is read up to the cut.
    """
    if not octets.startswith(b"{\\rtf"):
        raise Closed("malformed")
    return _Reader().read(octets)


class _Reader:
    def __init__(self) -> None:
        self.out: list[str] = []
        self.size = 0
        self.octets = bytearray()  # of one charset, not decoded yet: a character may be of several
        self.charset = "windows-1252"
        self.octets_of = self.charset
        self.octets_in_tag = False
        self.fonts: dict[int, str] = {}
        self.state = _State()
        self.within: list[_State] = []
        self.from_html = False
        self.in_fonts = 0  # how deep the table of fonts lies
        self.font = -1  # which one is being described there
        self.first = False  # nothing stood in this group yet
        self.starred = False
        self.left = 0  # characters that stand for the one before, for readers without Unicode
        self.high = 0  # the first half of a surrogate pair
        self.default = -1

    def read(self, octets: bytes) -> Rich:
        at = tokens = 0
        while (found := _TOKEN.match(octets, at)) is not None:
            at = found.end()
            tokens += 1
            if tokens > TOKENS:
                raise Closed("too-large")
            words, name, number, code, sign, brace = found.groups()
            if words is not None:
                self.words(words)
            elif name is not None:
                value = int(number) if number else None
                if name == b"bin":
                    at += max(value or 0, 0)
                self.word(name, value)
            elif code is not None:
                self.words(bytes((int(code, 16),)))
            elif sign is not None:
                self.sign(sign)
            elif brace is not None and not self.group(brace):
                break
            if self.size >= KEPT:
                break
        self.flush()
        text = scrub("".join(self.out)[:KEPT]).replace("\0", "\ufffd").replace("\r", "\n")
        return Rich(text, "html" if self.from_html else "plain")

    def group(self, brace: bytes) -> bool:
        """False at the end of the document."""
        self.left = 0
        if brace == b"{":
            if len(self.within) == DEEPEST:
                raise Closed("too-deep")
            self.within.append(self.state)
            self.state = self.state.inner()
            self.first = True
            return True
        if not self.within:
            return False
        self.state = self.within.pop()
        self.first = self.starred = False
        if len(self.within) < self.in_fonts:
            self.in_fonts = 0
        return bool(self.within)

    def sign(self, sign: bytes) -> None:
        if sign == b"*":
            self.starred = self.first
        elif (written := _ESCAPES.get(sign)) is not None:
            if self.left:
                self.left -= 1
            else:
                self.put(written)

    @property
    def shown(self) -> bool:
        return not (self.state.skip or self.state.hidden)

    def words(self, octets: bytes) -> None:
        self.first = False
        if self.left:
            dropped = min(self.left, len(octets))
            self.left -= dropped
            octets = octets[dropped:]
        state = self.state
        if not octets or not self.shown:
            return
        charset = self.fonts.get(state.font, "") or self.charset
        if charset != self.octets_of or state.html != self.octets_in_tag:
            self.flush()
            self.octets_of, self.octets_in_tag = charset, state.html
        self.octets += octets
        self.size += len(octets)

    def put(self, written: str) -> None:
        self.first = False
        if self.shown and written:
            self.flush()
            self.out.append(written)
            self.size += len(written)

    def flush(self) -> None:
        if self.high:
            self.high = 0
            self.out.append("\ufffd")
        if self.octets:
            text = decode(bytes(self.octets), self.octets_of)[0]
            self.out.append(escape(text, quote=False) if self.from_html and not self.octets_in_tag else text)
            self.octets.clear()

    def word(self, name: bytes, value: int | None) -> None:
        first, starred = self.first, self.starred
        self.first = self.starred = False
        state = self.state
        if first and (starred or name in _DESTINATIONS):
            self.destination(name)
            return
        if name == b"u" and value is not None:
            self.unicode(value & 0xFFFF)
            self.left = state.uc
        elif name == b"uc":
            state.uc = min(max(value or 0, 0), 8)
        elif name == b"htmlrtf":
            state.hidden = self.from_html and value != 0
        elif name == b"v" and not self.from_html:
            state.hidden = value != 0
        elif name == b"f":
            self.chosen(-1 if value is None else value)
        elif name == b"fcharset" and self.in_fonts and len(self.fonts) < _FONTS:
            self.fonts[self.font] = _CHARSETS.get(value or 0, "")
        elif name == b"cpg" and self.in_fonts and len(self.fonts) < _FONTS:
            self.fonts[self.font] = _page(value)
        elif name == b"ansicpg":
            self.charset = _page(value) or self.charset
        elif name == b"mac":
            self.charset = "macintosh"
        elif name in (b"pca", b"pc"):
            self.charset = "cp850" if name == b"pca" else "cp437"
        elif name == b"deff":
            state.font = self.default = -1 if value is None else value
        elif name == b"plain":
            state.font = self.default
            state.hidden = state.hidden and self.from_html
        elif name == b"fromhtml":
            self.from_html = value != 0
        elif (written := _SPACES.get(name)) is not None:
            if self.left:
                self.left -= 1
            else:
                self.put(written)

    def destination(self, name: bytes) -> None:
        """What this group is for. HTML that was made RTF stands in those of ``htmltag`` (section 2.1.3.1)."""
        if name == b"fonttbl":
            self.in_fonts = len(self.within)
        if name == b"htmltag" and self.from_html:
            self.state.hidden, self.state.html = False, True
        else:
            self.state.skip = True

    def chosen(self, font: int) -> None:
        if self.in_fonts:
            self.font = font
        else:
            self.state.font = font

    def unicode(self, code: int) -> None:
        if 0xD800 <= code < 0xDC00:
            self.flush()
            if self.shown:
                self.high = code
            return
        if 0xDC00 <= code < 0xE000:
            high, self.high = self.high, 0
            self.put(chr(0x10000 + (high - 0xD800 << 10) + code - 0xDC00) if high else "\ufffd")
            return
        self.put(chr(code))


def _page(number: int | None) -> str:
    if number is None or number <= 0:
        return ""
    return _PAGES.get(number, f"windows-{number}" if 874 <= number <= 1258 else f"cp{number}")
