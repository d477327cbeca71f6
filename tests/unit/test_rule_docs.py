"""The page about rules is true: its examples load and its words are the code's words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mailpoller.config.model import RuleSet
from mailpoller.core.policy import POLICIES, USUAL, Policy
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine import pipeline
from mailpoller.rules.condition import MAX_DEPTH, Condition
from mailpoller.rules.extraction import Extract
from mailpoller.rules.fields import FIELDS
from mailpoller.rules.match import Consequence, MatchConfig
from mailpoller.rules.quantities import AgeTest, AttachmentTest, ReceivedTest
from mailpoller.rules.texts import AddressTest, TextTest

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text("utf-8")


def test_examples_load() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE.partition("\n## Recipes\n")[0], re.DOTALL | re.MULTILINE)
    rules = [MatchConfig.model_validate(rule) for block in blocks for rule in yaml.safe_load(block).get("rules", ())]

    assert [rule.name for rule in rules] == [
        "invoices",
        "executables",
        "vip",
        "at-night",
        "forged",
        "known-case",
        "parcels",
        "press",
        "returned",
        "order-form",
        "tag-mail",
    ]


def test_policies_of_the_example_load() -> None:
    (example,) = re.findall(r"^```yaml\n(mailboxes:\n  support:\n    auto.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    written = yaml.safe_load(example)["mailboxes"]["support"]
    policies = SourceConfig.model_validate({"type": "x", **written}).policies()

    assert written.keys() == set(POLICIES.values())
    assert policies["bounce"] == Policy(queue="bounces")
    assert policies["auto-generated"] == Policy(
        "quarantine", senders=frozenset({"shop@example.com", "partner.example"})
    )
    assert policies.keys() == {"auto-reply", "challenge", "bounce", "auto-generated", "list"}


def test_a_file_of_senders_stands_among_them() -> None:
    written = {"action": "discard", "except": {"senders": ["a@b.c", {"file": "/etc/partners"}]}}
    policy = SourceConfig.model_validate({"type": "x", "lists": written}).policies()["list"]

    assert policy == Policy("discard", "", frozenset({"a@b.c"}), (Path("/etc/partners"),))


def test_defaults_of_the_policies_are_those_on_the_page() -> None:
    assert (
        SourceConfig(type="x").policies()
        == USUAL
        == dict.fromkeys(("auto-reply", "challenge", "bounce"), Policy("quarantine"))
    )


def test_who_delivers_answers_and_says_nothing_of_bounces_is_told() -> None:
    told = [finding.key for finding in SourceConfig(type="x", auto_replies="deliver").findings()]

    assert told == ["auto_replies"]
    assert list(SourceConfig(type="x", auto_replies="deliver", bounces="quarantine").findings()) == []
    assert list(SourceConfig(type="x").findings()) == []


@pytest.mark.parametrize(
    "written", [{"queue": "a", "action": "deliver"}, {"except": {"senders": ["a@b.c"]}}, {}, "hold", None,
                {"action": "discard", "except": {"senders": []}},
                {"action": "discard", "except": {"senders": ["a b"]}}],
)  # fmt: skip
def test_wrong_policy_is_refused(written: object) -> None:
    with pytest.raises(ValidationError):
        SourceConfig.model_validate({"type": "x", "bounces": written})


def test_every_key_is_on_the_page() -> None:
    for block in (
        Condition,
        Consequence,
        TextTest,
        AddressTest,
        AttachmentTest,
        ReceivedTest,
        AgeTest,
        RuleSet,
        Extract,
    ):
        for name, field in block.model_fields.items():
            assert re.search(rf"[`{{ ]{field.alias or name}\b", PAGE), f"{block.__name__}.{name}"


def test_fields_of_the_event_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (yes|) \|$", PAGE, re.MULTILINE)

    assert rows == [(path, "yes" if asked.needs_body else "") for path, asked in FIELDS.items()]


def test_every_reason_of_the_pipeline_is_on_the_page() -> None:
    reasons = [value for name, value in vars(pipeline).items() if name.isupper() and isinstance(value, str)]

    assert len(reasons) == 8
    assert [reason for reason in reasons if f"`{reason}`" not in PAGE] == []


def test_depth_is_the_one_on_the_page() -> None:
    assert MAX_DEPTH == 8
    assert "eight deep" in PAGE
