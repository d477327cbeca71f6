"""Addresses in header fields (RFC 5322 section 3.4), as they should be and as they are; one pass over any input.

Understood: display names bare, quoted and encoded; comments, nested; groups; quoted pairs; source routes; white space around
dots and at signs; ``;`` as a separator; missing brackets, quotes and commas. Names are decoded after the structure is
found, so that an encoded comma or bracket is text and never structure.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mailpoller.core.message import Address
from mailpoller.mail.words import clean, readable

MALFORMED = "address-malformed"
"""Defect: what stands where an address should be has none."""
CUT = "addresses-cut"
"""Defect: the field holds more addresses than we keep."""

KEPT = 10_000
"""Addresses of one field that are kept."""

_CACHED_UP_TO = 200
_NEEDS_CARE = re.compile(r'["():;\[\\]')
_PAIR = re.compile(r"\\(.)")
_PARENTHESES = re.compile(r"[()\\]")
_COMMENT = re.compile(r"\([^()]*\)")
_SPACED_MARK = re.compile(r" *([.@]) *")
_TOKEN = re.compile(
    r"""  (?P<space> \s++)
        | (?P<atom> =\?[^?\s]*+\?[bBqQ]\?[^?]*+\?= | \[[^\[\]\\,<>]*+\] | [^\s"(),:;<>\[\]\\]++)
        | "(?P<quoted> (?:[^"\\]++|\\.)*+)"
        | <(?P<angle> (?:[^"<>\\]++|"(?:[^"\\]++|\\.)*+"|\\.)*+)>
        | <(?P<unclosed> [^,;<>]*+)
        | (?P<mark> .)
    """,
    re.VERBOSE | re.DOTALL,
)


def parse_addresses(value: str) -> tuple[tuple[Address, ...], str]:
    """The addresses of an unfolded, still encoded field value in order, and a defect or "". Never raises.

    Something without an address in it becomes an :class:`Address` with an empty address if it is several words, and with
    the one word as its address (``root``) if it is one.
    """
    return _parse_cached(value) if len(value) <= _CACHED_UP_TO else _parse(value)


def _parse(value: str) -> tuple[tuple[Address, ...], str]:
    if _NEEDS_CARE.search(value) is None and not ("=?" in value and "," in value):
        found = _plain(value)
        if found is not None:
            return found
    return _Reader().read(value)


_parse_cached = lru_cache(maxsize=2048)(_parse)


def _plain(value: str) -> tuple[tuple[Address, ...], str] | None:
    """The usual forms, ``a@b`` and ``words <a@b>``, separated by commas; None if there is any other."""
    addresses: list[Address] = []
    for item in value.split(",", KEPT):
        name, bracket, rest = item.partition("<")
        if bracket:
            address, closed, tail = rest.partition(">")
            if not closed or tail.strip():
                return None
        else:
            name, address = "", name
        address = address.strip()
        if not address:
            if not bracket and not item.strip():
                continue
            return None
        if "@" not in address or " " in address or "<" in address or not address.isprintable():
            return None
        if len(addresses) == KEPT:
            return tuple(addresses), CUT
        addresses.append(Address(readable(name.strip()), address))
    return tuple(addresses), ""


class _Reader:
    """Reads one field, token by token. ``words`` are the phrase so far; white space in it is an empty string."""

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self.defect = ""
        self.words: list[str] = []
        self.quoted = False
        self.angle: str | None = None
        self.comment = ""

    def read(self, value: str) -> tuple[tuple[Address, ...], str]:
        position, length = 0, len(value)
        comments_close = True
        match = _TOKEN.match
        while position < length:
            token = match(value, position)
            assert token is not None  # `mark` takes any character
            position = token.end()
            kind = token.lastgroup
            if kind == "space":
                self.words.append("")
            elif kind == "atom":
                self.words.append(token["atom"])
            elif kind == "quoted":
                self.quoted = True
                text = token["quoted"]
                self.words.append(_PAIR.sub(r"\1", text) if "\\" in text else text)
                if value[position : position + 1] == "@":  # "john doe"@example.org: the local part as written
                    self.words[-1] = f'"{text}"'
            elif kind in ("angle", "unclosed"):
                if self.angle is not None:
                    self.flush()
                self.angle = token[kind]
            elif token["mark"] == "(":
                closing = _comment_end(value, position - 1) if comments_close else -1
                if closing < 0:
                    comments_close = False  # an unclosed one is passed over, and never looked for again
                    self.defect = MALFORMED
                else:
                    self.comment = self.comment or value[position : closing - 1]
                    self.words.append("")
                    position = closing
            elif token["mark"] in ",;":
                self.flush()
            elif token["mark"] == ":":
                self.open_group()
            else:
                self.defect = MALFORMED
            if len(self.addresses) >= KEPT:
                return tuple(self.addresses), CUT if value[position:].strip(" ,;") else self.defect
        self.flush()
        return tuple(self.addresses), self.defect

    def open_group(self) -> None:
        """The words so far were a group's name, which is nobody's address."""
        if self.angle is not None:
            self.flush()
        self.words.clear()
        self.quoted = False

    def flush(self) -> None:
        """An address ends here: take what was gathered."""
        words, angle, comment, quoted = self.words, self.angle, self.comment, self.quoted
        self.words, self.angle, self.comment, self.quoted = [], None, "", False
        if angle is not None:
            address = _addr_spec(angle)
            name = _joined(words)
            if not address:
                self.defect = MALFORMED
                if not name:
                    return
        else:
            phrase = _joined(words)
            if not phrase:
                return
            name, address = _split_bare(phrase) if "@" in phrase else ("", phrase)
            if "@" not in address:
                self.defect = MALFORMED
                if quoted or " " in phrase or "=?" in phrase:
                    name, address = phrase, ""
        if not name and comment:
            name = _PAIR.sub(r"\1", comment)
        self.addresses.append(Address(readable(name).strip(), clean(address)))


def _joined(words: list[str]) -> str:
    """Words with one space where there was white space between them, and none where there was none."""
    return " ".join("".join(word or " " for word in words).split(" ")).strip() if len(words) > 1 else "".join(words)


def _split_bare(phrase: str) -> tuple[str, str]:
    """(name, address) of ``John Doe john@example.org``, or of ``john @ example . org``, which is obsolete syntax."""
    words = _SPACED_MARK.sub(r"\1", phrase).split()
    for index, word in enumerate(words):
        if "@" in word and not word.startswith("=?"):
            return " ".join(words[:index] + words[index + 1 :]), word
    return phrase, ""


def _addr_spec(angle: str) -> str:
    """What stands in the brackets, without source route, comments and white space."""
    if "(" in angle and '"' not in angle:
        angle = _COMMENT.sub("", angle)
    angle = angle.strip()
    if angle.startswith("@") and ":" in angle:
        angle = angle.partition(":")[2]
    return angle if '"' in angle else "".join(angle.split())


def _comment_end(value: str, start: int) -> int:
    """Where the comment that opens at ``start`` ends (comments nest), or -1 if it never does."""
    depth, skip = 0, -1
    for found in _PARENTHESES.finditer(value, start):
        at = found.start()
        if at == skip:
            continue
        mark = value[at]
        if mark == "\\":
            skip = at + 1
        elif mark == "(":
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                return at + 1
    return -1
