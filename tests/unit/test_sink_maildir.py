"""The Maildir queue: whole files under names that tell a repeat, and nothing outside the Maildir."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.delivery import Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.spool import Octets
from mailpoller.sinks.maildir import MaildirQueue, MaildirQueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery, spooled
from unit.sink_runtime import HandClock, disk_steps, make_runtime, synced_names


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mail" / "support"


def make(path: Path, clock: HandClock, **settings: object) -> MaildirQueue:
    config = MaildirQueueConfig.model_validate({"type": "maildir", "path": path, "min_free": 0, **settings})
    return config.build("support", make_runtime(path.parent, clock))


def names(path: Path, folder: str = "new") -> list[str]:
    return sorted(os.listdir(path / folder))


async def test_a_message_that_a_reader_moved_to_cur_is_still_known_after_a_restart(
    path: Path, clock: HandClock
) -> None:
    for expected in (False, True):
        sink = make(path, clock)
        (answer,) = await sink.deliver([make_delivery(1)])
        await sink.close()
        assert isinstance(answer, Receipt)
        assert answer.repeated is expected
        if not expected:
            (name,) = names(path)
            (path / "new" / name).rename(path / "cur" / f"{name}:2,S")
    assert (len(names(path, "cur")), names(path)) == (1, [])


async def test_a_message_that_a_reader_has_removed_is_known_until_the_restart(path: Path, clock: HandClock) -> None:
    sink = make(path, clock)
    await sink.deliver([make_delivery(1)])
    (path / "new" / names(path)[0]).unlink()
    (answer,) = await sink.deliver([make_delivery(1)])
    await sink.close()
    assert isinstance(answer, Receipt)
    assert answer.repeated
    assert names(path) == []


async def test_what_a_killed_writer_may_have_left_unsynced_is_synced_before_it_is_called_a_repeat(
    path: Path, clock: HandClock
) -> None:
    killed, sink = make(path, clock), make(path, clock)
    await killed.deliver([make_delivery(1)])
    with synced_names() as synced:
        (answer,) = await sink.deliver([make_delivery(1)])
    assert isinstance(answer, Receipt)
    assert answer.repeated
    assert {"new", "cur"} <= synced
    await sink.close()
    await killed.close()


async def test_each_message_is_synced_then_moved_and_then_its_name_is_synced(path: Path, clock: HandClock) -> None:
    sink = make(path, clock)
    await sink.deliver([make_delivery(1)])
    for batch in ([make_delivery(2)], [make_delivery(3), make_delivery(4)]):
        with disk_steps() as steps:
            answers = await sink.deliver(batch)
        held = [answer.reference for answer in answers if isinstance(answer, Receipt)]
        assert len(held) == len(batch)
        for name in held:
            assert steps.index(f"sync {name}") < steps.index(f"move {name}") < steps.index("sync new")
        assert steps[-1] == "sync new"
    await sink.close()


async def test_messages_of_others_are_left_alone(path: Path, clock: HandClock) -> None:
    for folder in ("tmp", "new", "cur"):
        (path / folder).mkdir(parents=True)
    (path / "tmp" / "1.M1P1.elsewhere").write_bytes(b"being written")
    os.utime(path / "tmp" / "1.M1P1.elsewhere", (0, 0))
    (path / "new" / "1.M2P1.elsewhere").write_bytes(b"theirs")
    sink = make(path, clock)
    await sink.deliver([make_delivery(1)])
    await sink.close()
    assert names(path, "tmp") == ["1.M1P1.elsewhere"]
    assert len(names(path)) == 2


async def test_what_a_killed_writer_left_in_tmp_is_swept_a_day_and_a_half_later(path: Path, clock: HandClock) -> None:
    for folder in ("tmp", "new", "cur"):
        (path / folder).mkdir(parents=True)
    left = path / "tmp" / f"1.{make_delivery(9).delivery_id}.host"
    left.write_bytes(b"half")
    for age, expected in ((timedelta(), [left.name]), (timedelta(hours=37), [])):
        clock.advance(age)
        sink = make(path, clock)
        await sink.deliver([make_delivery(1)])
        await sink.close()
        assert names(path, "tmp") == expected


async def test_a_maildir_that_was_set_aside_is_made_anew(path: Path, clock: HandClock) -> None:
    sink = make(path, clock)
    await sink.deliver([make_delivery(1)])
    path.rename(path.with_name("aside"))
    await sink.deliver([make_delivery(2)])
    await sink.close()
    assert len(names(path)) == 1
    assert len(names(path.with_name("aside"))) == 1


@pytest.mark.parametrize("folder", ["tmp", "new", "cur"])
async def test_a_link_in_place_of_a_folder_is_not_followed(
    path: Path, clock: HandClock, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    path.mkdir(parents=True)
    (path / folder).symlink_to(tmp_path / "elsewhere")
    sink = make(path, clock)
    with pytest.raises(TransientError, match="open the Maildir"):
        await sink.deliver([make_delivery(1)])
    await sink.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_a_link_that_waits_in_tmp_is_not_followed(path: Path, clock: HandClock, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    (path / "tmp").mkdir(parents=True)
    sink = make(path, clock)
    name = f"{int(clock.now().timestamp())}.{make_delivery(1).delivery_id}.{sink._host}"
    (path / "tmp" / name).symlink_to(victim)
    await sink.deliver([make_delivery(1)])
    await sink.close()
    assert victim.read_bytes() == b"untouched"
    assert stat.S_ISREG((path / "new" / name).lstat().st_mode)


async def test_directories_are_the_group_s_and_messages_are_not_to_be_changed(path: Path, clock: HandClock) -> None:
    before = os.umask(0o077)
    try:
        sink = make(path, clock)
        await sink.deliver([make_delivery(1), make_delivery(2, octets=HOSTILE)])
        await sink.close()
    finally:
        os.umask(before)
    assert {stat.S_IMODE((path / name).stat().st_mode) for name in ("", "tmp", "new", "cur")} == {0o2770}
    assert {stat.S_IMODE((path / "new" / name).stat().st_mode) for name in names(path)} == {0o640}


async def test_a_spool_file_that_vanished_refuses_its_message_and_no_other(path: Path, clock: HandClock) -> None:
    sink = make(path, clock)
    gone, held = await sink.deliver(
        [make_delivery(1, octets=Octets(None, 5, b"", path / "vanished")), make_delivery(2, octets=HOSTILE)]
    )
    await sink.close()
    assert isinstance(gone, Refusal)
    assert not gone.permanent
    assert isinstance(held, Receipt)
    assert names(path, "tmp") == []


async def test_a_spooled_message_is_linked_and_not_copied(path: Path, clock: HandClock, tmp_path: Path) -> None:
    octets = spooled(HOSTILE * 100, tmp_path)
    assert octets.path is not None
    inode = octets.path.stat().st_ino
    sink = make(path, clock)
    await sink.deliver([make_delivery(1, octets=octets)])
    octets.close()
    await sink.close()
    (name,) = names(path)
    assert (path / "new" / name).stat().st_ino == inode
    assert (path / "new" / name).read_bytes() == HOSTILE * 100


async def test_messages_that_cannot_be_moved_to_new_leave_nothing_there(
    path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = make(path, clock)
    await sink.check()
    real, moved = os.rename, []

    def third_fails(*arguments: object, **more: object) -> None:
        if len(moved) == 2:
            raise OSError(28, "No space left on device")
        moved.append(arguments)
        real(*arguments, **more)

    batch = [make_delivery(uid) for uid in range(4)]
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", third_fails)
        with pytest.raises(TransientError, match="No space left"):
            await sink.deliver(batch)
    assert (names(path), names(path, "tmp")) == ([], [])
    assert all(isinstance(answer, Receipt) and not answer.repeated for answer in await sink.deliver(batch))
    await sink.close()
    assert len(names(path)) == 4


async def test_check_notices_what_would_stop_a_delivery(path: Path, clock: HandClock) -> None:
    path.parent.mkdir()
    path.write_text("a file")
    sink = make(path, clock)
    with pytest.raises(TransientError, match="support is not a directory"):
        await sink.check()
    await sink.close()
    path.unlink()
    sink = make(path, clock, min_free="900000GB")
    with pytest.raises(TransientError, match="nearly full"):
        await sink.check()
    await sink.close()


async def test_check_refuses_a_link_in_place_of_a_folder(path: Path, clock: HandClock, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for folder in ("tmp", "cur"):
        (path / folder).mkdir(parents=True)
    (path / "new").symlink_to(tmp_path / "elsewhere")
    sink = make(path, clock)
    with pytest.raises(TransientError, match="open the Maildir"):
        await sink.check()
    await sink.close()
