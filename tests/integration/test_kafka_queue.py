"""A Kafka that is away, refuses, or may forget: nothing is lost, what comes twice can be recognised, and an operator is
told what to do. (The cluster of librdkafka's tests cannot be stopped and started again with what it held.)"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.kafka import KafkaQueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery
from servers.kafka import KafkaApart, KafkaCluster, messages_of
from servers.ports import free_port

pytest.importorskip("confluent_kafka", reason="the extra kafka is not installed")
import confluent_kafka

from mailpoller.sinks.kafka import durability


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaCluster]:
    monkeypatch.setattr(durability, "SETTINGS_S", 0.1)  # it has no answer to that question
    with KafkaCluster() as started:
        started.make("mail")
        yield started


@contextlib.asynccontextmanager
async def queue(servers: list[str], **more: Any) -> AsyncIterator[Any]:
    usual = {"servers": servers, "tls": "none", "topic": "mail", "durability": "declared", "timeout": "3s"}
    config = KafkaQueueConfig(type="kafka", **{**usual, **more})
    sink = config.build("support", Runtime(SystemClock(), Spool(Path("/nonexistent")), Path("/nonexistent")))
    try:
        yield sink
    finally:
        await sink.close()


def batch(count: int, octets: bytes = b"x") -> list[Delivery]:
    return [make_delivery(uid, octets, place="inside") for uid in range(count)]


async def test_a_cluster_that_is_away_is_the_queues_trouble_and_is_named(cluster: KafkaCluster) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    async with queue([nobody]) as sink:
        began = time.monotonic()
        for call in (sink.check(), sink.deliver(batch(2))):
            with pytest.raises(TransientError, match=f"kafka {nobody}"):
                await call
        assert time.monotonic() - began < 20
    async with queue(cluster.servers) as sink:
        assert all(isinstance(one, Receipt) for one in await sink.deliver(batch(2)))
        cluster.stop()
        began = time.monotonic()
        with pytest.raises(TransientError, match=r"(?i)refused|disconnected|down|no answer"):
            await sink.deliver(batch(5)[2:])
        assert time.monotonic() - began < 20


async def test_a_frozen_cluster_is_given_up_in_time_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability, "SETTINGS_S", 0.1)
    messages = batch(10)
    with KafkaApart("mail") as cluster:
        async with queue(cluster.servers) as sink:
            assert all(isinstance(one, Receipt) for one in await sink.deliver(messages[:3]))
            cluster.freeze()
            try:
                began = time.monotonic()
                with pytest.raises(TransientError, match="no answer"):
                    await sink.deliver(messages[3:])
                assert time.monotonic() - began < 20
            finally:
                cluster.thaw()
            async with asyncio.timeout(60):
                while not all(isinstance(one, Receipt) for one in await _answers(sink, messages)):
                    await asyncio.sleep(0.2)
        found = await asyncio.to_thread(messages_of, cluster.servers, "mail")
    assert {key for key, _, _ in found} == {one.delivery_id for one in messages}


async def _answers(sink: Any, messages: list[Delivery]) -> list[Receipt | Refusal | None]:
    try:
        return list(await sink.deliver(messages))
    except TransientError:
        return [None]


@pytest.mark.parametrize(
    ("code", "ours"),
    [
        ("MSG_SIZE_TOO_LARGE", False),
        ("RECORD_LIST_TOO_LARGE", False),
        ("INVALID_RECORD", False),
        ("TOPIC_AUTHORIZATION_FAILED", True),
        ("CLUSTER_AUTHORIZATION_FAILED", True),
        ("_AUTHENTICATION", True),
        ("KAFKA_STORAGE_ERROR", True),
        ("NOT_ENOUGH_REPLICAS", True),
        ("UNKNOWN_TOPIC_OR_PART", True),
        ("_MSG_TIMED_OUT", True),
    ],
)
async def test_what_the_cluster_refuses_ends_in_a_refusal_or_is_the_queues_trouble_with_the_reason(
    code: str, ours: bool, cluster: KafkaCluster
) -> None:
    """A message that is too large or forbidden is refused alone; a right that was revoked, a full disk, replicas that
    are missing are no message's fault. (The cluster of the tests refuses nobody.)"""
    async with queue(cluster.servers) as sink:
        good, bad = batch(2)
        produce = sink._producer.produce

        async def refused(key: str, *more: Any) -> Any:
            if key == bad.delivery_id:
                raise confluent_kafka.KafkaException(
                    confluent_kafka.KafkaError(getattr(confluent_kafka.KafkaError, code))
                )
            return await produce(key, *more)

        sink._producer.produce = refused
        taken, other = await sink.deliver([good, bad])
    assert isinstance(taken, Receipt)
    assert isinstance(other, Refusal)
    assert other.reason.startswith("kafka ")
    assert (other.blame, other.permanent) == (("queue", False) if ours else ("message", True))


async def test_one_server_that_is_away_is_no_trouble(cluster: KafkaCluster) -> None:
    async with queue([f"127.0.0.1:{free_port()}", *cluster.servers]) as sink:
        assert all(isinstance(one, Receipt) for one in await sink.deliver(batch(20)))


async def test_a_topic_that_is_not_there_is_not_made(cluster: KafkaCluster) -> None:
    async with queue(cluster.servers, topic="elsewhere") as sink:
        for call in (sink.check(), sink.deliver(batch(1))):
            with pytest.raises(TransientError, match="there is no topic elsewhere"):
                await call
        with pytest.raises(TransientError, match="there is no topic elsewhere"):
            await sink.check()


async def test_a_message_that_is_too_large_is_refused_alone_with_its_size(cluster: KafkaCluster) -> None:
    small, large, other = (
        make_delivery(uid, bytes(size), place="inside") for uid, size in ((1, 1), (2, 900_000), (3, 1))
    )
    async with queue(cluster.servers) as sink:
        answers = await sink.deliver([small, large, other])
        assert answers[1].permanent and answers[1].unasked
        assert "max_size is 1,000,000" in answers[1].reason
    assert {key for key, _, _ in cluster.messages("mail")} == {small.delivery_id, other.delivery_id}


async def test_what_it_cannot_say_is_unknown_and_has_to_be_accepted(cluster: KafkaCluster) -> None:
    async with queue(cluster.servers, durability="strict") as sink:
        with pytest.raises(TransientError, match=r"DescribeConfigs.*durability: declared"):
            await sink.deliver(batch(1))
    assert cluster.messages("mail") == []
    async with queue(cluster.servers) as sink:
        await sink.check()
        (doubt,) = await sink.upkeep()
        assert doubt.kind is NOT_DURABLE


@pytest.mark.parametrize(
    ("replicas", "told", "finding", "said"),
    [
        (3, {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}, "promised", "2 of 3"),
        (3, {"min.insync.replicas": "1"}, "volatile", "min.insync.replicas is 1"),
        (3, {}, "volatile", "min.insync.replicas is 1"),
        (1, {"min.insync.replicas": "2"}, "volatile", "1 replicas"),
        (3, {"min.insync.replicas": "2", "unclean.leader.election.enable": "true"}, "volatile", "unclean"),
    ],
)
def test_what_an_answer_is_worth_follows_from_replicas(
    replicas: int, told: dict[str, str | None], finding: str, said: str
) -> None:
    found = durability.judge("mail", replicas, told)
    assert found.finding == finding
    assert said in found.setting


async def test_the_attributes_are_headers_where_the_value_is_not_the_event(cluster: KafkaCluster) -> None:
    orders = {}
    for uid, mode in enumerate(("structured", "binary", "raw")):
        async with queue(cluster.servers, mode=mode) as sink:
            assert sink.octets_place == ("beside" if mode == "raw" else "inside")
            orders[mode] = make_delivery(uid, HOSTILE * 50, place=sink.octets_place)
            await sink.deliver([orders[mode]])
    found = {key: (value, headers) for key, value, headers in cluster.messages("mail")}
    value, headers = found[orders["structured"].delivery_id]
    assert value == orders["structured"].event.structured()
    assert headers["content-type"].startswith("application/cloudevents+json")
    value, headers = found[orders["binary"].delivery_id]
    assert value == orders["binary"].event.data()
    assert headers["ce_deliveryid"] == orders["binary"].delivery_id
    value, headers = found[orders["raw"].delivery_id]
    assert value == HOSTILE * 50
    assert headers["content-type"] == "message/rfc822"
    assert {one[1]["deliveryid"] for one in found.values()} == set(found)


async def test_a_cancelled_delivery_ends_at_once_and_so_does_the_sink(cluster: KafkaCluster) -> None:
    async with queue(cluster.servers, timeout=timedelta(seconds=60)) as sink:
        await sink.deliver(batch(1))
        cluster.stop()
        under_way = asyncio.ensure_future(sink.deliver(batch(3)[1:]))
        await asyncio.sleep(0.2)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        began = time.monotonic()
    assert time.monotonic() - began < 2


async def test_want_of_a_thread_is_the_machines_trouble_and_over_when_there_is_one(
    cluster: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with queue(cluster.servers) as sink:
        await sink.check()

        def none(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(sink._producer._pool, "submit", none)
            with pytest.raises(TransientError, match="TasksMax"):
                await sink.deliver(batch(3))
        assert all(isinstance(one, Receipt) for one in await sink.deliver(batch(3)))


async def test_the_example_consumer_processes_each_message_once(cluster: KafkaCluster, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/consumers/kafka.py"
    orders = batch(25)
    for _ in range(2):  # another process, which knows no repeats
        async with queue(cluster.servers) as sink:
            await sink.deliver(orders)
    with subprocess.Popen([sys.executable, str(example), cluster.servers[0], "mail"], cwd=tmp_path) as consumer:
        try:
            async with asyncio.timeout(40):
                while await asyncio.to_thread(_tickets, tmp_path) != sorted(one.delivery_id for one in orders):
                    await asyncio.sleep(0.05)
        finally:
            consumer.kill()
    assert len(cluster.messages("mail")) == 50


def _tickets(directory: Path) -> list[str]:
    tickets = sqlite3.connect(directory / "tickets.db")
    with contextlib.closing(tickets), contextlib.suppress(sqlite3.OperationalError):
        return sorted(row[0] for row in tickets.execute("SELECT delivery_id FROM ticket"))
    return []
