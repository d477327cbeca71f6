"""What is doubtful about rules, seen beside one another and beside the mailboxes that ask them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mailpoller.config.checked import Config
from mailpoller.config.problems import Problem
from mailpoller.core.rule_config import RuleConfig
from mailpoller.core.source_config import SourceConfig

MAX_PAIRS = 20_000
"""Rules that are compared with one before them: less than a second. Of more, nothing is said."""


def doubts(config: Config) -> Iterator[Problem]:
    """A warning for each rule that can have no effect although a mailbox names it."""
    asked = {name: config.rules_of(name) for name in config.mailboxes if name not in config.incomplete}
    yield from _forced(config, asked)
    yield from _unmet(config, asked)
    yield from _shadowed(config, asked)


def _forced(config: Config, asked: Mapping[str, tuple[str, ...]]) -> Iterator[Problem]:
    """Rules of a mailbox with ``force_default_queue`` that do not ask for it."""
    for mailbox, rules in asked.items():
        if not config.mailboxes[mailbox].force_default_queue:
            continue
        if skipped := [rule for rule in rules if config.rules[rule].asks_forced is False]:
            text = f"with force_default_queue these are never asked: {', '.join(skipped)}; a rule that is to be asked "
            text += "says force_default_queue: true in its condition"
            yield config.problem(("mailboxes", mailbox), ("force_default_queue",), text, "warning")


def _unmet(config: Config, asked: Mapping[str, tuple[str, ...]]) -> Iterator[Problem]:
    """Rules whose condition can hold in none of the mailboxes that ask them."""
    askers: dict[str, list[SourceConfig]] = {}
    before: dict[str, set[str]] = {}
    makes = {rule: frozenset(block.makes_fields) for rule, block in config.rules.items()}
    for mailbox, rules in asked.items():
        fields: set[str] = set()
        for rule in rules:
            askers.setdefault(rule, []).append(config.mailboxes[mailbox])
            before.setdefault(rule, set()).update(fields)
            fields.update(makes[rule])
    for rule, mailboxes in askers.items():
        if words := config.rules[rule].unmet(mailboxes, frozenset(before[rule])):
            yield _warning(config, rule, words)


def _shadowed(config: Config, asked: Mapping[str, tuple[str, ...]]) -> Iterator[Problem]:
    """Rules behind one that ends the judging wherever they match."""
    behind: dict[str, dict[str, list[str]]] = {}
    reached: set[str] = set()
    compared = 0
    for rules, mailboxes in _alike(asked).items():
        ending: list[tuple[str, RuleConfig]] = []
        for rule in rules:
            block = config.rules[rule]
            compared += len(ending)
            if compared > MAX_PAIRS:
                break
            shadow = next((name for name, one in ending if one.covers(block)), None)
            if shadow is None:
                reached.add(rule)
            else:
                behind.setdefault(rule, {}).setdefault(shadow, []).extend(mailboxes)
            if block.ends_judging:
                ending.append((rule, block))
    for rule, shadows in behind.items():
        for shadow, mailboxes in shadows.items():
            where = mailboxes[0] + (f" and {len(mailboxes) - 1} more" if len(mailboxes) > 1 else "")
            here = f" in the mailbox {where}" if rule in reached else ""
            text = f"wherever it matches, the rule {shadow} has matched before it and ended the judging"
            yield _warning(config, rule, f"has no effect{here}: {text}")


def _alike(asked: Mapping[str, tuple[str, ...]]) -> Mapping[tuple[str, ...], list[str]]:
    """The mailboxes that ask the same rules in the same order."""
    found: dict[tuple[str, ...], list[str]] = {}
    for mailbox, rules in asked.items():
        found.setdefault(rules, []).append(mailbox)
    return found


def _warning(config: Config, rule: str, text: str) -> Problem:
    return config.problem(("rules", rule), ("name",), text, "warning")
