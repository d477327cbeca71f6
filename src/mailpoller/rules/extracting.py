"""``extract:`` made into functions: linear in the text, and bounded in what they look at and what they give."""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date

from mailpoller.core.formfields import Fields, Value
from mailpoller.core.message import Message
from mailpoller.mail.understand.conversation import compile_capturing
from mailpoller.rules.extraction import Extract, FieldType

LOOKED_AT = 200_000
"""Characters of one source."""
LONGEST_VALUE = 32_768
"""Characters of one value."""
MOST_ITEMS = 1000
"""Texts of a list."""

Found = Iterator[tuple[str, str]]
"""Field and value, as they come."""

_PLAIN = re.compile(r"[^\S\n\t]+|[^\x20-\uffff\U00010000-\U0010ffff\n\t]|[\x7f-\x9f]")
_TRUTHS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
_GERMAN_DATE = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})")


def compile_extracts(extracts: Sequence[Extract]) -> Callable[[Message], Fields]:
    """What takes the fields out of a message; of several that find the same field the first counts. Never raises."""
    made = [(_source(one), _finder(one), _types(one)) for one in extracts]

    def take(message: Message) -> Fields:
        fields: dict[str, Value] = {}
        for source, find, types in made:
            values: dict[str, list[str]] = {}
            for text in source(message):
                for field, value in find(text[:LOOKED_AT]):
                    known = values.setdefault(field, [])
                    if not known or (types.get(field) == "list" and len(known) < MOST_ITEMS):
                        known.append(value[:LONGEST_VALUE])
            for field, known in values.items():
                if field not in fields:
                    fields[field] = typed(known, types.get(field, "text"))
        return fields

    return take


def needs_body(extract: Extract) -> bool:
    """True if it looks below the header."""
    return extract.header is None and extract.source != "subject"


def _source(extract: Extract) -> Callable[[Message], Iterable[str]]:
    if (name := extract.header) is not None:
        return lambda message: message.header(name)
    if extract.source == "subject":
        return lambda message: (message.subject,)
    if extract.source == "html":
        return lambda message: (message.body.html,)
    return lambda message: (message.body.text,)


def _types(extract: Extract) -> dict[str, FieldType]:
    return dict(extract.types or {}) | {field: wanted.type for field, wanted in extract.wanted.items()}


def _finder(extract: Extract) -> Callable[[str], Found]:
    names = {_key(wanted.name): field for field, wanted in extract.wanted.items()}
    if extract.tags is not None:
        return _tags({wanted.name.lower(): field for field, wanted in extract.wanted.items()})
    if extract.pattern is not None:
        return _groups(extract.pattern)
    if extract.pairs is not None:
        return _pairs(names, extract.separator or "=", extract.delimiter or ";")
    return _lines(names, extract.separator or ":", extract.multiline)


def _key(name: str) -> str:
    return " ".join(name.casefold().split())


def _lines(names: dict[str, str], separator: str, multiline: bool) -> Callable[[str], Found]:
    longest = max(map(len, names)) + 100

    def find(text: str) -> Found:
        field, value = "", [""]
        for line in text.splitlines():
            name, found, rest = line.partition(separator)
            at = names.get(_key(html.unescape(name))) if found and len(name) <= longest else None
            if at is not None:
                if field:
                    yield field, html.unescape("\n".join(value))
                field, value = at, [rest]
            elif multiline and field:
                value.append(line)
        if field:
            yield field, html.unescape("\n".join(value))

    return find


def _pairs(names: dict[str, str], separator: str, delimiter: str) -> Callable[[str], Found]:
    def find(text: str) -> Found:
        for pair in text.split(delimiter):
            name, found, value = pair.partition(separator)
            if found and len(name) <= 1000 and (field := names.get(_key(name))) is not None:
                yield field, value

    return find


def _tags(names: dict[str, str]) -> Callable[[str], Found]:
    # The longest first: a name may begin with another one.
    either = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    opening = re.compile(rf"<({either})(?=[\s>])[^<>]{{0,500}}>")
    closing = re.compile(rf"</({either})\s{{0,100}}>")

    def find(text: str) -> Found:
        folded = text.lower()
        if len(folded) != len(text):  # a letter whose small form is two: places would be wrong
            folded = text
        closed: dict[str, list[int]] = {}
        for close in closing.finditer(folded):
            closed.setdefault(close[1], []).append(close.start())
        at = 0
        while (opened := opening.search(folded, at)) is not None:
            at = opened.end()
            ends = closed.get(opened[1], [])
            if (place := bisect_left(ends, at)) < len(ends):
                yield names[opened[1]], html.unescape(text[at : ends[place]][: 2 * LONGEST_VALUE])
                at = ends[place]

    return find


def _groups(pattern: str) -> Callable[[str], Found]:
    compiled = compile_capturing(pattern)

    def find(text: str) -> Found:
        if (match := compiled.search(text)) is not None:
            yield from ((field, value) for field, value in match.groupdict().items() if value is not None)

    return find


def typed(values: Sequence[str], wanted: FieldType) -> Value:
    """The first of ``values`` as what is wanted, or None if it is none; for a list all of them."""
    if wanted == "list":
        parts = (part for value in values for part in re.split(r"[,;\n]", _cleaned(value)))
        return tuple(part.strip() for part in parts if part.strip())[:MOST_ITEMS]
    value = _cleaned(values[0])
    if wanted == "integer":
        return int(value) if re.fullmatch(r"[+-]?[0-9]{1,15}", value) else None
    if wanted == "number":
        return float(value) if re.fullmatch(r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?", value) else None
    if wanted == "boolean":
        return _TRUTHS.get(value.lower())
    return _date(value) if wanted == "date" else value


def _date(value: str) -> str | None:
    """In ISO 8601. Where day and month could be meant either way, nobody guesses."""
    try:
        if (german := _GERMAN_DATE.fullmatch(value)) is not None:
            return date(int(german[3]), int(german[2]), int(german[1])).isoformat()
        return date.fromisoformat(value).isoformat() if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else None
    except ValueError:
        return None


def _cleaned(value: str) -> str:
    """Line feeds as line ends, no other control characters, nothing around it."""
    value = value.replace("\r\n", "\n").replace("\r", "\n")
    return _PLAIN.sub(lambda found: " " if found[0].isspace() else "\N{REPLACEMENT CHARACTER}", value).strip()
