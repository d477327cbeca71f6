"""From the blocks of a condition to its predicate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from mailpoller.core.message import Address, Message
from mailpoller.core.ports import Rule
from mailpoller.rules import measures
from mailpoller.rules.condition import Condition
from mailpoller.rules.fields import FIELDS
from mailpoller.rules.predicate import Predicate, all_of, any_of, not_
from mailpoller.rules.probes import TEXT_LIMIT, address_probe, text_probe
from mailpoller.rules.texts import AddressTest, TextTest

Values = Callable[[Message], Iterable[str]]

NamedRule = Callable[[str], Rule]
"""The rule of a name. Raises :class:`~mailpoller.core.errors.ConfigError` if it cannot be built."""


def compile_condition(condition: Condition, named: NamedRule) -> Predicate:
    """The predicate of ``condition``; ``named`` finds the rules that it names.

    Raises :class:`~mailpoller.core.errors.ConfigError` if such a rule, or a file, is not to be had."""
    parts = [_field(f"header {name}", _header(name), test) for name, test in (condition.header or {}).items()]
    if condition.subject is not None:
        parts.append(_field("subject", lambda message: (message.subject,), condition.subject))
    parts += [_addressed(label, values, test) for label, values, test in _addresses(condition) if test is not None]
    for path, test in (condition.event or {}).items():
        asked = _field(path, FIELDS[path].texts, test, FIELDS[path].needs_body)
        parts.append(replace(asked, asks_class=path.startswith(("classification.", "bounce."))))
    parts += [_field(f"field {name}", _noted(name), test) for name, test in (condition.fields or {}).items()]
    if condition.body is not None:
        parts.append(_field("body", lambda message: (message.body.text, message.body.html), condition.body, True))
    if condition.size is not None:
        parts.append(measures.size(condition.size))
    if condition.attachment is not None:
        parts.append(measures.attachment(condition.attachment))
    if condition.age is not None:
        parts.append(measures.age(condition.age))
    if condition.received is not None:
        parts.append(measures.received(condition.received))
    parts += _whole(condition)
    if condition.rule is not None:
        parts.append(_rule(named(condition.rule)))
    if condition.all is not None:
        parts += [compile_condition(inner, named) for inner in condition.all]
    if condition.any is not None:
        parts.append(any_of([compile_condition(inner, named) for inner in condition.any]))
    if condition.none is not None:
        parts += [not_(compile_condition(inner, named)) for inner in condition.none]
    if condition.not_ is not None:
        parts.append(not_(compile_condition(condition.not_, named)))
    return all_of(parts)


def _whole(condition: Condition) -> Iterable[Predicate]:
    """What is asked about the message as a whole."""
    if condition.importance is not None:
        yield _important(condition.importance)
    if condition.class_ is not None:
        yield _class(condition.class_)
    if condition.conversation is not None:
        yield _conversation(condition.conversation)
    if condition.force_default_queue is not None:
        yield _forced(condition.force_default_queue)
    if condition.trusted is not None:
        yield _trusted(condition.trusted)
    if condition.departments is not None:
        yield _departments(condition.departments)
    if condition.auto is not None:
        yield _auto(condition.auto)


def _addresses(
    condition: Condition,
) -> Iterable[tuple[str, Callable[[Message], Iterable[Address]], AddressTest | None]]:
    yield "from", lambda message: message.from_, condition.from_
    yield "to", lambda message: (*message.to, *message.cc), condition.to
    yield "cc", lambda message: message.cc, condition.cc
    yield "reply_to", lambda message: message.reply_to, condition.reply_to
    yield "sender", lambda message: message.sender, condition.sender


def _header(name: str) -> Values:
    wanted, length = name.lower(), len(name)
    return lambda message: [v for field, v in message.headers if len(field) == length and field.lower() == wanted]


def _noted(name: str) -> Values:
    def texts(message: Message) -> Iterable[str]:
        value = message.fields.get(name)
        if value is None:
            return ()
        if isinstance(value, tuple):
            return value
        return (str(value).lower() if isinstance(value, bool) else str(value),)

    return texts


def _field(label: str, values: Values, test: TextTest, needs_body: bool = False) -> Predicate:
    if test.exists is False:
        return Predicate(lambda m: "" if any(values(m)) else f"no {label}", f"no {label}", needs_body)
    probe, says = text_probe(test)

    def holds(message: Message) -> str:
        for value in values(message):
            if why := probe(value[:TEXT_LIMIT]):
                return f"{label} {why}"
        return ""

    return Predicate(holds, f"{label} {says}", needs_body)


def _addressed(label: str, values: Callable[[Message], Iterable[Address]], test: AddressTest) -> Predicate:
    if test.exists is False:
        return Predicate(lambda m: "" if any(one.address for one in values(m)) else f"no {label}", f"no {label}")
    probe, says = address_probe(test)

    def holds(message: Message) -> str:
        for address in values(message):
            if why := probe(address):
                return f"{label} {why}"
        return ""

    return Predicate(holds, f"{label} {says}")


def _important(wanted: str) -> Predicate:
    says = f"importance {wanted}"
    return Predicate(lambda message: says if importance(message) == wanted else "", says)


_PRIORITIES = {"1": "high", "2": "high", "urgent": "high", "high": "high", "3": "normal", "normal": "normal"}
_PRIORITIES |= {"4": "low", "5": "low", "low": "low", "non-urgent": "low"}


def importance(message: Message) -> str:
    """What the sender says of it: Importance and Priority of RFC 2156 section 5.3, and what came before them."""
    for name in ("Importance", "X-Priority", "Priority", "X-MSMail-Priority"):
        for value in message.header(name):
            words = value[:100].lower().split()
            if words and (found := _PRIORITIES.get(words[0])) is not None:
                return found
    return "normal"


def _conversation(wanted: bool) -> Predicate:
    says = "a conversation" if wanted else "no conversation"
    return Predicate(lambda message: says if (message.conversation is not None) is wanted else "", says)


def _rule(rule: Rule) -> Predicate:
    def holds(message: Message) -> str:
        match = rule.judge(message)
        return "" if match is None else f"rule {rule.name} ({match.why})" if match.why else f"rule {rule.name}"

    return Predicate(
        holds,
        f"rule {rule.name}",
        needs_body=getattr(rule, "needs_body", True),
        asks_class=getattr(rule, "asks_class", False),
        asks_forced=getattr(rule, "asks_forced", False),
    )


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
