"""A clock that leaps ahead has nothing removed early; one that is right again is believed."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from mailpoller.app import assemble
from mailpoller.config import Config, load
from mailpoller.core.ports import Belief
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.prudent_clock import PrudentClock
from unit.sink_runtime import HandClock

YEAR, DAY, HOUR, MINUTE = timedelta(days=365), timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


class Keeping:
    """A ledger that keeps what is believed."""

    def __init__(self, known: Belief | None = None) -> None:
        self.known = known

    async def belief(self) -> Belief | None:
        return self.known

    async def believe(self, belief: Belief) -> None:
        self.known = belief


class Machine(HandClock):
    """Its clock can be wrong."""

    def leap(self, by: timedelta) -> None:
        self.instant += by


@pytest.fixture
def machine() -> Machine:
    return Machine()


def run(clock: PrudentClock, machine: Machine, for_: timedelta) -> datetime:
    """Let time pass, with a look now and then."""
    for _ in range(int(for_ / HOUR)):
        machine.advance(HOUR)
        clock.now()
    return clock.now()


def test_a_clock_that_is_right_is_told_as_it_is(machine: Machine) -> None:
    clock = PrudentClock(machine, Keeping())
    assert run(clock, machine, 3 * DAY) == machine.now()


def test_a_clock_that_is_a_year_ahead_for_a_morning_makes_nothing_older(machine: Machine) -> None:
    clock = PrudentClock(machine, Keeping())
    right = machine.now()
    machine.leap(YEAR)
    assert run(clock, machine, 6 * HOUR) == right + 6 * HOUR
    machine.leap(-YEAR)
    assert run(clock, machine, HOUR) == machine.now() == right + 7 * HOUR


def test_what_is_believed_of_a_clock_that_is_ahead_for_days_is_bounded(machine: Machine) -> None:
    clock = PrudentClock(machine, Keeping())
    right = machine.now()
    machine.leap(YEAR)
    assert run(clock, machine, 3 * DAY) <= right + 3 * DAY + 6 * DAY
    assert run(clock, machine, 5 * DAY) == machine.now(), "a week is no mistake"


def test_many_small_leaps_are_not_believed_one_by_one(machine: Machine) -> None:
    clock = PrudentClock(machine, Keeping())
    right = machine.now()
    for _ in range(300):
        machine.leap(23 * HOUR)
        machine.advance(MINUTE)
        clock.now()
    assert clock.now() <= right + 300 * MINUTE + DAY


async def test_a_restart_with_a_clock_that_is_ahead_believes_no_more(machine: Machine) -> None:
    ledger = Keeping(Belief(machine.now(), timedelta(0)))
    right = machine.now()
    machine.leap(YEAR)
    for _ in range(10):
        clock = PrudentClock(machine, ledger)
        await clock.begin()
        assert run(clock, machine, HOUR) <= right + 12 * HOUR
        await clock._keep()


async def test_after_a_rest_of_some_days_it_is_as_late_as_the_clock_says_within_some_more(machine: Machine) -> None:
    ledger = Keeping(Belief(machine.now() - 10 * DAY, timedelta(0)))
    clock = PrudentClock(machine, ledger)
    await clock.begin()
    assert run(clock, machine, DAY) < machine.now() - 9 * DAY
    assert run(clock, machine, 4 * DAY) == machine.now()


async def test_a_clock_that_was_far_behind_is_followed_at_once_when_it_is_right(machine: Machine) -> None:
    clock = PrudentClock(machine, Keeping(Belief(machine.now(), timedelta(0))))
    await clock.begin()
    machine.leap(-10 * YEAR)
    assert run(clock, machine, 6 * HOUR) == machine.now(), "it is never ahead of the machine's"
    machine.leap(10 * YEAR)
    assert run(clock, machine, 6 * HOUR) == machine.now()


def configured(directory: Path) -> Config:
    for folder in ("new", "cur", "tmp"):
        (directory / "box" / folder).mkdir(parents=True)
    (directory / "box" / "new" / "1.x.host").write_bytes(b"From: a@customer.example\r\n\r\nx\r\n")
    file = directory / "mailpoller.yaml"
    file.write_text(
        f"service: {{state_directory: {directory}, control_socket: {directory / 'control'}}}\n"
        f"ledger: {{type: sqlite, path: {directory / 'ledger.db'}}}\n"
        f"queues: {{support: {{type: jsonl, path: {directory / 'support.jsonl'}}}}}\n"
        f"mailboxes:\n  support: {{type: maildir, path: {directory / 'box'}, start: all, default_queue: support,\n"
        f"    poll_interval: 1s, disposition: {{delete: true, after: 30d}}}}\n"
    )
    return load(file)


class Leaping(SystemClock):
    """The machine's clock, so much ahead."""

    ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead


async def polled(config: Config, clock: Leaping) -> None:
    async with assemble(config, clock=clock) as app, asyncio.timeout(20):
        watcher = app.fleet.watchers["support"]
        running = asyncio.create_task(app.run())
        begun = clock.now()
        for _ in range(2):
            while (last := app.health.mailboxes["support"].last_poll_at) is None or last < begun:
                await asyncio.sleep(0.05)
            begun = clock.now()
            watcher.stir()
        app.stop.set()
        await running


async def test_a_service_that_starts_with_a_clock_that_is_ahead_deletes_nothing(tmp_path: Path) -> None:
    config, clock = configured(tmp_path), Leaping()
    await polled(config, clock)
    clock.ahead = YEAR
    await polled(config, clock)
    assert len(list((tmp_path / "box").glob("*/1.x.host*"))) == 1
