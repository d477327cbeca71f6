"""The gate: four at a time, 10,000 in ten minutes, and silence for as long as the service wants."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from clocks import SkippingClock
from mailpoller.remote.graph import Busy, Gate, gate_for
from mailpoller.remote.graph.gate import BUDGET


async def test_four_at_a_time_and_a_batch_alone() -> None:
    gate = Gate(SkippingClock())
    now = most = batches = 0

    async def ask(places: int) -> None:
        nonlocal now, most, batches
        async with gate.turn(places):
            now += places
            most = max(most, now)
            batches += places == 4
            await asyncio.sleep(0.001)
            now -= places

    async with asyncio.timeout(60):
        await asyncio.gather(*(ask(4 if number % 5 == 0 else 1) for number in range(40)))
    assert (most, batches, now) == (4, 8, 0)


async def test_whoever_gives_up_waiting_leaves_his_place() -> None:
    gate = Gate(SkippingClock())
    async with gate.turn(4):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), gate.turn(2):
                    pass
    async with asyncio.timeout(60), gate.turn(4):
        pass


async def test_everybody_waits_as_long_as_the_service_wants() -> None:
    clock = SkippingClock()
    gate = Gate(clock)
    assert gate.throttled(timedelta(seconds=7)) == 7
    async with gate.turn():
        assert clock.seconds == 7


async def test_without_retry_after_the_pause_doubles_until_a_request_is_served() -> None:
    gate = Gate(SkippingClock())
    waits = [gate.throttled(None) for _ in range(4)]
    assert all(0.8 * 2**n <= wait <= 1.2 * 2**n for n, wait in enumerate(waits))
    gate.served()
    assert gate.throttled(None) <= 1.2


async def test_a_long_pause_is_the_engines_and_says_how_long() -> None:
    gate = Gate(SkippingClock())
    gate.throttled(timedelta(minutes=5))
    with pytest.raises(Busy) as caught:
        async with gate.turn():
            pass
    assert caught.value.retry_after == timedelta(minutes=5)


async def test_budget_of_ten_minutes_is_kept_however_it_is_spent() -> None:
    clock = SkippingClock()
    gate = Gate(clock)
    sent: list[tuple[float, int]] = []
    while clock.seconds < 1_800:
        try:
            async with gate.turn(4, 20):
                sent.append((clock.seconds, 20))
        except Busy as error:
            assert error.retry_after is not None
            clock.seconds += error.retry_after.total_seconds()
        clock.seconds += 0.5
    for begin, _ in sent:
        assert sum(count for at, count in sent if begin <= at < begin + 600) <= 10_000
    assert sum(count for _, count in sent) >= 2 * BUDGET


def test_gate_is_one_for_application_and_mailbox() -> None:
    clock = SkippingClock()
    gate = gate_for("https://graph.microsoft.com/v1.0", "app", "Support@example.com", clock)
    assert gate_for("https://Graph.Microsoft.com/v1.0", "APP", "support@example.com", clock) is gate
    others = [
        gate_for("https://graph.microsoft.us/v1.0", "app", "support@example.com", clock),
        gate_for("https://graph.microsoft.com/v1.0", "other", "support@example.com", clock),
        gate_for("https://graph.microsoft.com/v1.0", "app", "sales@example.com", clock),
    ]
    assert len({gate, *others}) == 4
