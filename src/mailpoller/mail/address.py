"""Addresses in header fields (RFC 5322 section 3.4), as they should be and as they are; one pass over any input.

Understood: display names bare, quoted and encoded; comments, nested; groups; quoted pairs; source routes; white space
around dots and at signs; ``;`` as a separator; missing brackets, quotes and commas. Names are decoded after the
structure is found, so that an encoded comma or bracket is text and never structure.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mailpoller.core.message import Address
from mailpoller.mail.words import clean, readable

MALFORMED = "address-malformed"
"""Defect: what stands where an address should be is none, or cannot be one; it is given as written."""
CUT = "addresses-cut"
"""Defect: the field holds more addresses than we keep."""

KEPT = 10_000
"""Addresses of one field that are kept."""

_TOKENS_READ = 60_000
_CACHED_UP_TO = 200
_NEEDS_CARE = re.compile(r'["():;\[\\]')
_PAIR = re.compile(r"\\(.)")
_PARENTHESES = re.compile(r"[()\\]")
_COMMENT = re.compile(r"\([^()]*\)")
_PIECES = {
    "space": r"\s++",
    "atom": r'=\?[^?\s]*+\?[bBqQ]\?[^?]*+\?=|"(?:[^"\\]++|\\.)*+"(?=@)|\[[^\[\]\\,<>]*+\]|[^\s"(),:;<>\[\]\\]++',
    "quoted": r'"(?:[^"\\]++|\\.)*+"',
    "angle": r'<(?:[^"<>]*+|"(?:[^"\\]++|\\.)*+"[^"<>]*+)>',
    "unclosed": r"<++[^,;<>]*+",
    "mark": r"[,;][,;\s]*+|:++|>++|[)\]]++|\[++|\\++|.",
}
_TOKEN = re.compile("|".join(f"(?P<{kind}>{piece})" for kind, piece in _PIECES.items()), re.DOTALL)
# After a quote that is never closed: looking for its end again at every further one would take quadratic time.
_TOKEN_WITHOUT_QUOTES = re.compile(
    "|".join(
        f"(?P<{kind}>{piece})"
        for kind, piece in (
            _PIECES | {"atom": r"\[[^\[\]\\,<>]*+\]|[^\s\"(),:;<>\[\]\\]++", "quoted": "(?!)", "angle": "<[^<>]*+>"}
        ).items()
    ),
    re.DOTALL,
)
_STEPS = 64
_LONGEST_WORD = 2000
_PLAIN = re.compile(r"[^\s<>@]++@[^\s<>@]++").fullmatch
_ADDR_SPEC = re.compile(
    r'(?:"(?:[^"\\]++|\\.)*+"|[^\s"(),:;<>@\[\]\\]++)@(?:\[[^\s\[\]]*+\]|[^\s"(),:;<>@\[\]\\]++)', re.DOTALL
).fullmatch
"""What can be one (RFC 5322 section 3.4.1), with all that is not ASCII allowed (RFC 6532)."""
_SPACE = re.compile(r"\s").search
_AROUND = re.compile(r"\s*+([.@])\s*+")


def parse_addresses(value: str) -> tuple[tuple[Address, ...], str]:
    """The addresses of an unfolded, still encoded field value in order, and a defect or "". Never raises.

    Something without an address in it becomes an :class:`Address` with an empty address if it is several words, and
    with the one word as its address (``root``) if it is one.
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
        if not _PLAIN(address) or not address.isprintable():
            return None
        if len(addresses) == KEPT:
            return tuple(addresses), CUT
        addresses.append(Address(readable(name.strip()), address))
    return tuple(addresses), ""


class _Reader:
    """Reads one field, token by token, into words; what stood together in the field is one word."""

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self.defect = ""
        self.words: list[str] = []
        self.trail: list[str] = []  # the words after the brackets
        self.apart = True
        self.quoted = False
        self.angle: str | None = None
        self.comment = ""

    def read(self, value: str) -> tuple[tuple[Address, ...], str]:
        position, length = 0, len(value)
        comments_close = True
        match = _TOKEN.match
        for _ in range(_TOKENS_READ):
            if position >= length:
                break
            token = match(value, position)
            assert token is not None  # `mark` takes any character
            position = token.end()
            kind = token.lastgroup
            if kind == "space":
                self.apart = True
            elif kind == "atom":
                self.add(token["atom"])
            elif kind == "quoted":
                self.quoted = True
                text = token["quoted"][1:-1]
                self.add(_PAIR.sub(r"\1", text) if "\\" in text else text)
            elif kind in ("angle", "unclosed"):
                if (
                    self.angle is not None
                ):  # a comma was forgotten: what followed the last brackets is the next one's name
                    name, self.trail = self.trail, []
                    self.flush()
                    self.words = name
                    self.defect = MALFORMED
                self.angle = token[kind][1:-1] if kind == "angle" else token[kind].lstrip("<")
                self.apart = True
            elif token["mark"] == "(":
                closing = _comment_end(value, position - 1) if comments_close else -1
                if closing < 0:
                    comments_close = False  # an unclosed one is passed over, and never looked for again
                    self.defect = MALFORMED
                else:
                    self.comment = self.comment or _PAIR.sub(r"\1", value[position : closing - 1])
                    self.apart = True
                    position = closing
            elif token["mark"][0] in ",;":
                self.flush()
            elif token["mark"][0] == ":":
                self.open_group()
            else:
                self.defect = MALFORMED
                if token["mark"][0] == ">" and self.angle is None and self.words and not self.apart:
                    self.add(token["mark"])  # as written, since nobody knows what was meant
                elif token["mark"] == '"':
                    match = _TOKEN_WITHOUT_QUOTES.match
            if len(self.addresses) >= KEPT:
                return tuple(self.addresses[:KEPT]), CUT if value[position:].strip(" ,;") else self.defect
        self.flush()
        return tuple(self.addresses), self.defect if position >= length else CUT

    def add(self, text: str) -> None:
        """A piece of a word."""
        words = self.words if self.angle is None else self.trail
        if self.apart or not words or len(words[-1]) > _LONGEST_WORD:
            words.append(text)
        else:
            words[-1] += text
        self.apart = False

    def open_group(self) -> None:
        """The words so far were a group's name, which is nobody's address."""
        if self.angle is not None:
            self.flush()
        self.words.clear()
        self.quoted = False
        self.apart = True

    def flush(self) -> None:
        """An address ends here: take what was gathered."""
        words, trail, angle, comment, quoted = self.words, self.trail, self.angle, self.comment, self.quoted
        self.words, self.trail, self.angle, self.comment, self.quoted, self.apart = [], [], None, "", False, True
        if angle is None:
            self.take_bare(words, comment, quoted)
            return
        stray = _split_bare(trail) if trail else None
        address = _addr_spec(angle)
        name = " ".join(words) or (" ".join(trail) if stray is None else "") or comment
        self.take(name, address)
        if stray is not None:  # a comma was forgotten
            self.take(*stray)
            self.defect = MALFORMED

    def take_bare(self, words: list[str], comment: str, quoted: bool) -> None:
        """An address without brackets, or none at all."""
        if not words:
            return
        found = _split_bare(words)
        if found is not None:
            self.take(found[0] or comment, found[1])
            return
        self.defect = MALFORMED
        phrase = " ".join(words)
        if quoted or len(words) > 1 or "=?" in phrase:
            self.take(phrase, "")
        else:
            self.take(comment, phrase)

    def take(self, name: str, address: str) -> None:
        if name or address:
            self.addresses.append(Address(readable(name).strip(), clean(address)))
        if not _ADDR_SPEC(address):
            self.defect = MALFORMED


def _split_bare(words: list[str]) -> tuple[str, str] | None:
    """(name, address) of ``John Doe john@example.org``, or of ``john @ example . org``, which is obsolete syntax; or
    None."""
    index = next((at for at, word in enumerate(words) if "@" in word and not word.startswith("=?")), -1)
    if index < 0:
        return None
    first = last = index
    address = words[index]
    while first > max(0, index - _STEPS) and (address[0] in ".@" or words[first - 1][-1:] == "."):
        first -= 1
        address = words[first] + address
    while last + 1 < min(len(words), index + _STEPS) and (address[-1] in ".@" or words[last + 1][:1] == "."):
        last += 1
        address += words[last]
    return " ".join(words[:first] + words[last + 1 :]), address


def _addr_spec(angle: str) -> str:
    """What stands in the brackets, without source route, comments, and white space where that is allowed: around dots
    and the at sign (RFC 5322 section 4.4). Any other is left, since an address without it would be invented."""
    if "(" in angle and '"' not in angle:
        angle = _COMMENT.sub("", angle)
    angle = angle.strip()
    if angle.startswith("@") and ":" in angle:
        angle = angle.partition(":")[2]
    return angle if '"' in angle or not _SPACE(angle) else _AROUND.sub(r"\1", angle)


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
