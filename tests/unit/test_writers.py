"""Files that are written several at a time: what one of them raises ends nothing before the others have ended, and
leaves nothing behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.delivery import Receipt
from mailpoller.core.spool import Octets
from mailpoller.quarantine import files as quarantine_files
from mailpoller.sinks import maildir
from mailpoller.sinks.sqlite import octets as sqlite_octets
from mailpoller.storage import thread as storage_thread
from mailpoller.storage.thread import Pool, each
from mailpoller.testing.deliveries import make_delivery
from unit.sink_runtime import HandClock, make_runtime
from unit.test_notices import Site, quarantined

TROUBLES = [MemoryError(), ValueError("[digital envelope routines] malloc failure")]


def failing(true: Callable[..., Any], trouble: Exception, ended: list[int]) -> Callable[..., Any]:
    """The first call fails at once, the others are slow and then do what ``true`` does."""
    calls, lock = iter(range(1000)), threading.Lock()

    def write(*arguments: Any, **more: Any) -> Any:
        with lock:
            number = next(calls)
        if number == 0:
            raise trouble
        time.sleep(0.1)
        try:
            return true(*arguments, **more)
        finally:
            ended.append(number)

    return write


def test_all_has_ended_when_it_is_known_what_came_of_each() -> None:
    ended: list[int] = []
    work = failing(lambda number: OSError(number) if number == 3 else None, MemoryError(), ended)
    outcomes = each(Pool("test", 1), work, [1, 2, 3])
    assert [type(one).__name__ for one in outcomes] == ["MemoryError", "NoneType", "OSError"]
    assert len(ended) == 2


def test_where_no_thread_can_be_begun_it_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> threading.Thread:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(storage_thread, "begin", none_left)
    seen: list[int] = []
    assert each(Pool("test", 2), lambda one: seen.append(one), [1, 2, 3]) == [None] * 3
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_maildir_is_whole_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception) -> None:
    config = maildir.MaildirQueueConfig.model_validate({"type": "maildir", "path": tmp_path / "box", "min_free": 0})
    sink = config.build("support", make_runtime(tmp_path, HandClock()))
    ended: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(maildir, "write_octets", failing(maildir.write_octets, trouble, ended))
        with pytest.raises(type(trouble)):
            await sink.deliver([make_delivery(number) for number in range(4)])
        assert len(ended) == 3
        assert os.listdir(tmp_path / "box" / "tmp") == os.listdir(tmp_path / "box" / "new") == []
    answers = await sink.deliver([make_delivery(number) for number in range(4)])
    assert all(isinstance(one, Receipt) and not one.repeated for one in answers)
    await sink.close()


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_the_quarantine_is_whole_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    site = Site(tmp_path)
    batch = [quarantined(uid, b"Subject: x\r\n\r\n") for uid in range(4)]
    ended: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(quarantine_files, "create_private", failing(quarantine_files.create_private, trouble, ended))
        with pytest.raises(type(trouble)):
            await site.store.deliver(batch)
        assert len(ended) == 3
        assert os.listdir(tmp_path / "q" / "tmp") == os.listdir(tmp_path / "q" / "held") == []
    assert all(isinstance(one, Receipt) and not one.repeated for one in await site.store.deliver(batch))
    await site.store.close()


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_directory_of_octets_is_whole_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    directory = sqlite_octets.OctetsDirectory(tmp_path / "octets")
    wanted = {f"{number:032x}": Octets.of(b"x") for number in range(4)}
    ended: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_octets, "write_octets", failing(sqlite_octets.write_octets, trouble, ended))
        with pytest.raises(type(trouble)):
            directory.write(wanted, -1)
        assert len(ended) == 3 and not [name for name in os.listdir(tmp_path / "octets") if ".part-" in name]
    assert directory.write(wanted, -1) == {}
    directory.close()
