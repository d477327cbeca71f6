"""A Kafka cluster for tests: that of librdkafka's own test rig.

It lives in this process, speaks the protocol on free ports of 127.0.0.1, and forgets everything when it ends. No Apache
Kafka is a package of Debian's or of the index."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import pytest


def make_topic(servers: Sequence[str], topic: str) -> None:
    """Make the topic at such a cluster, which makes one when it is asked for it by name."""
    library = pytest.importorskip("confluent_kafka", reason="the extra kafka is not installed")
    library.Producer({"bootstrap.servers": ",".join(servers), "log_level": 0}).list_topics(topic, timeout=10)


class KafkaCluster:
    """A context manager: ``brokers`` servers, each topic on all of them."""

    def __init__(self, brokers: int = 3) -> None:
        self._library = pytest.importorskip("confluent_kafka", reason="the extra kafka is not installed")
        self._brokers = brokers
        self.servers: list[str] = []
        self._cluster: Any = None

    def __enter__(self) -> Self:
        settings = {"bootstrap.servers": "mock", "test.mock.num.brokers": self._brokers, "log_level": 0}
        self._cluster = self._library.Producer(settings)
        found = self._cluster.list_topics(timeout=10).brokers.values()
        self.servers = [f"{one.host}:{one.port}" for one in found]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """All servers are gone, with what they held."""
        self._cluster = None

    def make(self, topic: str) -> None:
        """Make the topic, if it is not there."""
        make_topic(self.servers, topic)

    def messages(self, topic: str) -> list[tuple[str, bytes, dict[str, str]]]:
        """Key, value and headers of all that the topic holds, in the order of its partitions."""
        library = self._library
        settings = {"bootstrap.servers": ",".join(self.servers), "group.id": "tests", "log_level": 0}
        consumer = library.Consumer({**settings, "auto.offset.reset": "earliest", "enable.auto.commit": False})
        found = []
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            for number in partitions:
                place = library.TopicPartition(topic, number, 0)
                low, high = consumer.get_watermark_offsets(place, timeout=10)
                consumer.assign([place])
                while low < high:
                    for one in consumer.consume(min(500, high - low), timeout=10):
                        assert one.error() is None, one.error()
                        headers = {name: value.decode() for name, value in one.headers() or []}
                        found.append((one.key().decode(), one.value(), headers))
                        low = one.offset() + 1
        finally:
            consumer.close()
        return found
