"""A Kafka cluster for tests: that of librdkafka's own test rig.

It lives in this process, speaks the protocol on free ports of 127.0.0.1, and forgets everything when it ends. No Apache
Kafka is a package of Debian's or of the index."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from servers.children import die_with_parent


def make_topic(servers: Sequence[str], topic: str) -> None:
    """Make the topic at such a cluster, which makes one when it is asked for it by name."""
    library = pytest.importorskip("confluent_kafka", reason="the extra kafka is not installed")
    library.Producer({"bootstrap.servers": ",".join(servers), "log_level": 0}).list_topics(topic, timeout=10)


_APART = """
import sys, time
from pathlib import Path
sys.path.insert(0, str(Path(sys.argv[1])))
from servers.kafka import KafkaCluster
with KafkaCluster() as cluster:
    cluster.make(sys.argv[2])
    print(*cluster.servers, flush=True)
    time.sleep(600)
"""


class KafkaApart:
    """A context manager: such a cluster in a process of its own, so that it can be frozen. ``topic`` is there."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.servers: list[str] = []

    def __enter__(self) -> Self:
        command = [sys.executable, "-c", _APART, str(Path(__file__).parents[1]), self._topic]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        assert self._process.stdout is not None
        self.servers = self._process.stdout.readline().split()
        assert self.servers
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def freeze(self) -> None:
        """It answers nothing any more, and its connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


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
        """See :func:`messages_of`."""
        return messages_of(self.servers, topic)


def messages_of(servers: Sequence[str], topic: str) -> list[tuple[str, bytes, dict[str, str]]]:
    """Key, value and headers of all that the topic holds, in the order of its partitions."""
    library = pytest.importorskip("confluent_kafka", reason="the extra kafka is not installed")
    settings = {"bootstrap.servers": ",".join(servers), "group.id": "tests", "log_level": 0}
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
