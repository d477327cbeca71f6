"""The SQLite queue looks after itself: space, old ids, files, rights, and says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import os
import pwd
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mailpoller.core.delivery import Receipt, Refusal
from mailpoller.core.errors import QueueVanished, TransientError
from mailpoller.core.spool import Octets
from mailpoller.sinks.sqlite import SqliteQueue, SqliteQueueConfig
from mailpoller.sinks.sqlite.consumer import open_queue
from mailpoller.testing.deliveries import HOSTILE, make_delivery, spooled
from unit.sink_runtime import HandClock, disk_steps, make_runtime, synced_names

LARGE = HOSTILE * 1000
ROOT = os.geteuid() == 0
Make = Callable[..., SqliteQueue]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue" / "support.db"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def make(path: Path, clock: HandClock) -> Make:
    def make(**settings: object) -> SqliteQueue:
        more = {"raw": True, "min_free": 0, "busy_timeout": "50ms", **settings}
        return SqliteQueueConfig.model_validate({"type": "sqlite", "path": path, **more}).build(
            "support", make_runtime(path.parent, clock)
        )

    return make


def acknowledge(path: Path, count: int = 100_000) -> int:
    with open_queue(path) as queue:
        taken = queue.take(count)
        return len(queue.ack([one.entry.delivery_id for one in taken.messages], taken.token))


def files(path: Path) -> list[str]:
    directory = path.with_name(path.name + ".octets")
    return sorted(os.listdir(directory)) if directory.exists() else []


def size_of(path: Path) -> int:
    return path.stat().st_size


def rows(path: Path, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(statement).fetchall()


# --- space -----------------------------------------------------------------------------------------------------------


async def test_the_file_does_not_grow_while_a_consumer_keeps_up(make: Make, path: Path) -> None:
    sink = make()
    sizes = []
    for round_ in range(12):
        await sink.deliver([make_delivery(round_ * 100 + i, octets=bytes(20_000)) for i in range(100)])
        acknowledge(path)
        await sink.upkeep()
        sizes.append(size_of(path) + size_of(path.with_name(path.name + "-wal")))
    await sink.close()
    assert sizes[-1] <= sizes[2] * 1.2


async def test_space_of_a_backlog_is_given_back_in_steps(make: Make, path: Path) -> None:
    sink = make()
    await sink.deliver([make_delivery(i, octets=bytes(60_000)) for i in range(800)])
    acknowledge(path)
    await sink.upkeep()
    await sink.close()  # the last one to close it brings the log back into the file
    assert size_of(path) < 10_000_000 < 800 * 60_000


async def test_delivering_alone_keeps_house_as_well(make: Make, path: Path, clock: HandClock) -> None:
    sink = make()
    await sink.deliver([make_delivery(1, octets=LARGE)])
    acknowledge(path)
    clock.advance(timedelta(minutes=2))
    await sink.deliver([make_delivery(2)])
    await sink.close()
    assert files(path) == []


# --- ids -------------------------------------------------------------------------------------------------------------


async def test_acknowledged_ids_are_forgotten_when_their_time_is_over_and_not_before(
    make: Make, path: Path, clock: HandClock
) -> None:
    sink = make(remember="180d")
    await sink.deliver([make_delivery(i) for i in range(1200)])
    acknowledge(path)
    clock.advance(timedelta(days=179))
    await sink.upkeep()
    (repeat,) = await sink.deliver([make_delivery(1)])
    assert repeat.repeated
    clock.advance(timedelta(days=2))
    await sink.upkeep()
    assert rows(path, "SELECT count(*) FROM acknowledged") == [(0,)]
    (answer,) = await sink.deliver([make_delivery(1)])
    assert not answer.repeated
    await sink.close()


async def test_ids_are_remembered_longer_than_any_ledger_keeps_them() -> None:
    assert SqliteQueueConfig(type="sqlite", path=Path("x")).remember > timedelta(days=90)


async def test_any_deletion_of_a_message_leaves_its_id_behind(make: Make, path: Path) -> None:
    sink = make()
    await sink.deliver([make_delivery(1), make_delivery(2, octets=LARGE)])
    rows(path, "DELETE FROM message")
    assert rows(path, "SELECT count(*) FROM content") == [(0,)]
    assert [answer.repeated for answer in await sink.deliver([make_delivery(1), make_delivery(2, octets=LARGE)])] == [
        True,
        True,
    ]
    await sink.close()


async def test_what_a_killed_process_may_have_left_unsynced_is_synced_before_it_is_called_a_repeat(make: Make) -> None:
    killed, sink = make(), make()
    await killed.deliver([make_delivery(1)])
    with synced_names() as synced:
        (answer,) = await sink.deliver([make_delivery(1)])
    assert answer.repeated
    assert "support.db-wal" in synced
    await sink.close()
    await killed.close()


# --- octets beside the database --------------------------------------------------------------------------------------


async def test_large_octets_lie_beside_the_database_until_they_are_acknowledged(make: Make, path: Path) -> None:
    sink = make()
    await sink.deliver([make_delivery(1, octets=LARGE), make_delivery(2)])
    assert files(path) == [f"{make_delivery(1).delivery_id}.eml"]
    await sink.upkeep()
    assert len(files(path)) == 1
    acknowledge(path)
    await sink.upkeep()
    await sink.close()
    assert files(path) == []
    assert rows(path, "SELECT count(*) FROM stray") == [(0,)]


async def test_a_spooled_message_is_linked_and_not_copied(make: Make, path: Path, tmp_path: Path) -> None:
    sink = make()
    octets = spooled(LARGE, tmp_path)
    assert octets.path is not None
    inode = octets.path.stat().st_ino
    await sink.deliver([make_delivery(1, octets=octets)])
    await sink.close()
    directory = path.with_name(path.name + ".octets")
    (file,) = directory.iterdir()
    assert file.stat().st_ino == inode
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


async def test_an_older_copy_that_was_restored_into_the_file_while_it_was_in_use_is_not_delivered_to(
    make: Make, path: Path, tmp_path: Path
) -> None:
    """As ``sqlite3 queue.db ".restore copy.db"`` does: it is the same file, and the same queue, as it was before."""
    sink = make()
    await sink.deliver([make_delivery(1)])
    with (
        contextlib.closing(sqlite3.connect(path)) as queue,
        contextlib.closing(sqlite3.connect(tmp_path / "copy")) as copy,
    ):
        queue.backup(copy)
        sink.expect(await sink.renewed())
        await sink.deliver([make_delivery(2)])
        copy.backup(queue)
    with pytest.raises(QueueVanished, match="older copy"):
        await sink.deliver([make_delivery(3)])
    await sink.close()


@pytest.mark.parametrize("together", [1, 2])
async def test_large_octets_are_synced_then_named_and_then_their_name_is_synced(
    make: Make, path: Path, together: int
) -> None:
    sink = make(inline=10)
    await sink.deliver([make_delivery(9)])
    batch = [make_delivery(uid) for uid in range(together)]
    with disk_steps() as steps:
        await sink.deliver(batch)
    await sink.close()
    for one in batch:
        (part,) = [step.removeprefix("move ") for step in steps if step.startswith(f"move {one.delivery_id}.eml.part-")]
        assert steps.index(f"sync {part}") < steps.index(f"move {part}")
    moves = [number for number, step in enumerate(steps) if step.startswith("move ")]
    assert any(step.startswith("sync") and ".part-" not in step for step in steps[moves[-1] + 1 :])


async def test_a_spool_file_that_vanished_refuses_its_message_and_no_other(
    make: Make, path: Path, tmp_path: Path
) -> None:
    sink = make()
    octets = Octets(None, 5, b"", tmp_path / "vanished")
    gone, held = await sink.deliver([make_delivery(1, octets=octets), make_delivery(2)])
    assert isinstance(gone, Refusal)
    assert not gone.permanent
    assert isinstance(held, Receipt)
    await sink.close()
    assert files(path) == []


async def test_a_message_that_is_larger_than_a_file_may_be_does_not_take_the_queue_down(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make()
    for code, expected in ((errno.EFBIG, Refusal), (errno.ENOSPC, TransientError)):

        def refuse(*arguments: object, code: int = code) -> None:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patched:
            patched.setattr("mailpoller.storage.disk.write_all", refuse)
            try:
                (answer,) = await sink.deliver([make_delivery(1, octets=LARGE)])
            except TransientError as error:
                answer = error
        assert isinstance(answer, expected)
    await sink.close()


async def test_files_that_a_crash_left_are_removed_after_an_hour_and_others_never(
    make: Make, path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make()
    await sink.deliver([make_delivery(1, octets=LARGE)])
    directory = path.with_name(path.name + ".octets")
    orphan = f"{make_delivery(9).delivery_id}.eml"
    for name in (orphan, f"{orphan}.part-1-1", "notes.txt"):
        (directory / name).write_bytes(b"x")
    clock.advance(timedelta(hours=2))
    await sink.upkeep()
    assert len(files(path)) == 4, "their rows may be about to be committed"
    monkeypatch.setattr("mailpoller.sinks.sqlite.octets.ORPHANED_AFTER", timedelta(seconds=-5))
    clock.advance(timedelta(hours=2))
    await sink.upkeep()
    await sink.close()
    assert files(path) == sorted([f"{make_delivery(1).delivery_id}.eml", "notes.txt"])


async def test_a_file_of_a_failed_attempt_serves_the_next_one(make: Make, path: Path) -> None:
    sink = make()
    await sink.upkeep()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    delivery = make_delivery(1, octets=LARGE)
    with pytest.raises(TransientError, match="locked"):
        await sink.deliver([delivery])
    blocker.close()
    (answer,) = await sink.deliver([delivery])
    assert isinstance(answer, Receipt)
    await sink.close()
    with open_queue(path) as queue:
        assert queue.show(delivery.delivery_id).octets() == LARGE


async def test_names_of_strays_that_lead_elsewhere_are_not_removed(make: Make, path: Path, tmp_path: Path) -> None:
    sink = make()
    await sink.deliver([make_delivery(1, octets=LARGE)])
    victim = tmp_path / "victim"
    victim.write_text("x")
    rows(path, "INSERT INTO stray VALUES ('../../victim')")
    await sink.upkeep()
    await sink.close()
    assert victim.exists()


# --- who may do what -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_whatever_the_umask_the_group_may_read_and_write_what_is_its_own(make: Make, path: Path) -> None:
    with umask(0o077):
        sink = make()
        await sink.deliver([make_delivery(1, octets=LARGE)])
    modes = {name: mode_of(path.with_name(path.name + name)) for name in ("", "-wal", "-shm", ".octets")}
    assert modes == {"": 0o660, "-wal": 0o660, "-shm": 0o660, ".octets": 0o2750}
    assert mode_of(path.parent) == 0o2770
    await sink.close()


@pytest.mark.skipif(not ROOT, reason="needs root, to be somebody else")
async def test_a_member_of_the_group_consumes_and_a_stranger_does_not(clock: HandClock) -> None:
    nobody = pwd.getpwnam("nobody")
    group = grp.getgrnam("mail")
    program = (
        "import os, sys; from pathlib import Path; from mailpoller.sinks.sqlite.consumer import open_queue\n"
        "uid, gid, *groups = map(int, sys.argv[2:])\n"
        "os.setgroups(groups); os.setgid(gid); os.setuid(uid)\n"
        "with open_queue(Path(sys.argv[1])) as queue:\n"
        "    taken = queue.take(5)\n"
        "    assert all(one.octets() for one in taken.messages)\n"
        "    print(len(queue.ack([one.entry.delivery_id for one in taken.messages], taken.token)))\n"
    )

    def consume(groups: list[int]) -> subprocess.CompletedProcess[str]:
        # It becomes somebody else by itself: the interpreter may lie where only root can start it.
        who = [str(number) for number in (nobody.pw_uid, nobody.pw_gid, *groups)]
        return subprocess.run([sys.executable, "-c", program, str(path), *who], capture_output=True, text=True)

    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        path = Path(directory) / "queue" / "support.db"
        config = SqliteQueueConfig(type="sqlite", path=path, raw=True, min_free=0, group=group.gr_name)
        sink = config.build("support", make_runtime(path.parent, clock))
        with umask(0o077):
            await sink.deliver([make_delivery(1), make_delivery(2, octets=LARGE)])
            stranger = consume([])
            assert stranger.returncode != 0
            assert "there is no queue" in stranger.stderr or "Permission" in stranger.stderr
            member = consume([group.gr_gid])
            assert member.stdout == "2\n", member.stderr
            # And with nobody else there: log and index are the consumer's then, and the daemon must be able to use
            # them.
            await sink.close()
            sink = config.build("support", make_runtime(path.parent, clock))
            await sink.deliver([make_delivery(3, octets=LARGE)])
            assert consume([group.gr_gid]).stdout == "1\n"
            await sink.upkeep()
            assert files(path) == []
            await sink.close()


@pytest.mark.skipif(not ROOT, reason="needs root, to give files to a group")
async def test_a_directory_whose_group_cannot_use_it_is_warned_about(make: Make, path: Path) -> None:
    path.parent.mkdir()
    with capture_logs() as logs:
        sink = make(group="mail")
        await sink.deliver([make_delivery(1)])
        await sink.close()
    assert [entry["group"] for entry in logs if entry["event"] == "queue.unshared"] == ["mail"]


async def test_a_group_that_does_not_exist_is_named(make: Make) -> None:
    sink = make(group="no-such-group")
    with pytest.raises(TransientError, match="there is no group no-such-group"):
        await sink.check()
    await sink.close()


async def test_a_link_in_place_of_the_database_is_refused(make: Make, path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    (tmp_path / "ledger.db").write_bytes(b"")
    path.symlink_to(tmp_path / "ledger.db")
    sink = make()
    with pytest.raises(TransientError, match="not a regular file"):
        await sink.deliver([make_delivery(1)])
    await sink.close()
    assert (tmp_path / "ledger.db").read_bytes() == b""


@pytest.mark.parametrize("trap", ["link", "writable"])
async def test_an_octets_directory_that_is_not_ours_alone_is_not_used(
    make: Make, path: Path, tmp_path: Path, trap: str
) -> None:
    path.parent.mkdir()
    directory = path.with_name(path.name + ".octets")
    if trap == "link":
        (tmp_path / "elsewhere").mkdir()
        directory.symlink_to(tmp_path / "elsewhere")
    else:
        directory.mkdir()
        directory.chmod(0o770)
    sink = make()
    with pytest.raises(TransientError, match="octets"):
        await sink.deliver([make_delivery(1, octets=LARGE)])
    await sink.close()
    assert not (tmp_path / "elsewhere").exists() or not list((tmp_path / "elsewhere").iterdir())


# --- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [False, True], ids=["one that delivers", "one that has only looked"])
async def test_check_says_when_a_consumer_holds_the_lock(make: Make, path: Path, fresh: bool) -> None:
    sink = make()
    await sink.deliver([make_delivery(1)])
    if fresh:
        await sink.close()
        sink = make()
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransientError, match="locked"):
        await sink.check()
    blocker.close()
    await sink.check()
    await sink.close()


async def test_check_leaves_a_file_that_is_no_queue_as_it_is(make: Make, path: Path) -> None:
    path.parent.mkdir()
    rows(path, "CREATE TABLE other (x)")
    before = path.read_bytes()
    sink = make()
    with pytest.raises(TransientError, match="not a mailpoller queue"):
        await sink.check()
    await sink.close()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


async def test_check_migrates_no_queue(make: Make, path: Path) -> None:
    path.parent.mkdir()
    path.touch()  # version 0: a delivery would make the tables
    sink = make()
    await sink.check()
    await sink.close()
    assert path.read_bytes() == b""


async def test_check_says_when_a_later_version_wrote_the_queue(make: Make, path: Path) -> None:
    sink = make()
    await sink.deliver([make_delivery(1)])
    await sink.close()
    rows(path, "PRAGMA user_version=99")
    sink = make()
    with pytest.raises(TransientError, match="version 99"):
        await sink.check()
    await sink.close()


async def test_check_says_when_the_directory_cannot_be_made(make: Make, path: Path, tmp_path: Path) -> None:
    path.parent.write_text("a file")
    sink = make()
    with pytest.raises(TransientError, match="not a directory"):
        await sink.check()
    await sink.close()


async def test_check_notices_a_queue_that_was_removed_while_in_use(make: Make, path: Path) -> None:
    sink = make()
    await sink.deliver([make_delivery(1)])
    path.unlink()
    with pytest.raises(TransientError, match=r"support\.db"):
        await sink.check()
    assert not path.exists()
    await sink.close()


async def test_a_disk_that_is_nearly_full_is_left_alone(make: Make, path: Path) -> None:
    sink = make(min_free="900000GB")
    for call in (sink.check(), sink.deliver([make_delivery(1)])):
        with pytest.raises(TransientError, match="nearly full"):
            await call
    await sink.close()
    assert rows(path, "SELECT count(*) FROM message") == [(0,)]


async def test_a_queue_that_is_no_queue_is_not_written_to(make: Make, path: Path) -> None:
    path.parent.mkdir()
    rows(path, "CREATE TABLE other (x)")
    sink = make()
    with pytest.raises(TransientError, match="not a mailpoller queue"):
        await sink.deliver([make_delivery(1)])
    await sink.close()


async def test_a_queue_that_was_removed_while_in_use_is_not_silently_begun_anew(make: Make, path: Path) -> None:
    sink = make()
    await sink.deliver([make_delivery(1)])
    path.rename(path.with_name("aside"))
    for _ in range(3):
        with pytest.raises(TransientError, match="removed or replaced"):
            await sink.deliver([make_delivery(2)])
    assert not path.exists()
    path.with_name("aside").rename(path)
    assert isinstance((await sink.deliver([make_delivery(2)]))[0], Receipt)
    await sink.close()


async def test_a_reader_that_lets_the_log_grow_is_told_of_once_and_when_it_is_over(make: Make, path: Path) -> None:
    sink = make(wal_warning="1MB")
    await sink.deliver([make_delivery(1)])
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM message").fetchall()
    with capture_logs() as logs:
        for round_ in range(3):
            await sink.deliver([make_delivery(round_ * 100 + i, octets=bytes(10_000)) for i in range(10, 110)])
        (doubt,) = await sink.upkeep()
        assert doubt.kind in sink.doubts
        assert "reader keeps a transaction open" in doubt.detail
        reader.close()
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert list(await sink.upkeep()) == []
    await sink.close()
    events = [entry["event"] for entry in logs if entry["event"].startswith("queue.wal_")]
    assert events == ["queue.wal_grown", "queue.wal_shrunk"]


async def test_an_event_that_no_row_can_hold_is_refused_for_good_and_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.sinks.sqlite.sink.LARGEST_ROW", 5000)
    sink = make()
    refused, held = await sink.deliver([make_delivery(1, text="x" * 6000, octets=LARGE), make_delivery(2)])
    await sink.close()
    assert isinstance(refused, Refusal)
    assert refused.permanent
    assert isinstance(held, Receipt)


async def test_deliveries_go_on_beside_a_consumer_that_never_rests(make: Make, path: Path) -> None:
    sink = make(busy_timeout="5s")
    await sink.upkeep()
    stop = asyncio.Event()
    acknowledged = 0

    def consume() -> int:
        done = 0
        while not stop.is_set():
            done += acknowledge(path, 7)
        return done + acknowledge(path)

    consumer = asyncio.create_task(asyncio.to_thread(consume))
    for round_ in range(15):
        octets = [LARGE if i == 3 else HOSTILE for i in range(10)]
        await sink.deliver([make_delivery(round_ * 10 + i, octets=octets[i]) for i in range(10)])
        await sink.upkeep()
    stop.set()
    acknowledged = await consumer
    await sink.close()
    assert acknowledged == 150
