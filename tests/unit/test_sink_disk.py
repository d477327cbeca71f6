"""What embedded sinks share: work in threads that ends whole, octets on disk bit for bit, ids within bounds."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from mailpoller.core.errors import TransientError
from mailpoller.core.spool import Octets
from mailpoller.storage import disk
from mailpoller.storage.markfile import MarkFile
from mailpoller.storage.recent import Recent
from mailpoller.storage.thread import Worker
from mailpoller.testing.deliveries import HOSTILE, spooled
from unit.sink_runtime import disk_steps

OCTETS = HOSTILE * 3000


async def started(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 60)


async def test_a_cancelled_caller_waits_for_the_work_in_hand_and_is_then_cancelled() -> None:
    worker, begun, go, ended = Worker("test"), threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(60)
        ended.set()

    task = asyncio.create_task(worker.do(work))
    await started(begun)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    await worker.close()


async def test_a_second_cancellation_does_not_wait_for_a_disk_that_hangs() -> None:
    worker, begun, go = Worker("test"), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(60)
        raise OSError("and nobody is left to hear it")

    task = asyncio.create_task(worker.do(work))
    await started(begun)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
    assert task.done()
    go.set()
    await worker.close()


async def test_a_worker_does_one_thing_after_another_in_the_order_of_asking() -> None:
    worker = Worker("test")
    done: list[int] = []
    await asyncio.gather(*(worker.do(done.append, number) for number in range(50)))
    await worker.close()
    await worker.close()
    assert done == list(range(50))


def test_the_newest_ids_are_remembered_and_never_more_than_the_limit() -> None:
    recent = Recent(limit=3)
    ids = [str(uuid4()) for _ in range(4)] + ["no uuid, but an id"]
    recent.add(ids)
    recent.add(ids[-1:])
    assert [one in recent for one in ids] == [False, False, True, True, True]


def refuse(code: int) -> Callable[..., None]:
    def refused(*arguments: object, **more: object) -> None:
        raise OSError(code, os.strerror(code))

    return refused


@pytest.mark.parametrize(
    "refused", [(), ("link",), ("link", "copy_file_range")], ids=["linked", "copied", "read and written"]
)
def test_a_spooled_message_comes_out_bit_for_bit_on_any_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]
) -> None:
    octets = spooled(OCTETS, tmp_path)
    for name in refused:
        monkeypatch.setattr(os, name, refuse(errno.EXDEV))
    with disk.directory(tmp_path) as within:
        disk.write_octets(octets, "held", within)
    octets.close()
    assert (tmp_path / "held").read_bytes() == OCTETS
    assert stat.S_IMODE((tmp_path / "held").stat().st_mode) == 0o640


def test_a_write_that_takes_a_part_only_is_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, octets: real(descriptor, bytes(octets[:7])))
    with disk.directory(tmp_path) as within:
        disk.write_octets(Octets.of(HOSTILE), "held", within)
    assert (tmp_path / "held").read_bytes() == HOSTILE


def test_what_could_not_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    for octets in (Octets.of(HOSTILE), spooled(HOSTILE, tmp_path)):
        with disk.directory(tmp_path) as within, pytest.raises(OSError, match="Input/output error"):
            disk.write_octets(octets, "held", within)
        assert not (tmp_path / "held").exists()


def test_a_file_that_another_queue_linked_keeps_that_queue_s_group_and_mode(tmp_path: Path) -> None:
    octets = spooled(HOSTILE, tmp_path)
    assert octets.path is not None
    os.link(octets.path, tmp_path / "other")
    (tmp_path / "other").chmod(0o600)
    with disk.directory(tmp_path) as within:
        disk.write_octets(octets, "held", within)
    assert (tmp_path / "held").stat().st_ino != (tmp_path / "other").stat().st_ino
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o600


def test_a_directory_inherits_its_group_where_setting_the_bit_is_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o2770)
    monkeypatch.setattr(os, "chmod", refuse(errno.EPERM))
    before = os.umask(0o077)
    try:
        disk.make_directory(tmp_path / "a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & stat.S_ISGID


def test_a_directory_is_made_with_those_above_it_and_an_older_one_is_left_as_it_is(tmp_path: Path) -> None:
    disk.make_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o2770
    assert not (tmp_path / "a").stat().st_mode & stat.S_IWGRP
    (tmp_path / "a" / "b").chmod(0o700)
    disk.make_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_a_probe_leaves_nothing_behind_even_after_one_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / f".mailpoller-check-{os.getpid()}").write_bytes(b"")
    disk.require_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TransientError, match="cannot write in"):
        disk.require_writable(tmp_path / "missing")


async def test_a_directory_is_probed_by_many_at_once(tmp_path: Path) -> None:
    await asyncio.gather(*(asyncio.to_thread(disk.require_writable, tmp_path) for _ in range(50)))
    assert list(tmp_path.iterdir()) == []


def test_the_mark_of_a_queue_is_synced_then_named_and_then_its_name_is_synced(tmp_path: Path) -> None:
    mark = MarkFile("support", tmp_path, tmp_path, ".mark")
    order = ["sync .mark.part", "move .mark.part", f"sync {tmp_path.name}"]
    with disk_steps() as steps:
        mark.keep(-1)
    assert steps == order
    with disk_steps() as steps:
        assert mark.renewed(-1) is not None
    assert steps == order
