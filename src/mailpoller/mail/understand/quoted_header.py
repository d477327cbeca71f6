"""The header of an earlier mail within a text, as mail programs write it above what they quote or forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from mailpoller.mail.understand.quoting import FIELDS, FORWARDED, LONGEST_FIELD, ORIGINAL, Role

_AROUND = " \t\xa0\u200b\u200e\u200f*_"
_RULED = frozenset("-_=*–— \t\xa0>")
_LONGEST_MARKER = 100
_LEAST_RULE = 5
_LINES = 20
_OTHERS = 6
_NEEDED = 3


class QuotedHeader(NamedTuple):
    """``values``: what its fields say. ``end``: the line behind it."""

    values: dict[Role, str]
    end: int


def field(line: str) -> tuple[dict[str, Role], str] | None:
    """What a field of a quoted header holds in each language that calls one so, and its value; None for any other
    line."""
    head, colon, value = line.partition(":")
    if not colon or len(head) > LONGEST_FIELD + 8:
        head, colon, value = line.partition("：")
        if not colon or len(head) > LONGEST_FIELD + 8:
            return None
    found = FIELDS.get(head.strip(_AROUND).lower())
    return None if found is None else (found, value.strip(_AROUND))


def find_header(lines: Sequence[str], at: int, *, mixed: bool = False) -> QuotedHeader | None:
    """The header that begins in this line: three fields at least as one language calls them, among them who wrote it
    and when; and a subject, or an address, which a person's own ``From: Berlin`` has not. ``mixed``: in several
    languages, as some programs have it below a line that says what follows."""
    if field(lines[at]) is None:
        return None
    found: dict[str, dict[Role, str]] = {}
    end = at
    last: list[tuple[str, Role]] = []
    more: list[str] = []  # lines with which the last field goes on, if there is another one below them
    for index in range(at, min(len(lines), at + _LINES)):
        known = field(lines[index])
        if known is not None:
            for language, role in last if more else ():
                found[language][role] += f" {' '.join(more)}"
            roles, value = known
            if mixed:
                roles = {"": next(iter(roles.values()))}
            last = [(language, role) for language, role in roles.items() if role not in found.get(language, {})]
            for language, role in last:
                found.setdefault(language, {})[role] = value
            more = []
            end = index + 1
        elif lines[index].strip(_AROUND):
            more.append(lines[index].strip())
            if len(more) > _OTHERS:
                break
        elif index + 1 >= len(lines) or field(lines[index + 1]) is None:
            break
    best = max(found.values(), key=len)
    if len(best) < _NEEDED or "from" not in best or "date" not in best:
        return None
    if "subject" not in best and not any("@" in value for value in best.values()):
        return None
    return QuotedHeader(best, end)


def marker(line: str) -> Literal["original", "forwarded", ""]:
    """What a line says that stands alone above an earlier mail."""
    if len(line) > _LONGEST_MARKER:
        return ""
    bare = line.strip("-_=*–— \t\xa0>")
    words = bare.rstrip(":： \xa0").lower()
    if "---" in words:  # in two languages
        words = words.rpartition("---")[2].strip()
    if words in FORWARDED and (len(bare) > len(words) or line.lstrip("*> ").startswith(("--", "__", "=="))):
        return "forwarded"
    if words in ORIGINAL and line.lstrip("*> ").startswith(("-", "_", "=")):
        return "original"
    return ""


def is_rule(line: str) -> bool:
    """A line across the page."""
    return len(line) >= _LEAST_RULE and not line.strip("-_=*–— \t\xa0") and not line.isspace()
