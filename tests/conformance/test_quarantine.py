"""The quarantine keeps the promises of the sink's port: nothing that it gave a receipt for is lost to a kill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.quarantine import StoreConfig
from mailpoller.testing.sink_suite import SinkSuite


class TestQuarantine(SinkSuite):
    """The directory is that of the quarantine itself."""

    holds_events = False
    kills = 8

    def make_sink(self, directory: Path) -> Sink:
        directory.mkdir(parents=True, exist_ok=True)
        runtime = Runtime(SystemClock(), Spool(directory / "spool"), directory)
        return StoreConfig(path=directory / "quarantine", min_free=0).build("quarantine", runtime)

    def held(self, directory: Path) -> Sequence[str]:
        return [path.stem for path in (directory / "quarantine" / "held").glob("*.*")]

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        (path,) = (directory / "quarantine" / "held").glob(f"{delivery_id}.*")
        line, _, octets = path.read_bytes().partition(b"\n")
        assert json.loads(line)["delivery_id"] == delivery_id
        return octets
