"""What rules cost is counted, and a slow one is named, without slowing the others."""

from __future__ import annotations

from typing import Any

import pytest
from engine_rig import Rig, log  # noqa: F401
from structlog.testing import capture_logs

from mailpoller.core.body import Body
from mailpoller.core.message import Message
from mailpoller.core.verdict import Effect, Match
from mailpoller.engine import rule_costs
from mailpoller.engine.pipeline import Pipeline
from unit.rule_message import BodyReads, a_message


class Ticking:
    """A clock that a rule moves on."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Taking:
    """A rule that takes so long, and reads the body if it is told to."""

    needs_body = False

    def __init__(self, name: str, clock: Ticking, seconds: float, *, reads: bool = False) -> None:
        self.name = name
        self._clock, self._seconds, self._reads = clock, seconds, reads

    def judge(self, message: Message) -> Match | None:
        self._clock.now += self._seconds
        if self._reads and not message.is_read:
            self._clock.now += 9.0
            _ = message.body
        return Match(Effect(tags=(self.name,)), "always")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Ticking:
    clock = Ticking()
    monkeypatch.setattr(rule_costs, "perf_counter", clock)
    return clock


def judged(messages: int, *rules: Any) -> Pipeline:
    pipeline = Pipeline(mailbox="support", default_queue="q", rules=rules)
    for _ in range(messages):
        verdict = pipeline.judge(a_message(load=BodyReads(Body("x", "", ())))).verdict
        assert verdict.attributes.tags == tuple(rule.name for rule in rules)  # type: ignore[union-attr]
    return pipeline


def test_slow_rule_is_named_and_told_once(clock: Ticking) -> None:
    with capture_logs() as logs:
        pipeline = judged(16 * 40, Taking("quick", clock, 0.001), Taking("slow", clock, 0.012))

    assert pipeline.costs.slowest() == "the rule slow takes 12 ms of a message"
    assert [(entry["event"], entry["rule"], entry["mean_ms"]) for entry in logs] == [("rule.slow", "slow", 12.0)]
    assert {name: cost.timed for name, cost in pipeline.costs.costs.items()} == {"quick": 40, "slow": 40}


def test_nothing_is_said_of_a_few_messages_or_of_rules_that_are_quick(clock: Ticking) -> None:
    assert judged(16 * 19, Taking("slow", clock, 1.0)).costs.slowest() == ""
    assert judged(16 * 40, Taking("quick", clock, 0.004)).costs.slowest() == ""


def test_reading_the_body_is_not_the_rule_s_cost(clock: Ticking) -> None:
    pipeline = judged(16 * 40, Taking("first", clock, 0.006, reads=True), Taking("second", clock, 0.001, reads=True))

    assert pipeline.costs.slowest() == "the rule first takes 6 ms of a message"


async def test_status_tells_what_the_rules_of_a_mailbox_cost(clock: Ticking) -> None:
    rig = Rig(rules=[Taking("slow", clock, 0.02)])
    rig.fill(16 * 25)
    await rig.carry()
    (row,) = rig.health.report()

    assert row["reason"] == "the rule slow takes 20 ms of a message"
    assert row["rules"] == [{"rule": "slow", "timed": 25, "mean_us": 20000.0, "worst_us": 20000.0}]
