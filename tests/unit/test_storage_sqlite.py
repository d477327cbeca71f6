"""The durable SQLite writer: shared commits, trouble and its end, migrations."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.storage.sqlite import Database, Schema, SqliteUnavailable, connect_read_only, database

VERSION_1 = "CREATE TABLE note (\n    id INTEGER PRIMARY KEY,\n    text TEXT NOT NULL UNIQUE\n);\n"
VERSION_2 = "ALTER TABLE note ADD COLUMN size INTEGER;\nUPDATE note SET size = length(text);\n"
NOTES = Schema("notebook", 0x6E6F7465, (VERSION_1,))
NOTES_2 = Schema("notebook", 0x6E6F7465, (VERSION_1, VERSION_2))

Work = Callable[[sqlite3.Connection], int]


def note(text: str) -> Work:
    return lambda connection: connection.execute("INSERT INTO note (text) VALUES (?)", (text,)).rowcount


def notes(path: Path) -> list[str]:
    """What another process sees."""
    with closing(sqlite3.connect(path)) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM note ORDER BY id")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "notes.db"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


async def stall(base: Database) -> threading.Event:
    """Keep the thread busy until the event is set, so that what is asked for meanwhile comes as one group."""
    entered, go = threading.Event(), threading.Event()

    def work(connection: sqlite3.Connection) -> None:
        entered.set()
        go.wait(60)

    stalled = asyncio.create_task(base.read(work))
    await asyncio.to_thread(entered.wait, 10)
    go.stalled = stalled  # type: ignore[attr-defined]  # or the task might be collected
    return go


# --- commits ---------------------------------------------------------------------------------------------------
async def test_two_hundred_concurrent_writes_share_a_commit(path: Path) -> None:
    base = Database(path, NOTES)
    await base.open()
    go = await stall(base)
    writes = [asyncio.create_task(base.write(note(str(n)))) for n in range(200)]
    await asyncio.sleep(0)
    before = base.commits
    go.set()
    assert await asyncio.gather(*writes) == [1] * 200
    assert base.commits - before == 1
    assert len(notes(path)) == 200
    await base.close()


async def test_a_write_that_fails_hurts_no_other_in_its_commit(path: Path) -> None:
    base = Database(path, NOTES)
    await base.write(note("taken"))

    def breaks(connection: sqlite3.Connection) -> None:
        note("half done")(connection)
        raise ZeroDivisionError

    go = await stall(base)
    asked = [note("a"), note("taken"), note("b"), breaks, note("c")]
    tasks = [asyncio.create_task(base.write(work)) for work in asked]
    await asyncio.sleep(0)
    go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [answer if isinstance(answer, int) else type(answer) for answer in answers] == [
        1, sqlite3.IntegrityError, 1, ZeroDivisionError, 1,
    ]  # fmt: skip
    assert notes(path) == ["taken", "a", "b", "c"]
    await base.close()


async def test_a_write_that_fails_alone_leaves_nothing_and_harms_nothing(path: Path) -> None:
    base = Database(path, NOTES)

    def breaks(connection: sqlite3.Connection) -> None:
        note("half done")(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await base.write(breaks)
    await base.write(note("a"))
    assert notes(path) == ["a"]
    await base.close()


async def test_a_commit_is_synced_before_it_is_acknowledged(path: Path) -> None:
    base = Database(path, NOTES)
    assert await base.read(lambda c: c.execute("PRAGMA synchronous").fetchone()) == (2,)
    assert await base.read(lambda c: c.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
    await base.close()


async def test_a_cancelled_caller_tears_no_commit_and_is_cancelled(path: Path) -> None:
    base = Database(path, NOTES)
    await base.open()
    go = await stall(base)
    task = asyncio.create_task(base.write(note("whole")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done(), "it waits for the commit that is under way"
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert notes(path) == ["whole"]
    await base.close()


async def test_a_second_cancellation_is_obeyed_at_once(path: Path) -> None:
    base = Database(path, NOTES)
    await base.open()
    go = await stall(base)
    task = asyncio.create_task(base.write(note("whole")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not go.is_set()
    go.set()
    await base.close()
    assert notes(path) == ["whole"]


async def test_close_finishes_what_was_asked_for_and_refuses_the_rest(path: Path) -> None:
    base = Database(path, NOTES)
    await base.open()
    go = await stall(base)
    task = asyncio.create_task(base.write(note("last")))
    await asyncio.sleep(0)
    closing_task = asyncio.create_task(base.close())
    await asyncio.sleep(0)
    with pytest.raises(SqliteUnavailable) as caught:
        await base.write(note("too late"))
    assert caught.value.kind == "closed"
    go.set()
    await asyncio.gather(task, closing_task)
    await base.close()
    assert notes(path) == ["last"]
    assert not [thread for thread in threading.enumerate() if thread.name == f"sqlite-{path.name}"]


def test_a_process_that_forgets_to_close_still_ends(path: Path) -> None:
    program = (
        "import asyncio, sys, pathlib\n"
        "from mailpoller.storage.sqlite import Database, Schema\n"
        "async def main():\n"
        "    base = Database(pathlib.Path(sys.argv[1]), Schema('x', 7, ('CREATE TABLE t (a);',)))\n"
        "    await base.write(lambda c: c.execute('INSERT INTO t VALUES (1)').rowcount)\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", program, path], timeout=120, capture_output=True).returncode == 0


# --- trouble ---------------------------------------------------------------------------------------------------
async def test_a_full_disk_is_said_and_writing_resumes_when_there_is_room(small_disk: Path) -> None:
    base = Database(small_disk / "notes.db", NOTES)
    await base.write(note("before"))
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    big = note("x" * 100_000)
    for _ in range(3):
        with pytest.raises(SqliteUnavailable) as caught:
            await base.write(big)
        assert caught.value.kind == "full"
    assert await base.read(lambda c: c.execute("SELECT text FROM note").fetchall()) == [("before",)]
    ballast.unlink()
    await base.write(big)
    assert len(notes(base.path)) == 2
    await base.close()


async def test_a_full_disk_fails_the_whole_group_and_records_none_of_it(small_disk: Path) -> None:
    base = Database(small_disk / "notes.db", NOTES)
    await base.write(note("before"))
    go = await stall(base)
    tasks = [asyncio.create_task(base.write(note(text))) for text in ("small", "x" * 3_000_000, "other")]
    await asyncio.sleep(0)
    go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(answer, "kind", None) for answer in answers] == ["full"] * 3
    assert len({id(answer) for answer in answers}) == 3, "no two tasks raise one exception object"
    await base.write(note("after"))
    assert notes(base.path) == ["before", "after"]
    await base.close()


async def test_a_read_only_file_system_is_said_and_writing_resumes(small_disk: Path) -> None:
    base = Database(small_disk / "notes.db", NOTES)
    await base.write(note("before"))
    await base.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    base = Database(small_disk / "notes.db", NOTES)
    with pytest.raises(SqliteUnavailable) as caught:
        await base.write(note("refused"))
    assert caught.value.kind in ("read-only", "io")
    with closing(connect_read_only(base.path, NOTES)) as connection:
        assert connection.execute("SELECT text FROM note").fetchall() == [("before",)]
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    await base.write(note("after"))
    assert notes(base.path) == ["before", "after"]
    await base.close()


async def test_a_file_that_may_not_grow_is_trouble_that_passes(path: Path) -> None:
    program = (
        "import asyncio, pathlib, resource, sys\n"
        "from mailpoller.storage.sqlite import Database, Schema, SqliteUnavailable\n"
        "async def main():\n"
        "    base = Database(pathlib.Path(sys.argv[1]), Schema('x', 7, ('CREATE TABLE t (a);',)))\n"
        "    write = lambda: base.write(lambda c: c.execute('INSERT INTO t VALUES (zeroblob(200000))').rowcount)\n"
        "    await write()\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "    for _ in range(3):\n"
        "        try:\n"
        "            await write()\n"
        "        except SqliteUnavailable as error:\n"
        "            print(error.kind)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    await write()\n"
        "    print(await base.read(lambda c: c.execute('SELECT count(*) FROM t').fetchone()[0]))\n"
        "    await base.close()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], timeout=120, capture_output=True, text=True)
    printed = [line for line in done.stdout.splitlines() if "info" not in line]
    assert (done.returncode, printed) == (0, ["io", "io", "io", "2"]), done.stderr


async def test_a_lock_held_by_another_is_said_after_the_busy_time_out_and_passes(path: Path) -> None:
    base = Database(path, NOTES, busy_timeout=timedelta(milliseconds=50))
    await base.write(note("before"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SqliteUnavailable, match="locked") as caught:
            await base.write(note("refused"))
        assert caught.value.kind == "busy"
        assert await base.read(lambda c: c.execute("SELECT count(*) FROM note").fetchone()) == (1,)
        other.execute("COMMIT")
    await base.write(note("after"))
    assert notes(path) == ["before", "after"]
    await base.close()


async def test_a_read_never_waits_for_a_lock_that_a_write_beside_it_cannot_get(path: Path) -> None:
    base = Database(path, NOTES, busy_timeout=timedelta(milliseconds=50))
    await base.write(note("before"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        go = await stall(base)
        write = asyncio.create_task(base.write(note("refused")))
        read = asyncio.create_task(base.read(lambda c: c.execute("SELECT count(*) FROM note").fetchone()))
        await asyncio.sleep(0)
        go.set()
        assert await read == (1,)
        with pytest.raises(SqliteUnavailable):
            await write
    await base.close()


async def test_a_file_that_is_no_database_is_corrupt(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"From nobody Thu Jan  1 00:00:00 1970\n" * 200)
    base = Database(path, NOTES)
    with pytest.raises(SqliteUnavailable) as caught:
        await base.open()
    assert caught.value.kind == "corrupt"
    await base.close()


@pytest.mark.parametrize("recreate", [False, True])
async def test_nothing_is_committed_to_a_file_that_was_removed(path: Path, recreate: bool) -> None:
    base = Database(path, NOTES, recreate=recreate)
    await base.write(note("old"))
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.rename(f"{name}.away")
    if recreate:
        await base.write(note("new"))
        assert notes(path) == ["new"]
    else:
        for _ in range(2):
            with pytest.raises(SqliteUnavailable) as caught:
                await base.write(note("new"))
            assert caught.value.kind == "replaced"
        assert not path.exists()
        Path(f"{path}.away").rename(path)
        await base.write(note("new"))
        assert notes(path)[-1] == "new"
    await base.close()


async def test_files_are_private_whatever_the_umask_and_open_to_the_group_if_asked(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        ours = Database(tmp_path / "ledger" / "a.db", NOTES)
        shared = Database(tmp_path / "queue" / "b.db", NOTES, file_mode=0o660, directory_mode=0o2770)
        os.umask(0)
        await ours.write(note("a"))
        os.umask(0o077)
        await shared.write(note("b"))
    finally:
        os.umask(before)

    def modes(path: Path) -> list[int]:
        return [os.stat(name).st_mode & 0o7777 for name in (path.parent, path, f"{path}-wal", f"{path}-shm")]

    assert modes(ours.path) == [0o700, 0o600, 0o600, 0o600]
    assert modes(shared.path) == [0o2770, 0o660, 0o660, 0o660]
    await ours.close()
    await shared.close()


async def test_a_log_that_a_reader_let_grow_is_cut_when_the_reader_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "WAL_LIMIT", 20 << 20)
    monkeypatch.setattr(database, "WAL_RETRY", timedelta(0))
    monkeypatch.setattr(database, "WAL_PATIENCE", timedelta(milliseconds=10))
    base = Database(path, NOTES)
    await base.write(note("before"))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM note").fetchone()
        for n in range(12):
            await base.write(note(f"{n}" + "x" * 2_000_000))
        assert base.wal_bytes > 20 << 20
        reader.execute("COMMIT")
    await base.write(note("after"))
    assert base.wal_bytes < 1 << 20
    await base.close()


# --- migrations ------------------------------------------------------------------------------------------------
async def test_an_older_file_is_migrated_and_a_copy_is_kept(path: Path) -> None:
    base = Database(path, NOTES)
    await base.write(note("four"))
    await base.close()
    base = Database(path, NOTES_2)
    assert await base.read(lambda c: c.execute("SELECT text, size FROM note").fetchall()) == [("four", 4)]
    await base.close()
    backup = path.with_name("notes.db.v1.backup")
    assert os.stat(backup).st_mode & 0o777 == 0o600
    assert notes(backup) == ["four"]
    rolled_back = Database(backup, NOTES)
    await rolled_back.write(note("five"))
    await rolled_back.close()


async def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    base = Database(path, NOTES)
    await base.write(note("four"))
    await base.close()
    broken = Schema("notebook", NOTES.application_id, (VERSION_1, VERSION_2 + "UPDATE absent SET x = 1;\n"))
    base = Database(path, broken)
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await base.open()
    await base.close()
    base = Database(path, NOTES)
    await base.write(note("five"))
    await base.close()
    assert notes(path) == ["four", "five"]


async def test_a_newer_file_is_refused_naming_both_versions(path: Path) -> None:
    base = Database(path, NOTES_2)
    await base.open()
    await base.close()
    base = Database(path, NOTES)
    with pytest.raises(SqliteUnavailable, match=r"version 2.*up to 1") as caught:
        await base.open()
    assert caught.value.kind == "newer"
    await base.close()


async def test_a_database_of_another_kind_is_refused_and_left_alone(path: Path) -> None:
    base = Database(path, NOTES)
    await base.open()
    await base.close()
    other = Database(path, Schema("ledger", 0x6D706C67, (VERSION_1,)))
    with pytest.raises(SqliteUnavailable, match="not a mailpoller ledger") as caught:
        await other.open()
    assert caught.value.kind == "foreign"
    await other.close()
    assert notes(path) == []
