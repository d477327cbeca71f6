"""The rule type ``match``: conditions over one message, and what follows when they hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema, field_validator, model_validator

from mailpoller.core.attributes import Priority
from mailpoller.core.classification import MailClass
from mailpoller.core.component import Block, Finding, Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.formfields import FieldName
from mailpoller.core.literals import MailAddresses, OutgoingName, QueueName
from mailpoller.core.message import Message
from mailpoller.core.ports import Rule
from mailpoller.core.rule_config import Destination, RuleConfig
from mailpoller.core.source_config import SourceConfig
from mailpoller.core.verdict import Effect, Match
from mailpoller.mail.understand.conversation import compile_capturing
from mailpoller.rules.compiling import compile_condition
from mailpoller.rules.condition import MAX_DEPTH, Condition
from mailpoller.rules.extracting import compile_extracts, needs_body
from mailpoller.rules.extraction import Extract
from mailpoller.rules.implication import atoms, contradiction, covers
from mailpoller.rules.predicate import Predicate

QUARANTINED_BY_RULE = "rule"
"""The reason of a message that a rule quarantines without saying why."""

_REASON = r"[a-z0-9]+(-[a-z0-9]+)*"


def _reason(written: object) -> str | None:
    if written is None or isinstance(written, bool):
        return QUARANTINED_BY_RULE if written else None
    if not isinstance(written, str) or len(written) > 40 or not re.fullmatch(_REASON, written):
        raise ValueError("quarantine is true, or a reason in one word of small letters, digits and hyphens")
    return written


_REASON_SCHEMA = {"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": f"^{_REASON}$", "maxLength": 40}]}


def _one_or_more(written: object) -> object:
    return [written] if isinstance(written, str) else written


def _a_list(written: object) -> object:
    return [written] if isinstance(written, Mapping) else written


def _one_or_more_schema(what: str) -> WithJsonSchema:
    text = {"type": "string", "minLength": 1}
    return WithJsonSchema({"description": what, "anyOf": [text, {"type": "array", "items": text, "minItems": 1}]})


Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _addressed(written: object) -> object:
    return {"to": written} if isinstance(written, str | list) else written


class Onward(Block):
    """Where a rule sends mail on to. Nothing in a mail has any influence on it."""

    to: Annotated[MailAddresses, Field(max_length=10)]
    """The address, or a list of them."""
    outgoing: OutgoingName | None = None
    """The outgoing that it leaves by. Without it: the only one there is, or the one that says ``default: true``."""

    def destination(self, key: str) -> Destination:
        """The queue that brings it there."""
        by = f"/{self.outgoing}" if self.outgoing else ""
        block: dict[str, Any] = {"type": key, "to": self.to} | ({"outgoing": self.outgoing} if self.outgoing else {})
        return Destination(f"{key}:{','.join(self.to)}{by}", ("then", key), key, block)


_Onward = Annotated[Onward, BeforeValidator(_addressed)]


class Consequence(Block):
    """What follows when a rule's condition holds: at least one of these.

    Later rules add queues and tags, and overrule topic and priority. ``quarantine`` and ``discard`` end the judging,
    so nothing else stands beside them.
    """

    topic: Text | None = None
    """The topic that the event bears."""
    queue: Annotated[
        list[QueueName], Field(min_length=1), BeforeValidator(_one_or_more), _one_or_more_schema("queue or queues")
    ] | None = None  # fmt: skip
    """The queue, or queues, that get the message."""
    priority: Priority | None = None
    """low, normal or high."""
    tags: Annotated[
        list[Text], Field(min_length=1), BeforeValidator(_one_or_more), _one_or_more_schema("tag or tags")
    ] | None = None  # fmt: skip
    """Words that the event bears."""
    set_: dict[FieldName, str | bool | int | float | list[str]] | None = Field(default=None, alias="set", min_length=1)
    """Fields of the event and their values: texts, numbers, true, false, or lists of texts."""
    extract: Annotated[list[Extract], Field(min_length=1, max_length=50), BeforeValidator(_a_list)] | None = None
    """Fields of the event that are taken out of the mail: a block, or a list of them."""
    class_: MailClass | None = Field(default=None, alias="class")
    """The class that the message is to be of, for later rules, the mailbox's policies and the event."""
    redirect: _Onward | None = None
    """Send the message on as it is, to this address or list of them, or to ``{to: ADDRESS, outgoing: NAME}``; it
    goes to ``default_queue`` no more. Automatic mail stays, unless the condition asks for the class."""
    forward: _Onward | None = None
    """Send a note there with the message attached, beside the queues that get it. The same holds of automatic mail."""
    quarantine: Annotated[str | None, BeforeValidator(_reason), WithJsonSchema(_REASON_SCHEMA)] = None
    """Put the message in quarantine: true, or the reason in one word of small letters, digits and hyphens."""
    discard: bool = False
    """Deliver the message nowhere; the ledger remembers it."""
    stop: bool = False
    """Ask no further rule."""

    @field_validator("set_")
    @classmethod
    def _in_json(cls, fields: dict[str, Any] | None) -> dict[str, Any] | None:
        if any(isinstance(value, int | float) and not abs(value) <= 2**53 for value in (fields or {}).values()):
            raise ValueError("a number of this size would not be read alike everywhere; put it in quotes")
        return fields

    @field_validator("queue")
    @classmethod
    def _once_each(cls, queues: list[str] | None) -> list[str] | None:
        if queues is not None and len(set(queues)) < len(queues):
            raise ValueError("a queue is named twice")
        return queues

    @model_validator(mode="after")
    def _possible(self) -> Self:
        keys = ("topic", "queue", "priority", "tags", "set_", "extract", "class_", "redirect", "forward")
        routes = [key.rstrip("_") for key in keys if getattr(self, key) is not None]
        if self.quarantine and self.discard:
            raise ValueError("a message cannot be both quarantined and discarded")
        if routes and (self.quarantine or self.discard):
            ending = "quarantine" if self.quarantine else "discard"
            raise ValueError(f"{ending} ends the judging: {', '.join(routes)} beside it would have no effect")
        if not (routes or self.quarantine or self.discard or self.stop):
            raise ValueError(
                "nothing follows: name a topic, queue, priority, tags, set, extract, class, redirect, forward, "
                "quarantine, discard or stop"
            )
        return self

    def fields(self) -> set[str]:
        """The fields of the event that may be there afterwards."""
        found = set(self.set_ or ())
        for one in self.extract or ():
            found.update(one.wanted if one.pattern is None else compile_capturing(one.pattern).groupindex)
        return found

    def destinations(self) -> Mapping[str, Destination]:
        """Key -> where it sends mail on to."""
        written = {"redirect": self.redirect, "forward": self.forward}
        return {key: one.destination(key) for key, one in written.items() if one is not None}

    def effect(self, *, by_class: bool = False) -> Effect:
        """The same as the engine's pipeline reads it. ``by_class``: the condition asks for the class."""
        set_ = self.set_ or {}
        onward = {key: (one.name,) for key, one in self.destinations().items()}
        return Effect(
            topic=self.topic,
            queues=tuple(self.queue or ()),
            priority=self.priority,
            tags=tuple(dict.fromkeys(self.tags or ())),
            quarantine=self.quarantine,
            discard=self.discard,
            stop=self.stop,
            kind=self.class_,
            by_class=by_class,
            fields={field: tuple(value) if isinstance(value, list) else value for field, value in set_.items()},
            redirect=onward.get("redirect", ()),
            forward=onward.get("forward", ()),
        )


class MatchConfig(RuleConfig):
    """Ask about header, body, size, attachments, time and class; set topic, queue, priority, tags and
    fields, quarantine, discard or stop."""

    type: Literal["match"] = "match"
    when: Condition
    """What must hold of the message."""
    then: Consequence
    """What follows when it holds."""

    @field_validator("when")
    @classmethod
    def _not_too_deep(cls, when: Condition) -> Condition:
        if when.depth() > MAX_DEPTH:
            raise ValueError(f"all, any, none and not are nested deeper than {MAX_DEPTH}")
        return when

    def findings(self) -> Iterable[Finding]:
        """A condition that can never hold."""
        yield from super().findings()
        if why := contradiction(self.when):
            yield Finding("when", f"this can never hold: {why}")

    @property
    def ends_judging(self) -> bool:
        return bool(self.then.quarantine or self.then.discard or self.then.stop)

    @property
    def asks_forced(self) -> bool | None:
        return _asks_forced(self.when)

    @property
    def makes_fields(self) -> set[str]:
        return self.then.fields()

    @property
    def destinations(self) -> Sequence[Destination]:
        return tuple(self.then.destinations().values())

    def covers(self, other: RuleConfig) -> bool:
        return isinstance(other, MatchConfig) and covers(self.when, other.when)

    def unmet(self, mailboxes: Sequence[SourceConfig], fields: Collection[str]) -> str:
        for key, value in atoms(self.when):
            kind, _, name = key.partition(":")
            if kind == "departments" and not any(set(value) & set(one.departments) for one in mailboxes):
                return f"no mailbox that asks this rule serves the department {' or '.join(value)}"
            if kind == "trusted" and not any(one.trusted is value for one in mailboxes):
                return f"every mailbox that asks this rule is {'not ' if value else ''}trusted"
            if kind == "force_default_queue" and not any(one.force_default_queue is value for one in mailboxes):
                return f"force_default_queue is {'not ' if value else ''}set in every mailbox that asks this rule"
            if kind == "fields" and name not in fields and value.exists is not False:
                return f"no rule before it sets the field {name}"
        return ""

    def build(self, name: str, runtime: Runtime) -> MatchRule:
        """The rule, its patterns compiled. Raises :class:`ConfigError` if a file or a rule that it names is not to be
        had."""
        predicate = compile_condition(self.when, partial(_named, runtime.rules))
        return MatchRule(name, predicate, self.then.effect(by_class=predicate.asks_class), self.then.extract or ())


def _asks_forced(when: Condition) -> bool | None:
    if when.force_default_queue is not None:
        return True
    answers = {_asks_forced(inner) for inner in when.inner()} | ({None} if when.rule is not None else set())
    return True if True in answers else None if None in answers else False


def _named(rules: Mapping[str, Rule], name: str) -> Rule:
    try:
        return rules[name]
    except KeyError:
        raise ConfigError(f"no rule is called {name}") from None


class MatchRule:
    """A predicate and its effect. ``needs_body``: it may look below the header, so the body is worth parsing early.
    ``asks_class``: it holds of a message for its class. ``asks_forced``: it is asked where ``force_default_queue``
    skips the others."""

    __slots__ = ("_effect", "_holds", "_take", "asks_class", "asks_forced", "name", "needs_body")

    def __init__(self, name: str, predicate: Predicate, effect: Effect, extracts: Sequence[Extract] = ()) -> None:
        self.name = name
        self.needs_body = predicate.needs_body or any(map(needs_body, extracts))
        self.asks_class = predicate.asks_class
        self.asks_forced = predicate.asks_forced
        self._holds = predicate.holds
        self._effect = effect
        self._take = compile_extracts(extracts) if extracts else None

    def judge(self, message: Message) -> Match | None:
        """The match with its reason in words, none of them from the message; None if the condition does not hold."""
        why = self._holds(message)
        if not why:
            return None
        if self._take is None:
            return Match(self._effect, why)
        return Match(replace(self._effect, fields={**self._take(message), **self._effect.fields}), why)
