"""Watchers that hang, crash or are slow to stop, and their neighbours."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from engine_rig import Rig, log, until  # noqa: F401

from mailpoller.core.errors import SessionLost
from mailpoller.engine import supervisor as supervisor_module
from mailpoller.engine import watcher as watcher_module
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.health import Condition
from mailpoller.engine.notify import Notifier
from mailpoller.engine.supervisor import Supervisor
from mailpoller.testing import fake_source as fake_source_module
from mailpoller.testing.fake_source import FakeSession


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "HEARTBEAT", timedelta(milliseconds=10))
    monkeypatch.setattr(supervisor_module, "REBUILD_FLOOR", timedelta(milliseconds=20))
    monkeypatch.setattr(supervisor_module, "LAST_WORDS", timedelta(seconds=1))


def two(*, budget: timedelta = timedelta(milliseconds=200), **first: object) -> tuple[Rig, Rig]:
    """A mailbox to be hurt, and an innocent one; one stop for both."""
    hurt, innocent = Rig(name="hurt", budget=budget, **first), Rig(name="innocent")  # type: ignore[arg-type]
    innocent.health.mailboxes.update(hurt.health.mailboxes)
    for rig in (hurt, innocent):
        rig.watcher._stop = rig.watcher._sleep._stop = rig.runner._stop = hurt.stop
        rig.watcher._health = innocent.health
    return hurt, innocent


class Ahead(SystemClock):
    """The real clock, put forward by ``ahead``."""

    ahead = timedelta(0)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead.total_seconds()


class Beats(Notifier):
    """Counts the looks that the supervisor takes at its watchers."""

    count = 0

    def alive(self) -> None:
        self.count += 1


@asynccontextmanager
async def supervised(
    *rigs: Rig,
    grace: float = 2.0,
    services: dict | None = None,
    clock: SystemClock | None = None,
    notifier: Notifier | None = None,
) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(
        [rig.watcher for rig in rigs],
        [queue for rig in rigs for queue in rig.queues.values()],
        health=rigs[-1].health,
        notifier=notifier or Notifier(),
        clock=clock or SystemClock(),
        grace=timedelta(seconds=grace),
        stop=rigs[0].stop,
        services=services or {},
    )
    running = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
        assert not running.done(), running
    finally:
        rigs[0].stop.set()
        async with asyncio.timeout(grace + 60):
            await running


@pytest.mark.parametrize("step", ["connect", "folders", "open", "pending", "fetch", "fetch:1", "settle", "wait"])
async def test_a_watcher_that_hangs_is_cancelled_and_rebuilt_and_the_others_never_notice(step: str) -> None:
    hurt, innocent = two()
    expected, neighbours = hurt.fill(5), innocent.fill(5)
    hurt.source.faults.hang(step)
    async with supervised(hurt, innocent):
        await until(lambda: hurt.source.faults.met)
        await until(lambda: innocent.subjects() == neighbours)
        late = innocent.fill(1, "late")
        await until(lambda: innocent.subjects() == neighbours + late)
        await until(lambda: hurt.subjects() == expected)
        later = hurt.fill(1, "later")
        await until(lambda: hurt.subjects() == expected + later)
    assert innocent.source.steps.count("connect") == 1
    assert hurt.source.steps.count("connect") >= 2
    assert hurt.budget.used == 0
    assert (await hurt.counts())["claimed"] == 0


@pytest.mark.parametrize("step", ["connect", "open", "pending", "fetch:2", "settle", "wait", "close"])
@pytest.mark.parametrize("bug", [ValueError("a bug"), AssertionError(), ExceptionGroup("several", [KeyError("x")])])
async def test_a_watcher_that_raises_what_nobody_expected_is_run_again(step: str, bug: Exception) -> None:
    hurt, innocent = two()
    expected = hurt.fill(5)
    hurt.source.faults.fail(step, bug)
    if step == "close":
        hurt.source.faults.fail("wait", SessionLost("so that it closes"))
    async with supervised(hurt, innocent):
        await until(lambda: hurt.source.faults.met)
        await until(lambda: hurt.subjects() == expected)
        late = hurt.fill(1, "late")
        await until(lambda: hurt.subjects() == expected + late)
    assert innocent.source.steps.count("connect") == 1
    assert (await hurt.counts())["claimed"] == 0


async def test_a_time_out_that_is_none_of_ours_is_a_crash_and_not_a_stall() -> None:
    hurt, innocent = two()
    expected = hurt.fill(1)
    hurt.source.faults.fail("pending", TimeoutError("somebody's"))
    async with supervised(hurt, innocent):
        await until(lambda: hurt.subjects() == expected)


@pytest.mark.parametrize("where", ["back-off", "wait"])
async def test_a_pause_longer_than_the_budget_is_no_stall(where: str) -> None:
    hurt, innocent = two(poll_interval="1h", reconnect_interval="1h")
    clock, beats = Ahead(), Beats()
    hurt.watcher._clock = hurt.watcher.deadline._clock = clock
    hurt.watcher.deadline._budget = 60
    if where == "back-off":
        hurt.source.faults.fail("connect", SessionLost("down"), times=2)  # the first is tried again at once
    async with supervised(hurt, innocent, clock=clock, notifier=beats):
        pausing = Condition.RETRYING if where == "back-off" else Condition.WAITING
        tries = 2 if where == "back-off" else 1
        await until(lambda: hurt.source.steps.count("connect") == tries)
        await until(lambda: innocent.health.mailboxes["hurt"].condition is pausing)
        clock.ahead = timedelta(minutes=59)
        before = beats.count
        await until(lambda: beats.count > before + 2)
        assert hurt.source.steps.count("connect") == tries
        expected = hurt.fill(1)
        hurt.watcher.stir()
        await until(lambda: hurt.subjects() == expected)
    assert hurt.source.steps.count("connect") == (3 if where == "back-off" else 1)


async def test_a_stop_waits_for_what_is_in_hand_and_no_longer_than_the_grace_period() -> None:
    hurt, innocent = two()
    hurt.watcher.deadline._budget = 60
    hurt.fill(5)
    innocent.fill(5)
    hurt.source.faults.hang("fetch")
    began = time.monotonic()
    async with supervised(hurt, innocent, grace=0.3):
        await until(lambda: hurt.source.faults.met)
        began = time.monotonic()
    assert 0.2 < time.monotonic() - began < 30
    assert (await hurt.counts())["claimed"] == 0
    assert len(innocent.sinks["support"].held) == 5


async def test_a_watcher_that_crashes_is_shown_and_its_waits_are_forgiven_after_five_good_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor_module, "REBUILD_FLOOR", timedelta(milliseconds=50))
    hurt, innocent = two(budget=timedelta(seconds=30), poll_interval="1h")  # a slow machine is no stall
    clock, health = Ahead(), innocent.health.mailboxes["hurt"]
    waits: list[float] = []
    rebuilt = hurt.watcher.rebuilt

    def heard(event: str, detail: str, retry_in: float = 0.0) -> None:
        waits.append(retry_in)
        rebuilt(event, detail, retry_in)
        assert (health.condition, health.reason) == (Condition.RETRYING, "watcher.crashed: ValueError")

    monkeypatch.setattr(hurt.watcher, "rebuilt", heard)
    hurt.source.faults.fail("connect", ValueError("a bug"), times=3)
    async with supervised(hurt, innocent, clock=clock):
        await until(lambda: health.condition is Condition.WAITING)
        hurt.source.faults.fail("pending", ValueError("another"))
        hurt.watcher.stir()
        await until(lambda: len(waits) == 4)
        await until(lambda: health.condition is Condition.WAITING)
        clock.ahead += timedelta(minutes=5)
        hurt.source.faults.fail("pending", ValueError("a third"))
        hurt.watcher.stir()
        await until(lambda: len(waits) == 5)
    assert waits[3] >= 0.4, "three seconds of work are no five minutes"
    assert waits[4] <= 0.06


async def test_a_service_that_crashes_is_started_again_and_its_last_words_are_bounded() -> None:
    hurt, innocent = two()
    turns = 0

    async def clumsy(ended: asyncio.Event) -> None:
        nonlocal turns
        turns += 1
        if turns < 3:
            raise RuntimeError("a bug")
        await ended.wait()
        await asyncio.sleep(3600)

    async with supervised(hurt, innocent, services={"clumsy": clumsy}):
        await until(lambda: turns == 3)
        began = time.monotonic()
    assert time.monotonic() - began < 30


async def test_what_a_service_has_in_hand_has_the_grace_too() -> None:
    hurt, innocent = two()
    finished = []

    async def slow(ended: asyncio.Event) -> None:
        await ended.wait()
        await asyncio.sleep(1.3)  # a relay thinks about a mail
        finished.append(True)

    async with supervised(hurt, innocent, services={"slow": slow}, grace=10):
        await asyncio.sleep(0.05)
    assert finished


async def test_draining_carries_every_mailbox_and_says_whether_one_failed() -> None:
    hurt, innocent = two()
    expected = innocent.fill(3)
    hurt.source.faults.fail("connect", SessionLost("down"))
    supervisor = Supervisor(
        [hurt.watcher, innocent.watcher],
        [],
        health=innocent.health,
        notifier=Notifier(),
        clock=SystemClock(),
        grace=timedelta(seconds=1),
        stop=hurt.stop,
        services={},
    )
    assert await supervisor.drain() is False
    assert innocent.subjects() == expected
    assert await supervisor.drain() is True


# --- slow lines and standstills ---------------------------------------------------------------------------------------
class Counting(FakeSession):
    """A session whose octets come ``rate`` a second, and whose second message takes a while."""

    rate = 0
    slow = 0.0
    begun = time.monotonic()

    @property
    def octets_in(self) -> int:
        return int((time.monotonic() - self.begun) * self.rate)

    async def fetch(self, claims, limit):  # type: ignore[no-untyped-def]
        async for answer in super().fetch(claims, limit):
            if answer.claim.ref.uid == "2":
                await asyncio.sleep(self.slow)
            yield answer


@pytest.mark.parametrize(("rate", "goes_on"), [(1500, True), (500, False), (0, False)])
async def test_a_line_that_is_slow_and_brings_a_kilobyte_a_second_goes_on_and_a_slower_one_does_not(
    rate: int, goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "rate", rate)
    monkeypatch.setattr(Counting, "slow", 1.0)
    monkeypatch.setattr(fake_source_module, "FakeSession", Counting)
    hurt, innocent = two()  # a budget of 0.2 s
    hurt.fill(3)
    async with supervised(hurt, innocent):
        await until(lambda: hurt.subjects()["message 0"] == 1)
        if goes_on:
            await until(lambda: len(hurt.subjects()) == 3)
            assert hurt.source.steps.count("connect") == 1
        else:
            await until(lambda: hurt.source.steps.count("connect") >= 2)
            monkeypatch.setattr(Counting, "slow", 0.0)
            await until(lambda: len(hurt.subjects()) == 3)


async def test_when_nothing_gets_on_what_has_come_is_delivered_and_the_rest_is_to_blame_in_the_next_process_too(
    log: list,  # noqa: F811
) -> None:
    hurt, innocent = two()
    hurt.fill(5)
    hurt.source.faults.hang("fetch:2", times=1)
    hurt.source.faults.hang("connect", times=1, after=1)
    async with supervised(hurt, innocent):
        await until(lambda: len(hurt.subjects()) == 2)
        await until(lambda: hurt.source.steps.count("connect") == 2)
        folder = await FakeSession(hurt.source).open("INBOX")
        assert [(ref.uid, times) for ref, times in await hurt.ledger.blamed(folder)] == [("3", 1), ("4", 1), ("5", 1)]
        await until(lambda: len(hurt.subjects()) == 5)
        await until(lambda: "fetch.abandoned" in {entry["event"] for entry in log})
    assert max(hurt.subjects().values()) == 1
    assert await hurt.ledger.blamed(folder) == []


async def test_a_fetch_that_does_not_even_end_when_it_is_given_up_is_to_blame_once_the_task_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
    log: list,  # noqa: F811
) -> None:
    monkeypatch.setattr(watcher_module, "GIVEN_UP", timedelta(milliseconds=100))
    fetch, stubborn = FakeSession.fetch, ["2"]

    async def deaf(self, claims, limit):  # type: ignore[no-untyped-def]
        async for answer in fetch(self, claims, limit):
            if answer.claim.ref.uid in stubborn:
                stubborn.clear()
                ended = time.monotonic() + 1.0
                while time.monotonic() < ended:
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(ended - time.monotonic())
            yield answer

    monkeypatch.setattr(FakeSession, "fetch", deaf)
    hurt, innocent = two()
    hurt.fill(3)
    async with supervised(hurt, innocent):
        await until(lambda: "watcher.stalled" in {entry["event"] for entry in log})
        await until(lambda: "blame" in hurt.ledger.calls)
        await until(lambda: len(hurt.subjects()) == 3)
    assert (await hurt.counts())["claimed"] == 0
