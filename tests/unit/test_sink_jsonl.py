"""The file of lines: appended whole or not at all, mended after a crash, and free to be moved away."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mailpoller.core.delivery import Event, Receipt
from mailpoller.core.errors import TransientError
from mailpoller.sinks.jsonl import JsonlQueue, JsonlQueueConfig
from mailpoller.testing.deliveries import make_delivery
from unit.sink_runtime import HandClock, make_runtime, synced_names


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "events.jsonl"


def make(path: Path, clock: HandClock, **settings: object) -> JsonlQueue:
    config = JsonlQueueConfig.model_validate({"type": "jsonl", "path": path, "min_free": 0, **settings})
    return config.build("support", make_runtime(path.parent, clock))


async def deliver(sink: JsonlQueue, *uids: int, **more: object) -> list[bool]:
    """Deliver a batch: whether each was said to be a repeat."""
    answers = await sink.deliver([make_delivery(uid, place="inside", octets_wanted=False, **more) for uid in uids])
    assert all(isinstance(answer, Receipt) for answer in answers)
    return [isinstance(answer, Receipt) and answer.repeated for answer in answers]


def uids(path: Path) -> list[int]:
    text = path.read_bytes()
    assert text == b"" or text.endswith(b"\n")
    return [int(json.loads(line)["data"]["uid"]) for line in text.splitlines()]


async def test_an_event_in_several_lines_becomes_one(path: Path, clock: HandClock) -> None:
    sink = make(path, clock)
    delivery = make_delivery(1)
    data = json.dumps(json.loads(delivery.event.data()), indent=2).replace("\n", "\r\n").encode()
    event = Event(delivery.event.envelope, (data,))
    await sink.deliver([replace(delivery, event=event)])
    await sink.close()
    (line,) = path.read_bytes().splitlines()
    assert json.loads(line) == json.loads(event.structured())


@pytest.mark.parametrize("torn", [b'{"deliveryid": "half', b"\0\0\0", b"x" * 200_000, b'["whole", "but no event"]'])
async def test_a_torn_last_line_is_cut_off_and_no_whole_line_ever(path: Path, clock: HandClock, torn: bytes) -> None:
    sink = make(path, clock)
    await deliver(sink, 1, 2)
    await sink.close()
    with path.open("ab") as file:
        file.write(torn)
    sink = make(path, clock)
    with capture_logs() as logs:
        await deliver(sink, 3)
    await sink.close()
    assert uids(path) == [1, 2, 3]
    assert [entry["cut_bytes"] for entry in logs if entry["event"] == "jsonl.repaired"] == [len(torn)]


async def test_a_last_line_that_only_lacks_its_end_is_kept(path: Path, clock: HandClock) -> None:
    sink = make(path, clock)
    await deliver(sink, 1, 2)
    path.write_bytes(path.read_bytes()[:-1])
    await deliver(sink, 3)
    await sink.close()
    assert uids(path) == [1, 2, 3]


async def test_a_file_that_holds_nothing_but_a_torn_line_begins_anew(path: Path, clock: HandClock) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"torn')
    sink = make(path, clock)
    await deliver(sink, 1)
    await sink.close()
    assert uids(path) == [1]


async def test_an_append_that_fails_halfway_is_undone(
    path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make(path, clock)
    await deliver(sink, 1)

    def half(descriptor: int, octets: bytes) -> None:
        os.write(descriptor, octets[: len(octets) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("mailpoller.sinks.jsonl.write_all", half)
        with pytest.raises(TransientError, match="No space left"):
            await deliver(sink, 2)
    assert uids(path) == [1]
    assert await deliver(sink, 2) == [False]
    await sink.close()
    assert uids(path) == [1, 2]


async def test_what_a_failed_sync_left_in_doubt_is_written_anew(
    path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make(path, clock)
    await deliver(sink, 1)

    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fails)
        with pytest.raises(TransientError, match="Input/output error"):
            await deliver(sink, 2)
    assert uids(path) == [1]
    await sink.close()


async def test_a_file_that_was_moved_away_is_created_anew(path: Path, clock: HandClock) -> None:
    sink = make(path, clock)
    await deliver(sink, 1)
    path.rename(path.with_name("events.jsonl.1"))
    await deliver(sink, 2)
    await sink.close()
    assert (uids(path.with_name("events.jsonl.1")), uids(path)) == ([1], [2])


async def test_rotation_by_size_sets_the_file_aside_and_deletes_nothing(path: Path, clock: HandClock) -> None:
    sink = make(path, clock, rotate="2KB")
    for uid in range(4):
        await deliver(sink, uid, text="x" * 3000)  # the clock stands still: every name would be the same
    await sink.close()
    found = sorted(path.parent.glob("events*.jsonl"))
    assert len(found) == 4
    assert sorted(uid for one in found for uid in uids(one)) == [0, 1, 2, 3]


async def test_the_name_of_a_file_that_is_begun_after_somebody_moved_the_last_one_is_synced(
    path: Path, clock: HandClock
) -> None:
    sink = make(path, clock)
    await deliver(sink, 1)
    path.rename(path.with_name("aside"))
    with synced_names() as synced:
        await deliver(sink, 2)
    await sink.close()
    assert path.parent.name in synced


async def test_daily_rotation_sets_aside_what_was_written_on_an_earlier_day(path: Path, clock: HandClock) -> None:
    sink = make(path, clock, rotate="daily")
    await deliver(sink, 1)
    await deliver(sink, 2)
    assert len(list(path.parent.glob("*.jsonl"))) == 1
    clock.advance(timedelta(days=1))
    await deliver(sink, 3)
    await sink.close()
    assert uids(path) == [3]
    assert len(list(path.parent.glob("*.jsonl"))) == 2


async def test_a_repeat_after_a_restart_is_known_from_the_end_of_the_file(
    path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make(path, clock)
    await deliver(sink, *range(20))
    await sink.close()
    monkeypatch.setattr("mailpoller.sinks.jsonl._TAIL", 2000)
    sink = make(path, clock)
    assert await deliver(sink, 19, 0) == [True, False]
    await sink.close()


async def test_what_a_killed_writer_may_have_left_unsynced_is_synced_before_it_is_called_a_repeat(
    path: Path, clock: HandClock
) -> None:
    killed, sink = make(path, clock), make(path, clock)
    await deliver(killed, 1)
    with synced_names() as synced:
        assert await deliver(sink, 1) == [True]
    assert "events.jsonl" in synced
    await sink.close()
    await killed.close()


async def test_a_mail_cannot_plant_the_delivery_id_of_another(path: Path, clock: HandClock) -> None:
    wanted = make_delivery(2).delivery_id
    sink = make(path, clock)
    await deliver(sink, 1, text=f'"deliveryid": "{wanted}"')
    delivery = make_delivery(3)
    data = json.loads(delivery.event.data()) | {"headers": {"deliveryid": wanted}}
    event = Event(delivery.event.envelope, (json.dumps(data).encode(),))
    await sink.deliver([replace(delivery, event=event)])
    await sink.close()
    sink = make(path, clock)
    assert await deliver(sink, 2) == [False]
    await sink.close()


async def test_a_file_that_another_process_writes_is_left_to_it(path: Path, clock: HandClock) -> None:
    sink = make(path, clock)
    await deliver(sink, 1)
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for call in (sink.check(), deliver(sink, 2)):
            with pytest.raises(TransientError, match="locked by another process"):
                await call
    assert await deliver(sink, 2) == [False]
    await sink.close()


@pytest.mark.parametrize("trap", ["link", "fifo", "directory"])
async def test_what_is_no_file_is_not_written_to(path: Path, clock: HandClock, tmp_path: Path, trap: str) -> None:
    path.parent.mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    if trap == "link":
        path.symlink_to(victim)
    elif trap == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    sink = make(path, clock)
    for call in (sink.check(), deliver(sink, 1)):
        with pytest.raises(TransientError, match=r"events\.jsonl"):
            await call
    await sink.close()
    assert victim.read_bytes() == b""


async def test_check_leaves_a_torn_last_line_to_the_next_delivery(path: Path, clock: HandClock) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"torn')
    sink = make(path, clock)
    await sink.check()
    await sink.close()
    assert path.read_bytes() == b'{"torn', "it may be what another process is writing"


async def test_a_disk_that_is_nearly_full_is_left_alone(path: Path, clock: HandClock) -> None:
    sink = make(path, clock, min_free="900000GB")
    for call in (sink.check(), deliver(sink, 1)):
        with pytest.raises(TransientError, match="nearly full"):
            await call
    await sink.close()
    assert uids(path) == []
