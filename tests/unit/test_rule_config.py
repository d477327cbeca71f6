"""The rule type match: which YAML it takes, and what it says of the rest."""

from __future__ import annotations

import json

import pytest
import yaml
from pydantic import ValidationError

from mailpoller.core.verdict import Effect
from mailpoller.rules.match import MatchConfig


def load(text: str) -> MatchConfig:
    return MatchConfig.model_validate(yaml.safe_load(text))


def problems(text: str) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        load(text)
    return [
        (".".join(str(part) for part in error["loc"]), error["msg"].removeprefix("Value error, "))
        for error in caught.value.errors()
    ]


def test_rule_of_the_first_page_loads_as_written() -> None:
    config = load("""
        name: invoices
        when: {subject: {contains: [invoice, Rechnung]}}
        then: {topic: billing, queue: billing}
    """)

    assert config.type == "match"
    assert config.then.effect() == Effect(topic="billing", queues=("billing",))


@pytest.mark.parametrize(
    ("then", "effect"),
    [
        ("{queue: [a, b], tags: [x, y, x]}", Effect(queues=("a", "b"), tags=("x", "y"))),
        ("{tags: urgent, priority: high, stop: true}", Effect(tags=("urgent",), priority="high", stop=True)),
        ("{quarantine: true}", Effect(quarantine="rule")),
        ("{quarantine: suspicious-attachment}", Effect(quarantine="suspicious-attachment")),
        ("{discard: true}", Effect(discard=True)),
        ("{stop: true, quarantine: false}", Effect(stop=True)),
    ],
)
def test_consequence_becomes_its_effect(then: str, effect: Effect) -> None:
    assert load(f"{{name: r, when: {{subject: x}}, then: {then}}}").then.effect() == effect


DEEP = "{not: " * 8 + "{subject: x}" + "}" * 8


@pytest.mark.parametrize(
    ("when", "where", "said"),
    [
        ("{}", "when", "no condition: this would hold of every message"),
        ("{subject: ''}", "when.subject.contains", "an empty text is in every text; write what is looked for"),
        ("{subject: []}", "when.subject", "a text or a list of texts is wanted; a number, yes or no is quoted"),
        ("{subject: 2024}", "when.subject", "a text or a list of texts is wanted; a number, yes or no is quoted"),
        ("{subject: {equals: [a, 5]}}", "when.subject.equals",
         "a text or a list of texts is wanted; a number, yes or no is quoted"),
        ("{subject: {case: sensitive}}", "when.subject", "a test is contains, equals, matches, words, list or exists"),
        ("{subject: {matches: 'a('}}", "when.subject", "RE2 does not take this pattern: missing ): a("),
        ("{body: {matches: ['ok', '(?=a)']}}", "when.body",
         "RE2 does not take this pattern: invalid perl operator: (?="),
        ("{header: {'Subject:': x}}", "when.header", "the name of a header field is ASCII without colon and space"),
        ("{size: {}}", "when.size", "a size test is above or below, or both"),
        ("{size: {above: 5MB, below: 1MB}}", "when.size", "no size is above the one and below the other"),
        ("{size: {below: 0}}", "when.size", "no size is above the one and below the other"),
        ("{size: {above: 5 apples}}", "when.size.above",
         "a size is written with its unit: 512KiB, 10MB, 1GB (KB is 1000 octets, KiB 1024)"),
        ("{attachment: {}}", "when.attachment",
         "an attachment test is any, name, type, detected_type, macros, encrypted, nested, size or count"),
        ("{attachment: {any: false, name: x}}", "when.attachment",
         "a message without attachments has none with a name, type or size"),
        ("{subject: {exists: false, contains: x}}", "when.subject", "what does not exist passes no other test"),
        ("{subject: {words: ['...']}}", "when.subject",
         "a phrase is 1 to 20 words of letters and digits; contains finds any text"),
        ("{from: {domain: '*.example.com'}}", "when.from.domain",
         "a domain is written as example.com, and stands for all below it, too"),
        ("{subject: {domain: example.com}}", "when.subject.domain", "Extra inputs are not permitted"),
        ("{attachment: {count: {}}}", "when.attachment.count",
         "a number's test is above or below, or both; or the number itself"),
        ("{age: {above: 2d, below: 1d}}", "when.age", "no age is above the one and below the other"),
        ("{received: {zone: Europe/Berlin}}", "when.received",
         "a test of the time is days, hours, dates, since or until"),
        ("{received: {zone: Mars/Base, days: mon}}", "when.received.zone",
         "no such zone is known on this machine: Europe/Berlin, or UTC, is one"),
        ("{received: {hours: 8-17}}", "when.received.hours.0",
         "hours are written 08:00-17:30; 22:00-06:00 goes over midnight"),
        ("{received: {since: 2026-02-01, until: 2026-01-01}}", "when.received", "until lies before since"),
        ("{event: {authentication.dmrc: fail}}", "when.event",
         "rules cannot ask the event for authentication.dmrc; docs/rules.md lists its fields"),
        ("{any: [{}]}", "when.any.0", "no condition: this would hold of every message"),
        (DEEP, "when", "all, any, none and not are nested deeper than 8"),
    ],
)  # fmt: skip
def test_wrong_condition_is_named(when: str, where: str, said: str) -> None:
    assert problems(f"{{name: r, when: {when}, then: {{stop: true}}}}") == [(where, said)]


@pytest.mark.parametrize(
    "when", ["{all: []}", "{any: []}", "{header: {}}", "{subjects: x}", "{not: [{subject: x}]}", "{auto: sometimes}"]
)
def test_what_is_not_a_condition_is_refused(when: str) -> None:
    assert len(problems(f"{{name: r, when: {when}, then: {{stop: true}}}}")) == 1


@pytest.mark.parametrize(
    ("then", "where", "said"),
    [
        ("{}", "then",
         "nothing follows: name a topic, queue, priority, tags, set, extract, class, redirect, forward, "
         "quarantine, discard or stop"),
        ("{stop: false}", "then",
         "nothing follows: name a topic, queue, priority, tags, set, extract, class, redirect, forward, "
         "quarantine, discard or stop"),
        ("{quarantine: true, discard: true}", "then", "a message cannot be both quarantined and discarded"),
        ("{quarantine: true, queue: a, tags: b}", "then",
         "quarantine ends the judging: queue, tags beside it would have no effect"),
        ("{discard: true, topic: a}", "then", "discard ends the judging: topic beside it would have no effect"),
        ("{queue: [a, a]}", "then.queue", "a queue is named twice"),
        ("{quarantine: Too Many Words}", "then.quarantine",
         "quarantine is true, or a reason in one word of small letters, digits and hyphens"),
    ],
)  # fmt: skip
def test_wrong_consequence_is_named(then: str, where: str, said: str) -> None:
    assert problems(f"{{name: r, when: {{subject: x}}, then: {then}}}") == [(where, said)]


def test_nesting_up_to_the_limit_is_taken() -> None:
    deepest = "{not: " * 7 + "{subject: x}" + "}" * 7

    assert load(f"{{name: r, when: {deepest}, then: {{stop: true}}}}").when.depth() == 8


def test_written_form_is_read_back_the_same() -> None:
    config = load("{name: r, when: {not: {from: x, attachment: true}}, then: {queue: a, tags: b}}")
    dumped = json.loads(config.model_dump_json(by_alias=True, exclude_none=True))

    assert MatchConfig.model_validate(dumped) == config


def test_schema_for_editors_allows_the_short_forms() -> None:
    schema = json.dumps(MatchConfig.model_json_schema())

    assert '"from"' in schema
    assert '"not"' in schema
    assert '"minItems": 1' in schema
