"""The queue that is a topic of SNS keeps the promises of the sink's port, against moto."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.sns import SnsQueueConfig
from mailpoller.testing.sink_suite import SinkSuite
from servers import aws as servers

pytest.importorskip("aiobotocore", reason="the extra aws is not installed")
pytestmark = pytest.mark.skipif(bool(servers.missing), reason=servers.missing)

_PORT = "MAILPOLLER_TEST_SNS_PORT"


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """One server for all tests, also for those of other processes."""
    with servers.AwsServer() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_PORT, str(started.port))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield


class TestSnsQueue(SinkSuite):
    """Each directory is a topic at one server, and a queue that is subscribed to it."""

    fails_with_the_disk = False
    exactly_once = False
    largest_octets = 150_000
    kills = 3
    many = 100
    """The stand-in takes its time for each ten of them."""

    @pytest.fixture(autouse=True)
    def _server(self, server: None) -> None:
        pass

    def make_sink(self, directory: Path) -> Sink:
        name = self.name_of(directory)
        topic = servers.make_topic(os.environ[_PORT], name, queue=name)
        config = SnsQueueConfig(
            type="sns", topic=topic, endpoint=f"http://127.0.0.1:{os.environ[_PORT]}", access_key_id="test",
            secret_access_key="test", durability="declared",
        )  # fmt: skip
        return config.build("support", Runtime(SystemClock(), Spool(directory / "spool"), directory))

    async def test_a_healthy_sink_doubts_nothing_and_says_beforehand_what_it_may_doubt(self, tmp_path: Path) -> None:
        """But for what a service that is not AWS cannot say: what its answers are worth."""
        async with self.sink(tmp_path) as sink:
            await sink.deliver([self.order(sink, 1)])
            assert [one.kind for one in await sink.upkeep()] == [NOT_DURABLE]  # type: ignore[attr-defined]
            assert list(sink.doubts) == [NOT_DURABLE]  # type: ignore[attr-defined]

    def name_of(self, directory: Path) -> str:
        return sha256(str(directory).encode()).hexdigest()[:20]

    def _messages(self, directory: Path) -> list[dict[str, object]]:
        found = servers.messages_of(os.environ[_PORT], self.name_of(directory))
        return [json.loads(one["Body"]) for one in found]

    def held(self, directory: Path) -> Sequence[str]:
        return [str(one["deliveryid"]) for one in self._messages(directory)]

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        found = servers.messages_of(os.environ[_PORT], self.name_of(directory))
        return next(one["Body"] for one in found if json.loads(one["Body"])["deliveryid"] == delivery_id).encode()

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        return base64.b64decode(json.loads(self.event_of(directory, delivery_id))["data"]["raw"])
