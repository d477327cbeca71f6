"""The newcomer's first command, as the newcomer runs it: the real daemon on a terminal's pipe, a message dropped,
Ctrl-C."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

START_S, ARRIVAL_S = 120.0, 20.0
"""A few seconds and one, on a machine that does other things too."""
DEMO = [sys.executable, "-c", "from mailpoller.cli import main; main()", "demo"]


class _Watch:
    """The lines of both streams of a command, as they come."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: queue.Queue[tuple[str, str]] = queue.Queue()
        self.seen: list[tuple[str, str]] = []
        for name, stream in (("out", process.stdout), ("err", process.stderr)):
            assert stream is not None
            threading.Thread(target=self._read, args=(name, stream), daemon=True).start()

    def _read(self, name: str, stream: IO[bytes]) -> None:
        for line in stream:
            self.lines.put((name, line.decode().rstrip()))

    def until(self, words: str, limit_s: float) -> str:
        deadline = time.monotonic() + limit_s
        while True:
            try:
                name, line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"no {words!r} within {limit_s} s of:\n" + "\n".join(line for _, line in self.seen))
            self.seen.append((name, line))
            if words in line:
                return line

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for name, line in self.seen if name == "err"]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[_Watch]:
    process = subprocess.Popen(DEMO, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield _Watch(process)
    finally:
        process.kill()
        process.wait(120)


def test_newcomer_sees_where_each_message_ended_and_a_further_one_arrive_within_a_second(
    demo: _Watch, tmp_path: Path
) -> None:
    demo.until("Ctrl-C ends", START_S)
    told = {line.split()[0]: line for name, line in demo.seen if name == "out" and line.startswith("  ")}
    assert "delivered: support" in told["plain"]
    assert "delivered: support" in told["html"]
    assert "delivered: billing" in told["invoice"]
    assert "quarantined" in told["auto-reply"]
    assert "quarantined" in told["broken"]
    # Every command it names is one that works as it stands.
    shown = next(line for _, line in demo.seen if " queue list support " in line)
    assert str(tmp_path / "demo" / "mailpoller.yaml") in shown

    drop = subprocess.run([*DEMO, "--drop", "-"], input=b"Hello!\n", cwd=tmp_path, capture_output=True, timeout=120)
    dropped = time.monotonic()
    assert drop.returncode == 0, drop.stderr
    demo.until('"message.delivered"', ARRIVAL_S)
    assert time.monotonic() - dropped < ARRIVAL_S

    demo.process.send_signal(signal.SIGINT)
    demo.until('"service.stopped"', START_S)
    assert demo.process.wait(120) == 0
    events = demo.events()
    assert sum(event["event"] == "message.delivered" for event in events) == 4
    assert sum(event["event"] == "message.quarantined" for event in events) == 2
    assert [event for event in events if event["level"] in ("warning", "error")] == []


def test_drop_without_a_demonstration_says_so_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run([*DEMO, "--drop", "-"], input=b"Hello!\n", cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 75
    assert done.stderr.decode().splitlines() == ["mailpoller: no demonstration is running in demo"]
