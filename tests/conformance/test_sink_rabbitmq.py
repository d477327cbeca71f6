"""The queue that is one of RabbitMQ keeps the promises of the sink's port, against a real server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.rabbitmq import RabbitmqQueueConfig
from mailpoller.testing.sink_suite import SinkSuite
from servers import rabbitmq as servers

aiormq = pytest.importorskip("aiormq", reason="the extra rabbitmq is not installed")
pytestmark = pytest.mark.skipif(bool(servers.missing), reason=servers.missing)

_PORT = "MAILPOLLER_TEST_RABBITMQ_PORT"
_T = TypeVar("_T")


@pytest.fixture(scope="module")
def server() -> Iterator[servers.RabbitServer]:
    """One server for all tests, also for those of other processes."""
    with servers.RabbitServer() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_PORT, str(started.port))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield started


def at_the_server(work: Callable[[Any], Awaitable[_T]]) -> _T:
    """What ``work`` returns, given a channel; in a thread, for a test may have a loop already."""

    async def run() -> _T:
        connection = await aiormq.connect(f"amqp://guest:guest@127.0.0.1:{os.environ[_PORT]}/")
        try:
            return await work(await connection.channel())
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(run())).result()


class TestRabbitmqQueue(SinkSuite):
    """Each directory is a queue at one server."""

    exactly_once = False
    fails_with_the_disk = False
    kills = 3

    @pytest.fixture(autouse=True)
    def _server(self, server: servers.RabbitServer) -> None:
        pass

    def make_sink(self, directory: Path) -> Sink:
        name = _queue(directory)
        at_the_server(lambda channel: channel.queue_declare(name, durable=True))
        config = RabbitmqQueueConfig(
            type="rabbitmq", host="127.0.0.1", port=int(os.environ[_PORT]), tls="none", username="guest",
            password="guest", queue=name,
        )  # fmt: skip
        return config.build("support", Runtime(SystemClock(), Spool(directory / "spool"), directory))

    def _messages(self, directory: Path) -> list[tuple[str, bytes]]:
        async def look(channel: Any) -> list[tuple[str, bytes]]:
            """All of them; they go back when the connection is closed."""
            found = []
            while (one := await channel.basic_get(_queue(directory))).delivery_tag is not None:
                found.append((one.header.properties.message_id, one.body))
            return found

        return at_the_server(look)

    def held(self, directory: Path) -> Sequence[str]:
        return [delivery_id for delivery_id, _ in self._messages(directory)]

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        return next(body for found, body in self._messages(directory) if found == delivery_id)

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        return base64.b64decode(json.loads(self.event_of(directory, delivery_id))["data"]["raw"])


def _queue(directory: Path) -> str:
    return sha256(str(directory).encode()).hexdigest()[:20]
