"""What the status line of the service says."""

from __future__ import annotations

from datetime import timedelta

from sink_runtime import HandClock

from mailpoller.engine.health import Condition, Health


def test_a_mailbox_is_up_once_it_was_polled_and_not_before() -> None:
    clock = HandClock()
    health = Health(clock)
    for name in ("one", "two"):
        health.register(name, timedelta(minutes=1))
        health.enter(name, Condition.CONNECTING)
    assert health.line() == "2 mailboxes: 2 starting; 0 messages settled since the start"
    health.polled("one")
    health.enter("two", Condition.REFUSED, "wrong password")
    assert health.line() == "2 mailboxes: 1 up, 1 refused; 0 messages settled since the start"


def test_a_mailbox_that_waits_out_a_failure_is_retrying_until_it_is_behind() -> None:
    clock = HandClock()
    health = Health(clock)
    health.register("one", timedelta(minutes=1))
    health.polled("one")
    health.enter("one", Condition.RETRYING, "connection refused")
    assert health.line() == "1 mailbox: 1 retrying; 0 messages settled since the start"
    clock.advance(timedelta(minutes=3, seconds=1))
    assert health.line() == "1 mailbox: 1 behind; 0 messages settled since the start"


def test_a_mailbox_that_starts_for_too_long_is_behind() -> None:
    clock = HandClock()
    health = Health(clock)
    health.register("one", timedelta(minutes=1)).settled = 1
    health.enter("one", Condition.CONNECTING)
    clock.advance(timedelta(minutes=3, seconds=1))
    assert health.line() == "1 mailbox: 1 behind; 1 message settled since the start"
