"""The rule type ``shouting`` tags what it should, and nothing else; no message makes it raise."""

from __future__ import annotations

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Rule
from mailpoller.mail.parser import parse
from mailpoller.testing import builders
from mailpoller.testing.deliveries import make_delivery
from mailpoller_examples.shouting import ShoutingConfig


@pytest.fixture
def rule(runtime: Runtime) -> Rule:
    return ShoutingConfig(type="shouting", name="loud", tag="loud").build("loud", runtime)


def tags(rule: Rule, octets: bytes) -> tuple[str, ...]:
    match = rule.judge(parse(make_delivery(octets=octets).raw))
    return () if match is None else match.effect.tags


def test_subject_in_capitals_is_tagged(rule: Rule) -> None:
    assert tags(rule, builders.plain(subject="WHERE IS MY ORDER 4711")) == ("loud",)


@pytest.mark.parametrize("subject", ["Where is my order", "RE: 4", "4711", ""])
def test_other_subject_is_left_alone(rule: Rule, subject: str) -> None:
    assert tags(rule, builders.plain(subject=subject)) == ()


def test_broken_message_is_judged_without_a_raise(rule: Rule) -> None:
    assert tags(rule, builders.broken()) == ()
    assert tags(rule, b"\x00\xff no header at all") == ()
