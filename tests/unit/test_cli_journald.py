"""What is logged goes to systemd's journal with its priority and the message's mid, and never gets lost on the way."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import structlog

from mailpoller.cli import journald, logs
from mailpoller.cli.journald import JournalLogger, is_ours

MID = "5b1c9f0e-4a3d-5f5b-8c2e-0d8a5b3f9f6a"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(str(tmp_path / "socket"))
        wire.settimeout(2)
        yield wire


def fields(datagram: bytes) -> dict[str, str]:
    return dict(line.split("=", 1) for line in datagram.decode().splitlines())


def test_an_entry_has_its_priority_and_the_mid(tmp_path: Path, journal: socket.socket) -> None:
    fallback = io.BytesIO()
    logger = JournalLogger(fallback, tmp_path / "socket")
    logger.warning(b'{"event":"message.delivered"}', 4, MID)
    assert fields(journal.recv(65536)) == {
        "PRIORITY": "4", "SYSLOG_IDENTIFIER": "mailpoller", "MESSAGE": '{"event":"message.delivered"}',
        "MAILPOLLER_MID": MID,
    }  # fmt: skip
    logger.info(b"{}", 6, "x\nPRIORITY=0")
    assert "MAILPOLLER_MID" not in fields(journal.recv(65536)), "nobody adds a field by the way of a mid"
    assert fallback.getvalue() == b""


def test_what_the_journal_does_not_take_is_written_all_the_same(tmp_path: Path, journal: socket.socket) -> None:
    fallback = io.BytesIO()
    gone = JournalLogger(fallback, tmp_path / "nothing")
    gone.error(b"{}", 3, "")
    assert fallback.getvalue() == b"<3>{}\n"
    full = JournalLogger(fallback, tmp_path / "socket")
    for _ in range(10_000):  # nobody reads: it is full some time, and that must not block
        full.info(b"{}", 6, "")
        if b"<6>{}\n" in fallback.getvalue():
            break
    assert fallback.getvalue().endswith(b"<6>{}\n")
    full.info(b"x" * 10_000_000, 6, "")
    assert len(fallback.getvalue()) > 10_000_000, "a line that is too long for a datagram"


def test_only_a_stream_to_the_journal_is_taken_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("wb") as file:
        status = os.fstat(file.fileno())
        own = f"{status.st_dev}:{status.st_ino}"
        for value, ours in ((own, True), ("1:2", False), ("nonsense", False), ("", False)):
            monkeypatch.setenv("JOURNAL_STREAM", value)
            assert is_ours(file.fileno()) is ours, value
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not is_ours()


def test_logs_go_to_the_journal_natively_and_name_event_level_and_instant_first(
    tmp_path: Path, journal: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "is_ours", lambda: True)
    factory = partial(journald.JournalLoggerFactory, path=tmp_path / "socket")
    monkeypatch.setattr(logs, "JournalLoggerFactory", factory)
    monkeypatch.setattr(logging.getLogger(), "handlers", list(logging.getLogger().handlers))
    before = logging.getLogger().level
    monkeypatch.setattr(logs.sys.stderr, "isatty", lambda: False)
    saved = structlog.get_config()
    try:
        logs.configure("info", "auto")
        structlog.get_logger("x").warning("message.overdue", mailbox="support", mid=MID)
    finally:
        structlog.configure(**saved)
        logging.getLogger().setLevel(before)
    entry = fields(journal.recv(65536))
    assert (entry["PRIORITY"], entry["MAILPOLLER_MID"]) == ("4", MID)
    told = json.loads(entry["MESSAGE"])
    assert list(told)[:3] == ["event", "level", "at"]
    assert (told["event"], told["level"], told["mailbox"]) == ("message.overdue", "warning", "support")
