"""The queue that is a web service keeps the promises of the sink's port, against a server that processes once."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.webhook import WebhookQueueConfig
from mailpoller.testing.sink_suite import SinkSuite
from servers.web import Asked, Reply, Web

_PORT = "MAILPOLLER_TEST_HOOK_PORT"


class Consumer:
    """What it was sent, by path and then by ``webhook-id``: the first of each."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Asked]] = {}
        self.web = Web(self._take)

    def _take(self, asked: Asked) -> Reply:
        self.held.setdefault(asked.path, {}).setdefault(asked.headers["webhook-id"], asked)
        self.web.asked.clear()
        return Reply(204)


@contextmanager
def consumer_in_a_thread() -> Iterator[Consumer]:
    """One that goes on while the test blocks, for processes that are killed."""
    consumer, started, stop = Consumer(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with consumer.web:
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="consumer")
    thread.start()
    try:
        assert started.wait(10)
        yield consumer
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def consumer() -> Iterator[Consumer]:
    with consumer_in_a_thread() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_PORT, str(started.web.port))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield started


class TestWebhookQueue(SinkSuite):
    """Each directory is a path of one service."""

    fails_with_the_disk = False
    kills = 2
    consumer: Consumer

    @pytest.fixture(autouse=True)
    def _consumer(self, consumer: Consumer) -> None:
        self.consumer = consumer

    def make_sink(self, directory: Path) -> Sink:
        url = f"http://127.0.0.1:{os.environ[_PORT]}{_path(directory)}"
        config = WebhookQueueConfig.model_validate({"type": "webhook", "url": url, "raw": True})
        return config.build("support", Runtime(SystemClock(), Spool(directory / "spool"), directory))

    def _held(self, directory: Path) -> dict[str, Asked]:
        return self.consumer.held.get(_path(directory), {})

    def held(self, directory: Path) -> Sequence[str]:
        return list(self._held(directory))

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        return self._held(directory)[delivery_id].body

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        return base64.b64decode(json.loads(self.event_of(directory, delivery_id))["data"]["raw"])


def _path(directory: Path) -> str:
    return f"/{sha256(str(directory).encode()).hexdigest()[:20]}"
