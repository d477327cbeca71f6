"""What is logged of messages that are settled, and how much of it."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from engine_rig import Rig, log

from clocks import SkippingClock
from mailpoller.engine.outcomes import LogRate

__all__ = ["log"]


async def test_a_message_is_logged_with_its_latency_from_the_date_that_the_server_gave(log: list[Any]) -> None:
    rig = Rig()
    rig.fill(1)
    rig.mailbox.folders["INBOX"].mails["1"].received -= timedelta(minutes=2)
    await rig.carry()
    (line,) = [line for line in log if line["event"] == "message.delivered"]
    assert 120 <= line["latency_s"] < 180


async def test_a_drain_is_counted_above_the_rate_and_every_message_is_said_or_counted(log: list[Any]) -> None:
    rig = Rig(log_rate=5)
    rig.fill(60)
    await rig.carry()
    events = Counter(line["event"] for line in log)
    counted = sum(line["messages"] for line in log if line["event"] == "messages.counted")
    assert events["message.delivered"] + counted == 60
    assert events["message.delivered"] < 60
    assert rig.health.mailboxes["support"].settled == 60


def test_what_somebody_has_to_look_at_is_always_said_and_each_second_begins_anew(log: list[Any]) -> None:
    clock = SkippingClock()
    rate = LogRate(clock, 2)
    assert [rate.says("delivered") for _ in range(4)] == [True, True, False, False]
    assert rate.says("quarantined")
    assert rate.says("doubtful")
    assert not rate.says("repeated")
    clock.seconds += 1
    assert rate.says("delivered")
    (line,) = [line for line in log if line["event"] == "messages.counted"]
    assert (line["messages"], line["outcomes"]) == (3, {"delivered": 2, "repeated": 1})
    assert all(LogRate(clock).says("delivered") for _ in range(1000))
