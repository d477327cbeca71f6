"""Threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_storage_sqlite import NOTES, note, notes

from mailpoller.core.tasks import within
from mailpoller.storage import thread as thread_module
from mailpoller.storage.sqlite import Database, SqliteUnavailable
from mailpoller.storage.thread import Pool, Worker, begin, completed


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs until the test is over."""
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_module, "SEEN_OUT_S", 0.2)


def test_work_is_done_in_order_by_one_thread_and_side_by_side_by_many(gate: threading.Event) -> None:
    one, done = Pool("one", 1), list[int]()
    for number in range(50):
        last = one.submit(done.append, number)
    last.result(5)
    assert done == list(range(50))
    many = Pool("many", 8)
    hanging = [many.submit(gate.wait) for _ in range(7)]
    assert [many.submit(pow, 2, number).result(5) for number in range(20)] == [2**number for number in range(20)]
    assert not any(one.done() for one in hanging)
    one.shutdown()
    assert sum(thread.name.startswith("many") for thread in threading.enumerate()) == 8


def test_work_that_was_given_up_before_it_began_is_not_done(gate: threading.Event) -> None:
    pool, done = Pool("one", 1), list[int]()
    pool.submit(gate.wait)
    unwanted = pool.submit(done.append, 1)
    assert unwanted.cancel()
    wanted = pool.submit(done.append, 2)
    gate.set()
    wanted.result(5)
    assert done == [2]
    pool.shutdown()
    with pytest.raises(RuntimeError):
        pool.submit(done.append, 3)


def test_an_idle_thread_ends_and_another_begins_when_there_is_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_module, "_IDLE_S", 0.02)
    pool = Pool("idle", 2)
    for _ in range(5):
        assert pool.submit(pow, 2, 2).result(5) == 4
        end = time.monotonic() + 5
        while any(thread.name.startswith("idle") for thread in threading.enumerate()) and time.monotonic() < end:
            time.sleep(0.01)
    assert not any(thread.name.startswith("idle") for thread in threading.enumerate())


def test_a_thread_that_cannot_be_begun_is_an_error_and_the_next_one_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool("none", 2)
    true = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError):
        pool.submit(pow, 2, 2)
    monkeypatch.setattr(threading.Thread, "start", true)
    assert pool.submit(pow, 2, 3).result(5) == 8


@pytest.mark.parametrize("dies", ["run", "_bootstrap"])
def test_a_thread_that_dies_at_its_birth_leaves_no_work_behind_it(monkeypatch: pytest.MonkeyPatch, dies: str) -> None:
    """What a process without memory gets: started and never at work, or not even that. CPython waits for the latter."""
    monkeypatch.setattr("mailpoller.storage.thread.BORN_WITHIN_S", 0.05)
    pool = Pool("test", 2)
    with monkeypatch.context() as without:
        without.setattr(f"mailpoller.storage.thread._Daemon.{dies}", lambda _: None, raising=False)
        with pytest.raises(RuntimeError, match="start new thread"):
            pool.submit(int, "7")
    threading._limbo.clear()  # type: ignore[attr-defined]
    assert pool.submit(int, "8").result(10) == 8
    pool.shutdown()


def test_a_thread_that_is_born_after_it_was_given_up_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailpoller.storage.thread.BORN_WITHIN_S", 0.05)
    late: list[threading.Thread] = []
    monkeypatch.setattr("mailpoller.storage.thread._Daemon._bootstrap", lambda self: late.append(self), raising=False)
    done: list[int] = []
    with pytest.raises(RuntimeError, match="start new thread"):
        begin(lambda: done.append(1), "late")
    threading._limbo.clear()  # type: ignore[attr-defined]
    late[0].run()
    assert done == []


def test_a_process_ends_while_a_thread_hangs() -> None:
    program = (
        "import asyncio, time\n"
        "from mailpoller.cli.ending import run_loop\n"
        "async def main():\n"
        "    asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)\n"
        "    await asyncio.sleep(0.1)\n"
        "    return 3\n"
        "assert run_loop(main()) == 3\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


async def test_work_that_hangs_is_abandoned_when_its_owner_is_cancelled(gate: threading.Event) -> None:
    worker = Worker("hangs")
    task = asyncio.create_task(worker.do(gate.wait))
    await asyncio.sleep(0.05)
    task.cancel()
    async with asyncio.timeout(2):
        with pytest.raises(asyncio.CancelledError):
            await task
    gate.set()
    await worker.close()


async def test_a_deadline_holds_whatever_swallows_cancellation(gate: threading.Event) -> None:
    async def stubborn() -> None:
        while not gate.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await within(0.1, stubborn())
    assert time.monotonic() - began < 2
    gate.set()
    assert await within(1, asyncio.sleep(0, "well")) == "well"
    with pytest.raises(ValueError, match="own"):
        await within(1, completed(_fail()))


async def _fail() -> None:
    raise ValueError("its own")


async def test_a_database_without_a_thread_is_trouble_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Database(tmp_path / "notes.db", NOTES)
    true = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(SqliteUnavailable, match="can't start new thread"):
        await base.write(note("first"))
    monkeypatch.setattr(threading.Thread, "start", true)
    await base.write(note("second"))
    await base.close()
    assert notes(tmp_path / "notes.db") == ["second"]


async def test_a_trigger_that_never_ends_is_interrupted_and_the_database_recovers(tmp_path: Path) -> None:
    base = Database(tmp_path / "notes.db", NOTES)
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    task = asyncio.create_task(base.write(lambda connection: connection.execute(endless).fetchone()))
    await asyncio.sleep(0.2)
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
        await base.write(note("after"))
        await base.close()
    assert notes(tmp_path / "notes.db") == ["after"]
