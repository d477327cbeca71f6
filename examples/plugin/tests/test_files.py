"""Puts the queue type ``files`` through what every sink promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.testing.sink_suite import SinkSuite
from mailpoller_examples.files import FilesQueueConfig


class TestFiles(SinkSuite):
    holds_octets = False
    kills = 5

    def make_sink(self, directory: Path) -> Sink:
        runtime = Runtime(clock=SystemClock(), spool=Spool(directory / "spool"), state_directory=directory)
        return FilesQueueConfig(type="files", path=directory / "queue").build("support", runtime)

    def held(self, directory: Path) -> Sequence[str]:
        return [file.stem for file in (directory / "queue").glob("*.json")]

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        return (directory / "queue" / f"{delivery_id}.json").read_bytes()
