"""The queue that is a Redis stream keeps the promises of the sink's port, against a real server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.redis import RedisQueueConfig
from mailpoller.testing.sink_suite import SinkSuite
from servers import redis as servers

redis = pytest.importorskip("redis", reason="the extra redis is not installed")
pytestmark = pytest.mark.skipif(bool(servers.missing), reason=servers.missing)

_PORT = "MAILPOLLER_TEST_REDIS_PORT"


@pytest.fixture(scope="module")
def server() -> Iterator[servers.RedisServer]:
    """One server for all tests, also for those of other processes."""
    with servers.RedisServer() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_PORT, str(started.port))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield started


class TestRedisQueue(SinkSuite):
    """Each directory is a stream at one server."""

    fails_with_the_disk = False
    kills = 3

    @pytest.fixture(autouse=True)
    def _server(self, server: servers.RedisServer) -> Iterator[None]:
        with redis.Redis(port=server.port) as self.client:
            yield

    def make_sink(self, directory: Path) -> Sink:
        config = RedisQueueConfig(
            type="redis", host="127.0.0.1", port=int(os.environ[_PORT]), tls="none", stream=_stream(directory)
        )
        return config.build("support", Runtime(SystemClock(), Spool(directory / "spool"), directory))

    def move(self, queue: Path, to: Path) -> None:
        for key in self.client.keys(f"{_stream(queue)}*"):
            self.client.rename(key, key.replace(_stream(queue).encode(), _stream(to).encode()))

    def copy(self, queue: Path, to: Path) -> None:
        for key in self.client.keys(f"{_stream(queue)}*"):
            self.client.copy(key, key.replace(_stream(queue).encode(), _stream(to).encode()))

    def _entries(self, directory: Path) -> list[dict[bytes, bytes]]:
        return [fields for _, fields in self.client.xrange(_stream(directory))]

    def held(self, directory: Path) -> Sequence[str]:
        return [fields[b"deliveryid"].decode() for fields in self._entries(directory)]

    def _one(self, directory: Path, delivery_id: str) -> dict[bytes, bytes]:
        (found,) = (fields for fields in self._entries(directory) if fields[b"deliveryid"] == delivery_id.encode())
        return found

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        return self._one(directory, delivery_id)[b"event"]

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        return self._one(directory, delivery_id)[b"octets"]


def _stream(directory: Path) -> str:
    return f"{{{sha256(str(directory).encode()).hexdigest()[:20]}}}"
