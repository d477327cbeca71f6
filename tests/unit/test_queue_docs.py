"""The page for consumers is true: its tables are the file's, its statements and programs do what it says."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from mailpoller.sinks.sqlite import SqliteQueueConfig
from mailpoller.sinks.sqlite.schema import QUEUE
from mailpoller.testing.deliveries import HOSTILE, SAMPLE, make_delivery
from unit.sink_runtime import make_runtime

PAGE = (Path(__file__).parents[2] / "docs" / "queue-sqlite.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A queue of three messages, the second with octets in a file."""
    path = tmp_path / "support.db"
    sink = SqliteQueueConfig(type="sqlite", path=path, raw=True, min_free=0).build("support", make_runtime(tmp_path))
    await sink.deliver([make_delivery(1), make_delivery(2, octets=HOSTILE * 1000), make_delivery(3, priority="high")])
    await sink.close()
    return path


def count(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as queue:
        return int(queue.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def test_every_table_and_column_is_described(path: Path) -> None:
    with closing(sqlite3.connect(path)) as queue:
        tables = {name for (name,) in queue.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        for table in tables - {"sqlite_sequence"}:
            assert f"`{table}`: " in PAGE
        for table in ("message", "content"):
            section = PAGE.split(f"`{table}`: ")[1].split("\n\n`")[0]
            described = {
                (column, kind)
                for names, kind in re.findall(r"^\| ((?:`\w+`(?:, )?)+) (\w+) \|", section, re.MULTILINE)
                for column in re.findall(r"\w+", names)
            }
            held = {(row[1], row[2]) for row in queue.execute(f"PRAGMA table_info({table})")}
            assert described == held


def test_version_and_application_id_are_the_page_s() -> None:
    assert f"`PRAGMA application_id` is {QUEUE.application_id} (`0x{QUEUE.application_id:X}`)" in PAGE
    assert f"`PRAGMA user_version` is {QUEUE.version}." in PAGE


async def test_the_statements_take_give_back_hold_on_and_acknowledge(path: Path) -> None:
    take, acknowledge, give_back, hold_on = blocks("sql")
    now = time.time()
    with closing(sqlite3.connect(path, isolation_level=None)) as queue:
        queue.row_factory = sqlite3.Row
        words = {"now": now, "until": now + 60, "taker": "page", "count": 2}
        rows = queue.execute(take, {**words, "lease": "one"}).fetchall()
        assert {row["delivery_id"] for row in rows} == {make_delivery(uid).delivery_id for uid in (3, 1)}
        assert all(
            row["octets"] == SAMPLE and json.loads(row["event"])["deliveryid"] == row["delivery_id"] for row in rows
        )
        assert len(queue.execute(take, {**words, "lease": "two"}).fetchall()) == 1
        first, second = (row["delivery_id"] for row in rows)
        for statement in (acknowledge, give_back, hold_on):
            assert queue.execute(statement, {"delivery_id": first, "lease": "two", "until": now}).rowcount == 0
        assert queue.execute(hold_on, {"delivery_id": first, "lease": "one", "until": now + 500}).rowcount == 1
        assert queue.execute(give_back, {"delivery_id": second, "lease": "one", "until": 0}).rowcount == 1
        assert [row["delivery_id"] for row in queue.execute(take, {**words, "lease": "three"})] == [second]
        assert queue.execute(acknowledge, {"delivery_id": first, "lease": "one"}).rowcount == 1
    assert (count(path, "message"), count(path, "content"), count(path, "acknowledged")) == (2, 2, 1)


async def test_the_program_in_python_consumes_the_queue(path: Path, tmp_path: Path) -> None:
    (program,) = blocks("python")
    (tmp_path / "consumer.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "consumer.py"), str(path)], capture_output=True, text=True, check=True
    )
    expected = {
        f"{make_delivery(uid).mid} {size}"
        for uid, size in ((1, len(SAMPLE)), (2, len(HOSTILE) * 1000), (3, len(SAMPLE)))
    }
    assert set(done.stdout.splitlines()) == expected
    assert count(path, "message") == 0


async def test_example_consumers_process_each_message_once(path: Path, tmp_path: Path) -> None:
    program = Path(__file__).parents[2] / "examples" / "consumers" / "sqlite.py"
    command = [sys.executable, str(program), str(path), str(tmp_path / "tickets.db")]
    consumers = [subprocess.Popen(command) for _ in range(2)]
    try:
        deadline = time.monotonic() + 60
        while count(path, "message"):
            assert time.monotonic() < deadline
            assert all(one.poll() is None for one in consumers)
            time.sleep(0.02)
        # A repeat is refused by the queue itself, also after it was acknowledged.
        sink = SqliteQueueConfig(type="sqlite", path=path, min_free=0).build("support", make_runtime(tmp_path))
        (again,) = await sink.deliver([make_delivery(1)])
        await sink.close()
    finally:
        for one in consumers:
            one.kill()
            one.wait()
    assert again.repeated  # type: ignore[union-attr]
    with closing(sqlite3.connect(tmp_path / "tickets.db")) as tickets:
        ids = sorted(row[0] for row in tickets.execute("SELECT delivery_id FROM ticket"))
    assert ids == sorted(make_delivery(uid).delivery_id for uid in (1, 2, 3))
