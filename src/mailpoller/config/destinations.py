"""The queues that rules make: as if each were written where the first rule says it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mailpoller.config.checked import At
from mailpoller.config.node import Node
from mailpoller.config.sections import RULES
from mailpoller.config.wording import locate
from mailpoller.core.rule_config import RuleConfig


def destinations(rules: Mapping[str, RuleConfig], places: Mapping[At, Node]) -> Iterator[tuple[str, str, Node]]:
    """Of each its name, its type and its block."""
    told: set[str] = set()
    for rule, block in rules.items():
        for one in block.destinations:
            if one.name not in told:
                told.add(one.name)
                place, _ = locate(places[RULES.key, rule], one.keys)
                yield one.name, one.type, place.like({key: _written(place, value) for key, value in one.block.items()})


def _written(place: Node, value: Any) -> Node:
    """A value as it would be written there."""
    return place.like([_written(place, one) for one in value] if isinstance(value, list) else value)
