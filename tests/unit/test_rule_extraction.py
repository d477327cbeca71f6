"""``set`` and ``extract``: typed fields of the event, out of whatever a form made of itself."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from mailpoller.core.message import Message
from mailpoller.engine.pipeline import Pipeline
from mailpoller.mail.event import EventRenderer
from mailpoller.rules.extraction import Extract
from mailpoller.rules.match import Consequence
from odd_mail.reading import NOW, read
from pace import paced
from unit.rule_message import a_message
from unit.test_event import VERDICT, checked
from unit.test_rule_conditions import rule


def taken(extract: str, message: Message | None = None, **parts: Any) -> Any:
    match = rule("{size: {above: 0}}", f"{{extract: {extract}}}").judge(message or a_message(**parts))
    assert match is not None
    return match.effect.fields


FORM = """\
Customer number:  17
ORDER   DATE : 31.12.2026
Amount: 12.50
Newsletter: Yes
Topics: shoes, hats; gloves
Topics: socks
Customer number: 18
Comment: first line
second: line
"""


def test_lines_become_fields_of_their_types() -> None:
    lines = (
        "{customer: Customer Number, number: {name: customer number, type: integer}}",
        "{d: {name: order date, type: date}, a: {name: amount, type: number}, n: {name: newsletter, type: boolean}}",
        "{t: {name: topics, type: list}, none: Nothing}",
    )
    with pytest.raises(ValidationError, match="two fields have the same name"):
        taken(f"{{lines: {lines[0]}}}")

    assert taken(f"[{{lines: {lines[1]}}}, {{lines: {lines[2]}}}, {{lines: {{c: Customer number}}}}]", text=FORM) == {
        "d": "2026-12-31", "a": 12.5, "n": True, "t": ("shoes", "hats", "gloves", "socks"), "c": "17",
    }  # fmt: skip


def test_value_of_a_line_goes_on_only_if_that_is_said() -> None:
    assert taken("{lines: {c: Comment}}", text=FORM) == {"c": "first line"}
    assert taken("{lines: {c: Comment}, multiline: true}", text=FORM) == {"c": "first line\nsecond: line"}
    assert taken("{lines: {a: a, b: b}, separator: ' -', multiline: true}", text="a -1\n2\nb -3\n") == {
        "a": "1\n2", "b": "3",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\r\nb\rc\nd", "a\nb\nc\nd"),
        ("a&#xD;&#xA;b&#xA;c&#13;d", "a\nb\nc\nd"),
        ("R&amp;D &lt;x&gt; &auml;", "R&D <x> ä"),
        ("  \n x \n ", "x"),
        ("a\x00b&#x0;c&#xD800;\x85d", "a\ufffdb\ufffdc\ufffd d"),
        ("<b>x</b>", "<b>x</b>"),
        ("x</comments>y", "x</comments>y"),
    ],
)
def test_tags_hold_values_with_line_ends_of_every_kind(value: str, expected: str) -> None:
    text = f"<COMMENT>{value}</Comment ><comment>second</comment>"

    assert taken("{tags: {c: Comment, other: comments}}", text=text) == {"c": expected}


def test_tags_whose_names_begin_alike_are_told_apart() -> None:
    text = "<name>a</name><nameplate id='1'>b</nameplate><names>c</names><open>d"

    assert taken("{tags: {n: name, p: nameplate, o: open}}", text=text) == {"n": "a", "p": "b"}


def test_pairs_patterns_headers_and_subject() -> None:
    message = a_message(subject="Your ORDER 0017 of today", headers=(("x-form", "cmp = spring ;nl=off; cmp=later"),))
    extract = """[
        {header: X-Form, pairs: {campaign: cmp, newsletter: {name: NL, type: boolean}}},
        {from: subject, pattern: 'order (?P<order>[0-9]+)( (?P<never>x))?', types: {order: integer}},
    ]"""

    assert taken(extract, message) == {"campaign": "spring", "newsletter": False, "order": 17}


@pytest.mark.parametrize(
    ("type_", "value"),
    [("integer", "1e3"), ("integer", "9" * 400), ("number", "1,5"), ("number", "nan"), ("number", "inf"),
     ("boolean", "maybe"), ("date", "12/31/2026"), ("date", "31.02.2026"), ("date", "20261231")],
)  # fmt: skip
def test_what_is_not_of_its_type_is_null_and_never_a_guess(type_: str, value: str) -> None:
    assert taken(f"{{lines: {{f: {{name: f, type: {type_}}}}}}}", text=f"f: {value}") == {"f": None}


@pytest.mark.parametrize(
    "text",
    ["<a>" * 70_000, "<a " * 70_000, "</a" * 70_000, "<a>" * 35_000 + "</a>" * 35_000, "a:" * 100_000, "a:\n" * 70_000,
     "a=;" * 70_000, "&#x" * 70_000, "\u0130" * 200_000, "<a>" + "&amp;" * 40_000 + "</a>"],
)  # fmt: skip
def test_hostile_text_costs_little(text: str) -> None:
    wanted = "{f: a, g: {name: b, type: list}}"
    many = "{f: {name: a, type: list}}"
    begun = time.process_time()
    for way in (
        f"{{tags: {wanted}}}",
        f"{{lines: {wanted}, multiline: true}}",
        f"{{pairs: {many}}}",
        f"{{tags: {many}}}",
    ):
        fields = taken(way, text=text)
        assert all(len(str(value)) <= 200_000 for value in fields.values())
    assert time.process_time() - begun < paced(2)  # 0.3 s on an idle machine


@pytest.mark.parametrize("extract", ["{lines: {f: f}}", "{pairs: {f: f}, separator: ':'}", "{tags: {f: f}}"])
def test_value_is_cut_where_the_page_says(extract: str) -> None:
    for text in (f"f:{'x' * 100_000}", f"<f>{'x' * 100_000}</f>", f"<f>{'&#x78;' * 30_000}</f>"):
        for value in taken(extract, text=text).values():
            assert len(value) <= 32_768


def test_fields_are_in_the_event_at_every_payload_and_later_rules_ask_and_overrule_them() -> None:
    rules = (
        rule("{subject: form}", "{set: {source: form, level: 2, x: [a, b]}, extract: {lines: {level: Level, c: C}}}"),
        rule("{fields: {source: {equals: form}, level: '2', x: b}}", "{set: {level: 3, urgent: true}}"),
        rule("{fields: {urgent: true}}", "{tags: seen}"),
        rule("{fields: {none: x}}", "{tags: unseen}"),
    )
    message = read(b"Subject: form\r\n\r\nLevel: 9\r\nC: \x01\xc3\xa4\r\n")
    verdict = Pipeline(mailbox="m", default_queue="q", rules=rules).judge(message).verdict
    assert verdict.attributes.tags == ("seen",)  # type: ignore[union-attr]
    for payload in ("summary", "parsed", "raw"):
        renders = EventRenderer(message, verdict=VERDICT, source="s", now=NOW)
        data = checked(renders.render(queue="a", delivery_id="d", payload=payload))["data"]  # type: ignore[arg-type]
        assert data["fields"] == {"source": "form", "level": 3, "x": ["a", "b"], "c": "\ufffdä", "urgent": True}


def test_body_is_wanted_only_by_what_looks_into_it() -> None:
    assert rule("{subject: x}", "{extract: {lines: {a: a}}}").needs_body
    assert not rule("{subject: x}", "{extract: {from: subject, pattern: '(?P<a>x)'}}").needs_body
    assert not rule("{subject: x}", "{extract: {header: X, pairs: {a: a}}}").needs_body


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{}", "lines, pairs, tags or pattern, one of them"),
        ("{lines: {a: a}, tags: {b: b}}", "lines, pairs, tags or pattern, one of them"),
        ("{lines: {1a: a}}", "String should match pattern"),
        ("{tags: {a: a}, separator: '='}", "separator belongs to lines and pairs, and has no effect beside tags"),
        ("{pattern: 'x'}", "a pattern needs groups that are named"),
        ("{pattern: '(?P<a>x'}", "RE2 does not take this pattern"),
        ("{pattern: '(?P<a>x)', types: {b: date}}", "the pattern has no group b"),
        ("{lines: {a: {name: \"x\\ny\"}}}", "a name stands on one line"),
        ("{lines: {a: a}, from: body}", "Input should be 'text', 'html' or 'subject'"),
    ],
)  # fmt: skip
def test_wrong_extract_is_refused(block: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("(", r"\(")):
        Extract.model_validate(yaml.safe_load(block))


@pytest.mark.parametrize("value", [".inf", ".nan", "90071992547409930", "{a: b}", "2026-01-01"])
def test_set_takes_only_what_json_holds_exactly(value: str) -> None:
    with pytest.raises(ValidationError):
        Consequence.model_validate(yaml.safe_load(f"{{set: {{a: {value}}}}}"))
