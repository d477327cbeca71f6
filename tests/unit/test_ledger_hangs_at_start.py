"""A ledger whose disk hangs when the service starts ends the process; one that is at work is waited for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.errors import LedgerUnavailable
from mailpoller.engine import lifeline
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.lifeline import opened
from mailpoller.ledgers.sqlite.ledger import SqliteLedger
from mailpoller.ledgers.sqlite.lock import Lock
from mailpoller.storage.thread import Pool


class Ended(BaseException):
    """As the process does."""


def end(reason: str) -> None:
    raise Ended(reason)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "LOOK", timedelta(milliseconds=20))
    monkeypatch.setattr(lifeline, "HUNG", timedelta(milliseconds=300))


@pytest.fixture
async def disk() -> AsyncIterator[threading.Event]:
    """Until it is set whoever waits for the disk waits, in threads as the process has them."""
    asyncio.get_running_loop().set_default_executor(Pool("work", 4))
    event = threading.Event()
    yield event
    event.set()


def at_work(seconds: float) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))
    return "open"


async def test_a_ledger_that_hangs_while_it_is_opened_ends_the_process(disk: threading.Event) -> None:
    with pytest.raises(Ended, match="its disk hangs"):
        await opened(asyncio.to_thread(disk.wait), end)
    with pytest.raises(LedgerUnavailable, match="its disk hangs"):
        await opened(asyncio.to_thread(disk.wait), None)


async def test_one_that_is_migrated_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "HUNG", timedelta(seconds=1.5))  # in which a busy machine lets everybody work
    assert await opened(asyncio.to_thread(at_work, 3.0), end) == "open"


async def test_one_that_is_at_work_for_ever_is_waited_for_as_long_as_systemd_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifeline, "STARTING", timedelta(milliseconds=400))
    monkeypatch.setattr(lifeline, "HUNG", timedelta(minutes=1))
    with pytest.raises(Ended):
        await opened(asyncio.to_thread(at_work, 1.5), end)


async def test_what_opening_raises_is_raised() -> None:
    async def refused() -> None:
        raise LedgerUnavailable("no room")

    with pytest.raises(LedgerUnavailable, match="no room"):
        await opened(refused(), end)


async def test_no_step_of_opening_holds_up_who_watches_it(
    tmp_path: Path, disk: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Lock.take

    def hangs(lock: Lock, now: object) -> None:
        disk.wait(5)
        take(lock, now)  # type: ignore[arg-type]

    monkeypatch.setattr(Lock, "take", hangs)
    with pytest.raises(Ended):
        await opened(SqliteLedger.open(tmp_path / "ledger.db", SystemClock()), end)
