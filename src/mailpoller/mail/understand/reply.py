"""What of a text is the reply, what it quotes, and what is signature: by line, in one pass.

Whoever answers leaves what he answers below his words, above them, or between them. Only where it is certain which
of it is his own is anything taken away from the reply; what is between quotes stays with them.
"""

from __future__ import annotations

import re
from itertools import accumulate

from mailpoller.core.said import Said, Span
from mailpoller.mail.understand.quoted_header import field, find_header, is_rule, marker
from mailpoller.mail.understand.quoting import DEVICES, OPENINGS, SENT_FROM, WROTE

LINES = 10_000
CONSIDERED = 1_000_000
"""Lines and characters of a text that is looked at; of a longer one all is the reply."""

_AROUND = " \t\xa0*\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_WHEN = re.compile(r"(?:19|20)\d\d|\d{1,2}[:.h]\d\d")
_ATTRIBUTIONS = 200
_LONGEST_ATTRIBUTION = 300
_LINES_OF_AN_ATTRIBUTION = 3
_SIGNATURE_LINES = 15
_LONGEST_SENT_FROM = 120
_WRAPPED = 60
_HEADERS = 200
_FEW = 6
_FOOTER = "_" * 20

Lines = tuple[int, int]
"""The first line, and the one behind the last."""


def split(text: str) -> Said:
    """The reply, the quotes and the signature of a text whose lines end with line feeds. Never raises."""
    if not _may_be_quoted(text):  # most mail that begins something
        end = len(text.rstrip())
        if not end:
            return Said((0, 0))
        last = text.rfind("\n", 0, end) + 1
        if end - last > _LONGEST_SENT_FROM or not last or not _is_sent_from(text[last:end]):
            return Said((end - len(text[:end].lstrip()), end))
    elif len(text) > CONSIDERED or text.count("\n") >= LINES:
        return Said(_trimmed(text, 0, len(text)) or (0, 0), cut=True)
    return _Lines(text).split()


def _may_be_quoted(text: str) -> bool:
    """A few searches that tell for most text that there is nothing to be found line by line; for one character first,
    which is ten times as fast."""
    return (
        (">" in text and "\n>" in text)
        or ("-" in text and "\n--" in text)
        or ("_" in text and "\n__" in text)
        or text.startswith((">", "--", "__"))
        or (
            ":" in text
            and (
                ":\n" in text
                or ": \n" in text
                or ":*\n" in text
                or text.count(": ") + text.count(":\t") + text.count(":*") > 2
            )
        )
        or ("：" in text and ("：\n" in text or text.count("：") > 2))
    )


def _trimmed(text: str, start: int, end: int) -> Span | None:
    """The piece without the white space around it; None if it is nothing else."""
    piece = text[start:end]
    if not (bare := piece.strip()):
        return None
    start += len(piece) - len(piece.lstrip())
    return start, start + len(bare)


def _is_sent_from(line: str) -> bool:
    """A line that a telephone or a program puts under every mail."""
    folded = line.strip(" \t\xa0*_-—<>[]()").lower()
    return (
        len(folded) <= _LONGEST_SENT_FROM and folded.startswith(SENT_FROM) and any(word in folded for word in DEVICES)
    )


class _Lines:
    """A text by its lines. ``starts``: where each begins, and the end of all; ``quoted``: those that somebody else
    wrote, or that say so; ``count``: how many there are."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = lines = text.split("\n")
        self.count = len(lines)
        self.starts = [0, *accumulate(len(line) + 1 for line in lines)]
        self.starts[-1] = len(text)
        self.quoted = [line.lstrip().startswith(">") for line in lines]
        for index in range(1, self.count - 1):  # what a program broke in two that was quoted by another one
            if (
                self.quoted[index - 1]
                and self.quoted[index + 1]
                and not self.quoted[index]
                and len(lines[index - 1]) >= _WRAPPED
                and lines[index].strip()
            ):
                self.quoted[index] = True
        self.tried = 0

    def split(self) -> Said:
        cut, forward = self.earlier()
        pieces = self.pieces(cut)
        reply, quoted, signature = (None if piece is None else self.span(*piece) for piece in pieces)
        earlier = self.starts[cut] if cut < self.count else None
        if reply is None:
            reply, quoted, signature = self.span(0, self.count) or (0, 0), None, None
        return Said(reply, quoted, signature, earlier, forward)

    def pieces(self, cut: int) -> tuple[Lines, Lines | None, Lines | None]:
        """The lines of the reply, the quotes and the signature, where an earlier mail begins at ``cut``."""
        below = (cut, self.count)
        marks = [index for index in range(cut) if self.quoted[index]]
        if not marks:
            end = self.signature(0, cut)
            return (0, end), below, (end, cut)
        first, last = marks[0], marks[-1] + 1
        end = self.signature(last, cut)
        before, after = self.own(0, first), self.own(last, end)
        if self.own(first, last) or (before and after) or (after and cut < self.count):
            return (0, end), below, (end, cut)
        if after:
            return (last, end), (0, last), (end, cut)
        if not before:
            return (0, 0), None, None
        signed = self.signature(0, first)
        if signed < first or cut < self.count:
            return (0, signed), (first, self.count), (signed, first)
        return (0, first), (first, end), (end, cut)

    def span(self, first: int, end: int) -> Span | None:
        """Where lines are, without the white space around them; None if there is nothing else."""
        return _trimmed(self.text, self.starts[first], self.starts[end]) if first < end else None

    def own(self, first: int, end: int) -> bool:
        """True if somebody wrote something here himself."""
        return any(not self.quoted[index] and self.lines[index].strip() for index in range(first, end))

    # --- signatures ---------------------------------------------------------------------------------------------------
    def signature(self, first: int, end: int) -> int:
        """The line with which the signature begins that ends these lines; ``end`` without one."""
        begins = end
        for index in range(end - 1, max(first, end - _SIGNATURE_LINES) - 1, -1):
            line = self.lines[index]
            if line == "-- " or (line.startswith(("--", "__")) and self.separates(index, first, end)):
                begins = index
        while (last := self.last(first, begins)) is not None and _is_sent_from(self.lines[last]):
            begins = last
        return begins if first > 0 or self.own(0, begins) else end

    def separates(self, index: int, first: int, end: int) -> bool:
        """A line that is not quite the one of RFC 3676 section 4.3, but stands above what may well be a signature, or
        what a list adds: of people's own words some are between such lines."""
        line = self.lines[index].rstrip()
        below = [line for line in self.lines[index + 1 : end] if line.strip()]
        if line == "--":
            return len(below) <= _FEW
        return line.startswith(_FOOTER) and (
            (first > 0 and len(below) <= 2 * _FEW)
            or (len(below) <= _FEW and any("://" in line or "@" in line for line in below))
        )

    def last(self, first: int, end: int) -> int | None:
        """The last line that is not empty."""
        return next((index for index in range(end - 1, first - 1, -1) if self.lines[index].strip()), None)

    # --- earlier mails ------------------------------------------------------------------------------------------------
    def earlier(self) -> tuple[int, bool]:
        """The line in which an earlier mail begins that stands below as a whole, and whether it is called forwarded.
        Lines that introduce marked quotes are marked like these."""
        headers = 0
        for index, line in enumerate(self.lines):
            if self.quoted[index]:
                if (not index or not self.quoted[index - 1]) and (found := marker(line.lstrip("> "))):
                    return index, found == "forwarded"
                continue
            if not (bare := line.strip(_AROUND)):
                continue
            ends = bare[-1] in ":："
            if (ends or bare[0] in "-_=" or line[0] == "*") and (found := marker(bare)):
                return self.above(index), found == "forwarded"
            if ends:
                if (begins := self.attribution(index)) >= 0:
                    return begins, False
            elif index + 1 < self.count and self.quoted[index + 1] and self.introduces(index):
                self.quoted[index] = True
            if headers < _HEADERS and field(line) is not None:
                headers += 1
                if find_header(self.lines, index) is not None:
                    return self.above(index), False
        return self.count, False

    def above(self, index: int) -> int:
        """A line across the page belongs to what it stands above."""
        above = self.last(max(index - 3, 0), index)
        return above if above is not None and not self.quoted[above] and is_rule(self.lines[above]) else index

    def attribution(self, index: int) -> int:
        """A line that ends with a colon: if it tells who wrote what follows, mark it, and those of which it is the
        end. Where an earlier mail follows without marks: the line in which that begins, else -1."""
        below = next((line for line in range(index + 1, min(index + 4, self.count)) if self.lines[line].strip()), index)
        marked = self.quoted[below]
        if self.tried >= _ATTRIBUTIONS and not marked:
            return -1
        self.tried += 1
        known = -1
        for lines in range(_LINES_OF_AN_ATTRIBUTION):
            begins = index - lines
            if begins < 0 or self.quoted[begins] or not self.lines[begins].strip():
                break
            text = " ".join(self.lines[begins : index + 1])
            if len(text) > _LONGEST_ATTRIBUTION:
                break
            if _tells(text, marked=marked):
                known = begins if known < 0 else known
                if text.lstrip(_AROUND).lower().startswith(OPENINGS):
                    known = begins
                    break
        if known < 0 or not marked:
            return known
        for line in range(known, index + 1):
            self.quoted[line] = True
        return -1

    def introduces(self, index: int) -> bool:
        """A line right above marked quotes that ends without a colon."""
        line = self.lines[index]
        return len(line) <= _LONGEST_ATTRIBUTION and "@" in line and _WHEN.search(line) is not None


def _tells(text: str, *, marked: bool) -> bool:
    """True for what says who wrote something when: the less sure, the more it has to say."""
    folded = text.lower()
    wrote = any(word in folded for word in WROTE)
    if marked and wrote:
        return True
    named = text.rstrip(_AROUND + ":：").endswith((">", "]"))
    if "@" not in text or not (_WHEN.search(text) is not None or (marked and named)):
        return False
    return marked or wrote or named
