"""Every embedded sink keeps the promises of its port."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.jsonl import JsonlQueueConfig
from mailpoller.sinks.maildir import MaildirQueueConfig
from mailpoller.sinks.sqlite import SqliteQueueConfig
from mailpoller.sinks.sqlite.consumer import open_queue
from mailpoller.testing.sink_suite import SinkSuite


def runtime(directory: Path) -> Runtime:
    return Runtime(SystemClock(), Spool(directory / "spool"), directory)


class TestSqliteQueue(SinkSuite):
    def make_sink(self, directory: Path) -> Sink:
        config = SqliteQueueConfig(type="sqlite", path=directory / "queue" / "support.db", raw=True, min_free=0)
        return config.build("support", runtime(directory))

    def held(self, directory: Path) -> Sequence[str]:
        if not (directory / "queue" / "support.db").exists():
            return []
        with open_queue(directory / "queue" / "support.db") as queue:
            return [entry.delivery_id for entry in queue.list(limit=1_000_000)]

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        with open_queue(directory / "queue" / "support.db") as queue:
            return queue.show(delivery_id).event.encode()

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        with open_queue(directory / "queue" / "support.db") as queue:
            octets = queue.show(delivery_id).octets()
            assert octets is not None
            return octets


class TestMaildirQueue(SinkSuite):
    kills = 10
    holds_events = False

    def make_sink(self, directory: Path) -> Sink:
        return MaildirQueueConfig(type="maildir", path=directory / "md", min_free=0).build(
            "support", runtime(directory)
        )

    def held(self, directory: Path) -> Sequence[str]:
        return [path.name.split(".")[1] for path in (directory / "md" / "new").glob("*")]

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        (path,) = (directory / "md" / "new").glob(f"*.{delivery_id}.*")
        return path.read_bytes()


class TestJsonlQueue(SinkSuite):
    kills = 10

    def make_sink(self, directory: Path) -> Sink:
        config = JsonlQueueConfig(type="jsonl", path=directory / "q" / "events.jsonl", raw=True, min_free=0)
        return config.build("support", runtime(directory))

    def _events(self, directory: Path) -> list[bytes]:
        path = directory / "q" / "events.jsonl"
        # A last line without its end is being written, or was torn: a reader leaves it alone.
        return path.read_bytes().split(b"\n")[:-1] if path.exists() else []

    def held(self, directory: Path) -> Sequence[str]:
        return [json.loads(event)["deliveryid"] for event in self._events(directory)]

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        (event,) = (event for event in self._events(directory) if delivery_id.encode() in event)
        return event

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        return base64.b64decode(json.loads(self.event_of(directory, delivery_id))["data"]["raw"])
