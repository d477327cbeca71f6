"""What rules cost: every sixteenth message is timed rule by rule, and the others are not slowed by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter

import structlog

from mailpoller.core.message import Message
from mailpoller.core.ports import Rule
from mailpoller.core.verdict import Match

log = structlog.get_logger(__name__)

EVERY = 16
SLOW = 0.005
"""Seconds of a message on the average, from which on a rule is called slow."""
_ENOUGH = 20
"""Messages that an average is made of, at least."""


@dataclass(slots=True)
class Cost:
    """Of one rule: how many messages were timed, the seconds of all of them, and of the dearest."""

    timed: int = 0
    seconds: float = 0.0
    worst: float = 0.0

    @property
    def mean(self) -> float:
        """Seconds of a message."""
        return self.seconds / self.timed if self.timed else 0.0


class RuleCosts:
    """The costs of one mailbox's rules since its parts were built.

    What it takes to read the body, for the first rule that asks for it, is the body's and no rule's: that rule is
    asked twice.
    """

    def __init__(self, mailbox: str, rules: Iterable[Rule]) -> None:
        self._mailbox = mailbox
        self._seen = 0
        self._told: set[str] = set()
        self.costs: dict[str, Cost] = {}
        self._timed = tuple(_Timed(rule, self) for rule in rules)

    def timed(self) -> tuple[Rule, ...] | None:
        """The rules, each of which notes what it costs, if this message is one to be timed; else None."""
        self._seen += 1
        return self._timed if self._seen % EVERY == 1 else None

    def note(self, rule: str, seconds: float) -> None:
        """A rule took so long for a message."""
        cost = self.costs.setdefault(rule, Cost())
        cost.timed += 1
        cost.seconds += seconds
        cost.worst = max(cost.worst, seconds)
        if rule not in self._told and cost.timed >= _ENOUGH and cost.mean >= SLOW:
            self._told.add(rule)
            log.warning("rule.slow", mailbox=self._mailbox, rule=rule, mean_ms=round(cost.mean * 1000, 1))

    def slowest(self) -> str:
        """The dearest rule and what it takes, in words, if it is slow; else nothing."""
        dear = [(cost.mean, name) for name, cost in self.costs.items() if cost.timed >= _ENOUGH and cost.mean >= SLOW]
        if not dear:
            return ""
        mean, name = max(dear)
        return f"the rule {name} takes {mean * 1000:.0f} ms of a message"


class _Timed:
    __slots__ = ("_costs", "_rule", "name")

    def __init__(self, rule: Rule, costs: RuleCosts) -> None:
        self.name = rule.name
        self._rule = rule
        self._costs = costs

    def judge(self, message: Message) -> Match | None:
        was_read = message.is_read
        begun = perf_counter()
        match = self._rule.judge(message)
        if message.is_read is not was_read:
            begun = perf_counter()
            self._rule.judge(message)  # once more, for the time alone
        self._costs.note(self.name, perf_counter() - begun)
        return match
