"""The queue that is a topic of Kafka keeps the promises of the sink's port, at the cluster of librdkafka's tests."""

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
from mailpoller.sinks.kafka import KafkaQueueConfig
from mailpoller.testing.sink_suite import SinkSuite
from servers.kafka import KafkaCluster, make_topic

pytest.importorskip("confluent_kafka", reason="the extra kafka is not installed")
from mailpoller.sinks.kafka import durability

_SERVERS = "MAILPOLLER_TEST_KAFKA"


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    """One cluster for all tests, also for those of other processes."""
    with KafkaCluster() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_SERVERS, ",".join(started.servers))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield started


class TestKafkaQueue(SinkSuite):
    """Each directory is a topic of one cluster."""

    exactly_once = False
    fails_with_the_disk = False
    kills = 3

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cluster = cluster
        monkeypatch.setattr(durability, "SETTINGS_S", 0.1)  # it has no answer to that question

    def make_sink(self, directory: Path) -> Sink:
        make_topic(os.environ[_SERVERS].split(","), _topic(directory))
        config = KafkaQueueConfig(
            type="kafka", servers=os.environ[_SERVERS].split(","), tls="none", topic=_topic(directory),
            max_size="100MB", durability="declared",
        )  # fmt: skip
        return config.build("support", Runtime(SystemClock(), Spool(directory / "spool"), directory))

    async def test_a_healthy_sink_doubts_nothing_and_says_beforehand_what_it_may_doubt(self, tmp_path: Path) -> None:
        """But for what this cluster cannot say: what its answers are worth."""
        async with self.sink(tmp_path) as sink:
            await sink.deliver([self.order(sink, 1)])
            assert [one.kind for one in await sink.upkeep()] == [NOT_DURABLE]  # type: ignore[attr-defined]
            assert list(sink.doubts) == [NOT_DURABLE]  # type: ignore[attr-defined]

    def held(self, directory: Path) -> Sequence[str]:
        return [key for key, _, _ in self.cluster.messages(_topic(directory))]

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        return next(value for key, value, _ in self.cluster.messages(_topic(directory)) if key == delivery_id)

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        return base64.b64decode(json.loads(self.event_of(directory, delivery_id))["data"]["raw"])


def _topic(directory: Path) -> str:
    return sha256(str(directory).encode()).hexdigest()[:20]
