"""Nothing in a queue waits for a day that only a wrong clock has seen; and a queue that nobody takes from is told
of."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mailpoller.core.delivery import Receipt
from mailpoller.sinks.sqlite import SqliteQueue, SqliteQueueConfig
from mailpoller.sinks.sqlite.consumer import open_queue
from mailpoller.testing.deliveries import make_delivery
from unit.sink_runtime import HandClock, make_runtime

YEARS = timedelta(days=3650)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue" / "support.db"


def make(path: Path, clock: HandClock, **settings: object) -> SqliteQueue:
    more = {"raw": True, "min_free": 0, **settings}
    return SqliteQueueConfig.model_validate({"type": "sqlite", "path": path, **more}).build(
        "support", make_runtime(path.parent, clock)
    )


def execute(path: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()


@pytest.mark.parametrize("delay", [timedelta(0), YEARS], ids=["taken", "given back with a delay"])
async def test_a_lease_that_a_wrong_clock_gave_ends_within_the_longest_lease(
    path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch, delay: timedelta
) -> None:
    sink = make(path, clock, longest_lease="2h")
    await sink.deliver([make_delivery(1), make_delivery(2)])
    with open_queue(path) as queue:
        ahead = time.time() + YEARS.total_seconds()
        monkeypatch.setattr(time, "time", lambda: ahead)
        taken = queue.take()
        if delay:
            queue.return_([one.entry.delivery_id for one in taken.messages], taken.token, delay=timedelta(minutes=5))
        monkeypatch.undo()
        (kept,) = queue.take(duration=timedelta(minutes=5)).messages
        clock.advance(timedelta(minutes=2))
        with capture_logs() as logs:
            await sink.upkeep()
        assert [entry["count"] for entry in logs if entry["event"] == "queue.leases_cut"] == [1]
        latest = (clock.now() + timedelta(hours=2)).timestamp()
        ends = [float(str(until)) for (until,) in execute(path, "SELECT taken_until FROM message ORDER BY seq")]
        assert ends[0] == pytest.approx(latest)
        assert kept.entry.taken_until is not None
        assert ends[1] == pytest.approx(kept.entry.taken_until.timestamp())
        clock.advance(timedelta(minutes=30))
        with capture_logs() as logs:
            await sink.upkeep()
        assert logs == [], "once: it does not move on with the clock"
        assert float(str(execute(path, "SELECT max(taken_until) FROM message")[0][0])) == pytest.approx(latest)
    await sink.close()


async def test_ids_that_were_acknowledged_while_the_clock_was_ahead_keep_no_other_from_being_forgotten(
    path: Path, clock: HandClock
) -> None:
    sink = make(path, clock, remember="10d")
    for first in (0, 1000):
        await sink.deliver([make_delivery(first + uid) for uid in range(600)])
        with open_queue(path) as queue:
            taken = queue.take(600)
            queue.ack([one.entry.delivery_id for one in taken.messages], taken.token)
        if not first:
            execute(path, "UPDATE acknowledged SET acknowledged_at = acknowledged_at + ?", YEARS.total_seconds())
    for _ in range(3):
        clock.advance(timedelta(minutes=1))
        await sink.upkeep()
    assert execute(path, "SELECT count(*) FROM acknowledged") == [(1200,)], "none is old enough"
    clock.advance(timedelta(days=11))
    await sink.upkeep()
    await sink.upkeep()
    clock.advance(timedelta(days=11))
    await sink.upkeep()
    assert execute(path, "SELECT count(*) FROM acknowledged") == [(0,)], "each waited for its own ten days at most"
    await sink.close()


async def test_octets_that_were_written_while_the_clock_was_ahead_are_removed_when_no_row_names_them(
    path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make(path, clock, inline="1B")
    await sink.deliver([make_delivery(1)])
    orphan = path.with_name("support.db.octets") / f"{make_delivery(2).delivery_id}.eml"
    orphan.write_bytes(b"x")
    behind = time.time() - YEARS.total_seconds()
    monkeypatch.setattr(time, "time", lambda: behind)
    clock.advance(timedelta(hours=2))
    await sink.upkeep()
    assert [file.name for file in orphan.parent.iterdir()] == [f"{make_delivery(1).delivery_id}.eml"]
    await sink.close()


async def test_lines_that_were_written_while_the_clock_was_ahead_are_rotated_today(
    tmp_path: Path, clock: HandClock
) -> None:
    from mailpoller.sinks.jsonl import JsonlQueueConfig

    config = JsonlQueueConfig(type="jsonl", path=tmp_path / "events.jsonl", rotate="daily", min_free=0)
    sink = config.build("journal", make_runtime(tmp_path, clock))
    await sink.deliver([make_delivery(1)])
    ahead = time.time() + YEARS.total_seconds()
    os.utime(tmp_path / "events.jsonl", (ahead, ahead))
    await sink.deliver([make_delivery(2)])
    assert len(list(tmp_path.glob("events*.jsonl"))) == 2
    await sink.close()


async def test_a_queue_that_nobody_takes_from_is_told_of_after_its_time_and_no_more_when_somebody_does(
    path: Path, clock: HandClock
) -> None:
    sink = make(path, clock, untaken_warning="1h")
    assert await sink.untaken() is None
    await sink.deliver([make_delivery(1), make_delivery(2)])
    assert await sink.untaken() is None
    clock.advance(timedelta(minutes=59))
    assert await sink.untaken() is None
    clock.advance(timedelta(minutes=2))
    words = await sink.untaken()
    assert words is not None
    assert "nobody has taken any since" in words
    with open_queue(path) as queue:
        taken = queue.take(duration=timedelta(hours=2))
        assert await sink.untaken() is None, "one is in somebody's hands"
        queue.ack([taken.messages[0].entry.delivery_id], taken.token)
    execute(path, "UPDATE acknowledged SET acknowledged_at = ?", int(clock.now().timestamp()))
    assert await sink.untaken() is None, "somebody was here just now"
    clock.advance(timedelta(minutes=61))
    assert await sink.untaken() is not None, "and has not come again"
    with open_queue(path) as queue:
        execute(path, "DELETE FROM message")
    assert await sink.untaken() is None, "nothing is there to be taken"
    await sink.close()


async def test_a_queue_that_was_delivered_to_while_the_clock_was_ahead_is_told_of_all_the_same(
    path: Path, clock: HandClock
) -> None:
    sink = make(path, clock)
    clock.instant += YEARS
    assert isinstance((await sink.deliver([make_delivery(1)]))[0], Receipt)
    clock.instant -= YEARS
    assert await sink.untaken() is None
    clock.advance(timedelta(minutes=61))
    assert await sink.untaken() is not None
    await sink.close()


async def test_a_lease_that_ended_without_an_acknowledgement_counts_from_its_end(path: Path, clock: HandClock) -> None:
    sink = make(path, clock)
    await sink.deliver([make_delivery(1)])
    with open_queue(path) as queue:
        queue.take(duration=timedelta(minutes=30))
    clock.advance(timedelta(minutes=80))
    assert await sink.untaken() is None
    clock.advance(timedelta(minutes=20))
    assert await sink.untaken() is not None
    await sink.close()
