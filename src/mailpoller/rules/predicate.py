"""Conditions made into Python closures, once, so that asking a message costs about a microsecond.

A predicate answers with the words in which it holds (constants, never a piece of the message), and with "" if it
does not. What can be told from the header is asked first, so that a body is parsed only when it decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mailpoller.core.message import Address, Attachment, Message
from mailpoller.rules.condition import AttachmentTest, Condition, SizeTest, TextTest
from mailpoller.rules.pattern import compile_pattern

TEXT_LIMIT = 1_000_000
"""Characters of one text that are looked at; folding and searching them takes milliseconds."""

Probe = Callable[[str], str]
Values = Callable[[Message], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition, compiled.

    ``holds``: the words in which it holds of a message, or "". ``says``: what it asks, in words.
    ``needs_body``: it may look below the header. ``asks_class``: it holds of a message for its class, whatever else.
    ``asks_forced``: it asks for ``force_default_queue``.
    """

    holds: Callable[[Message], str]
    says: str
    needs_body: bool = False
    asks_class: bool = False
    asks_forced: bool = False


def compile_condition(condition: Condition) -> Predicate:
    """The predicate of ``condition``."""
    parts = [_field(f"header {name}", _header(name), test) for name, test in (condition.header or {}).items()]
    parts += [_field(label, values, test) for label, values, test in _texts(condition) if test is not None]
    if condition.body is not None:
        parts.append(_field("body", lambda message: (message.body.text, message.body.html), condition.body, True))
    if condition.size is not None:
        parts.append(_size(condition.size))
    if condition.attachment is not None:
        parts.append(_attachment(condition.attachment))
    if condition.class_ is not None:
        parts.append(_class(condition.class_))
    if condition.force_default_queue is not None:
        parts.append(_forced(condition.force_default_queue))
    if condition.trusted is not None:
        parts.append(_trusted(condition.trusted))
    if condition.departments is not None:
        parts.append(_departments(condition.departments))
    if condition.auto is not None:
        parts.append(_auto(condition.auto))
    if condition.all is not None:
        parts += [compile_condition(inner) for inner in condition.all]
    if condition.any is not None:
        parts.append(_any([compile_condition(inner) for inner in condition.any]))
    if condition.not_ is not None:
        parts.append(_not(compile_condition(condition.not_)))
    return _all(parts)


def _texts(condition: Condition) -> Iterable[tuple[str, Values, TextTest | None]]:
    yield "subject", lambda message: (message.subject,), condition.subject
    yield "from", lambda message: _addresses(message.from_), condition.from_
    yield "to", lambda message: _addresses((*message.to, *message.cc)), condition.to
    yield "cc", lambda message: _addresses(message.cc), condition.cc
    yield "reply_to", lambda message: _addresses(message.reply_to), condition.reply_to
    yield "sender", lambda message: _addresses(message.sender), condition.sender


def _addresses(addresses: tuple[Address, ...]) -> list[str]:
    return [address.address for address in addresses]


def _header(name: str) -> Values:
    wanted, length = name.lower(), len(name)
    return lambda message: [v for field, v in message.headers if len(field) == length and field.lower() == wanted]


def _field(label: str, values: Values, test: TextTest, needs_body: bool = False) -> Predicate:
    probe, says = _probe(test)

    def holds(message: Message) -> str:
        for value in values(message):
            if why := probe(value[:TEXT_LIMIT]):
                return f"{label} {why}"
        return ""

    return Predicate(holds, f"{label} {says}", needs_body)


def _probe(test: TextTest) -> tuple[Probe, str]:
    """What ``test`` says of one text, and in words what it asks."""
    sensitive = test.case == "sensitive"
    parts: list[tuple[Probe, str]] = []
    if test.equals is not None:
        parts.append((_equals(test.equals, sensitive), _or("equals", test.equals)))
    if test.contains is not None:
        parts.append((_contains(test.contains, sensitive), _or("contains", test.contains)))
    if test.matches is not None:
        parts.append((_matches(test.matches, sensitive), _or("matches", test.matches)))
    if len(parts) == 1:
        return parts[0]
    probes = [probe for probe, _ in parts]

    def every(text: str) -> str:
        reasons = []
        for probe in probes:
            if not (why := probe(text)):
                return ""
            reasons.append(why)
        return " and ".join(reasons)

    return every, " and ".join(says for _, says in parts)


def _contains(texts: Sequence[str], sensitive: bool) -> Probe:
    wanted = [(text if sensitive else text.casefold(), f'contains "{text}"') for text in texts]

    def probe(text: str) -> str:
        if not sensitive:
            text = text.casefold()
        for part, why in wanted:
            if part in text:
                return why
        return ""

    return probe


def _equals(texts: Sequence[str], sensitive: bool) -> Probe:
    reasons = {text if sensitive else text.casefold(): f'equals "{text}"' for text in texts}
    return lambda text: reasons.get(text if sensitive else text.casefold(), "")


def _matches(patterns: Sequence[str], sensitive: bool) -> Probe:
    wanted = [(compile_pattern(pattern, sensitive=sensitive), f'matches "{pattern}"') for pattern in patterns]

    def probe(text: str) -> str:
        for search, why in wanted:
            if search(text):
                return why
        return ""

    return probe


def _or(verb: str, texts: Sequence[str]) -> str:
    return f"{verb} " + " or ".join(f'"{text}"' for text in texts)


def _size(test: SizeTest) -> Predicate:
    fits, says = _bounds(test)

    def holds(message: Message) -> str:
        raw = message.raw
        # Of a truncated message the octets at hand are the least that it has.
        size = max(raw.octets.size, raw.announced or 0) if raw.truncated else raw.octets.size
        return says if fits(size) else ""

    return Predicate(holds, says)


def _bounds(test: SizeTest) -> tuple[Callable[[int], bool], str]:
    above = -1 if test.above is None else test.above
    below = float("inf") if test.below is None else test.below
    words = [f"above {test.above}"] if test.above is not None else []
    words += [f"below {test.below}"] if test.below is not None else []
    return lambda size: above < size < below, f"size {' and '.join(words)} octets"


def _attachment(test: AttachmentTest) -> Predicate:
    if test.any is False:
        return Predicate(lambda m: "" if m.body.attachments else "no attachment", "no attachment", needs_body=True)
    probes: list[Callable[[Attachment], str]] = []
    words: list[str] = []
    if test.name is not None:
        by_name, says = _probe(test.name)
        probes.append(lambda attachment: by_name(attachment.name[:TEXT_LIMIT]))
        words.append(f"name {says}")
    if test.type is not None:
        by_type, says = _probe(test.type)
        probes.append(lambda attachment: by_type(attachment.content_type[:TEXT_LIMIT]))
        words.append(f"type {says}")
    if test.size is not None:
        fits, bounds = _bounds(test.size)
        probes.append(lambda attachment: bounds if fits(attachment.size) else "")
        words.append(bounds)
    says = "attachment" + (f" with {', '.join(words)}" if words else "")

    def holds(message: Message) -> str:
        for attachment in message.body.attachments:
            if all(probe(attachment) for probe in probes):
                return says
        return ""

    return Predicate(holds, says, needs_body=True)


def _class(wanted: Sequence[str]) -> Predicate:
    def holds(message: Message) -> str:
        kind = message.classification.kind
        return f"class {kind}" if kind in wanted else ""

    return Predicate(holds, "class " + " or ".join(wanted), asks_class=True)


def _forced(wanted: bool) -> Predicate:
    says = "force_default_queue" if wanted else "no force_default_queue"
    return Predicate(lambda message: says if message.standing.forced is wanted else "", says, asks_forced=True)


def _trusted(wanted: bool) -> Predicate:
    says = "a trusted mailbox" if wanted else "a mailbox that is not trusted"
    return Predicate(lambda message: says if message.standing.trusted is wanted else "", says)


def _departments(wanted: Sequence[str]) -> Predicate:
    def holds(message: Message) -> str:
        return next((f'department "{one}"' for one in message.standing.departments if one in wanted), "")

    return Predicate(holds, "department " + " or ".join(f'"{one}"' for one in wanted))


def _auto(wanted: bool) -> Predicate:
    says = "automatic mail" if wanted else "not automatic mail"
    return Predicate(lambda message: says if (message.auto is not None) is wanted else "", says)


def _all(parts: Sequence[Predicate]) -> Predicate:
    if len(parts) == 1:
        return parts[0]
    asked = [part.holds for part in _cheapest_first(parts)]

    def holds(message: Message) -> str:
        reasons = []
        for ask in asked:
            if not (why := ask(message)):
                return ""
            reasons.append(why)
        return ", ".join(reasons)

    return Predicate(
        holds,
        ", ".join(part.says for part in parts),
        any(part.needs_body for part in parts),
        any(part.asks_class for part in parts),
        any(part.asks_forced for part in parts),
    )


def _any(parts: Sequence[Predicate]) -> Predicate:
    asked = [part.holds for part in _cheapest_first(parts)]

    def holds(message: Message) -> str:
        for ask in asked:
            if why := ask(message):
                return why
        return ""

    return Predicate(
        holds,
        f"({' or '.join(part.says for part in parts)})",
        any(part.needs_body for part in parts),
        all(part.asks_class for part in parts),
        any(part.asks_forced for part in parts),
    )


def _not(part: Predicate) -> Predicate:
    ask, says = part.holds, f"not ({part.says})"
    return Predicate(lambda message: "" if ask(message) else says, says, part.needs_body, asks_forced=part.asks_forced)


def _cheapest_first(parts: Sequence[Predicate]) -> list[Predicate]:
    return sorted(parts, key=lambda part: part.needs_body)
