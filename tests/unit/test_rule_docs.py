"""The page about rules is true: its examples load and its words are the code's words."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from mailpoller.engine import pipeline
from mailpoller.rules.condition import MAX_DEPTH, Condition
from mailpoller.rules.match import Consequence, MatchConfig

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text("utf-8")


def test_examples_load() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    rules = [MatchConfig.model_validate(rule) for block in blocks for rule in yaml.safe_load(block)["rules"]]

    assert [rule.name for rule in rules] == ["invoices", "executables", "vip"]


def test_every_key_is_on_the_page() -> None:
    for block in (Condition, Consequence):
        for name, field in block.model_fields.items():
            assert re.search(rf"`{field.alias or name}\b", PAGE), f"{block.__name__}.{name}"


def test_every_reason_of_the_pipeline_is_on_the_page() -> None:
    reasons = [value for name, value in vars(pipeline).items() if name.isupper() and isinstance(value, str)]

    assert len(reasons) == 7
    assert [reason for reason in reasons if f"`{reason}`" not in PAGE] == []


def test_depth_is_the_one_on_the_page() -> None:
    assert MAX_DEPTH == 8
    assert "eight deep" in PAGE
