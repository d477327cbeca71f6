"""The machine's own trouble is told from a bug: it is said in words, and counts against nobody."""

from __future__ import annotations

import errno
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailpoller.assembly.shares import FILES_PER_QUEUE, OWN_FILES, sessions_allowed
from mailpoller.cli import exits
from mailpoller.core.errors import MachineTrouble, machine_trouble
from mailpoller.core.message import RawMessage
from mailpoller.engine import judge
from mailpoller.storage.sqlite.errors import classify
from mailpoller.wire.http.errors import IntakeTrouble, SpoolTrouble
from unit.engine_rig import Rig


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "no memory"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files (LimitNOFILE)"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
        (RuntimeError("can't start new thread"), "no thread can be begun"),
        (MachineTrouble("the spool"), "the spool"),
        (SpoolTrouble("cannot spool"), "cannot spool"),
        (ExceptionGroup("", [MemoryError(), ExceptionGroup("", [MachineTrouble("x")])]), "no memory"),
    ],
)
def test_the_machines_own_trouble_is_known_by_what_it_is(error: Exception, words: str) -> None:
    assert words in (machine_trouble(error) or "")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"), RuntimeError("x"), OSError(errno.ECONNREFUSED, "x"), OSError("x"), IntakeTrouble("malformed"),
        ExceptionGroup("", [MemoryError(), ValueError()]),
    ],
)  # fmt: skip
def test_nothing_else_is_taken_for_it(error: Exception) -> None:
    assert machine_trouble(error) is None


async def test_a_message_that_meets_it_is_put_off_as_often_as_it_takes_and_then_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    expected = rig.fill(1)
    read, left = judge._read, [MemoryError()] * 10

    def reads(raw: RawMessage, body: bool) -> object:
        if left:
            raise left.pop()
        return read(raw, body)

    monkeypatch.setattr(judge, "_read", reads)
    for _ in range(11):
        await rig.carry()
        rig.clock.ahead += judge.MACHINE_AGAIN
    assert rig.subjects() == expected and not rig.sinks["quarantine"].held


@pytest.fixture
def no_file_left() -> Iterator[None]:
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, former[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, former)


def test_sqlite_that_cannot_open_a_file_is_told_why(tmp_path: Path, no_file_left: None) -> None:
    path = tmp_path / "x.db"
    with pytest.raises(sqlite3.OperationalError) as refused:
        sqlite3.connect(path)
    found = classify(refused.value, path)
    assert found is not None and "Too many open files (LimitNOFILE)" in str(found) and "right" not in str(found)


def test_sessions_leave_files_for_the_ledger_and_the_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    own = OWN_FILES + 2 * FILES_PER_QUEUE
    for limit, wanted, allowed in ((own + 10, 0, 10), (own + 10, 5, 5), (own + 10, 50, 10), (8, 0, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, limit=limit: (limit, limit))
        assert sessions_allowed(wanted, 2) == allowed
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert sessions_allowed(0, 2) == 0


def test_a_process_that_ends_of_it_ends_with_words_and_74(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def program(**_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(exits, "prepare_streams", lambda: None)
    assert exits.exit_code(program) == exits.IOERR
    assert "no thread can be begun" in capsys.readouterr().err
