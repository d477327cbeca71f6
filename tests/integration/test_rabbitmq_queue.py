"""A RabbitMQ that is killed, frozen, full, cut off, or has a queue that forgets: nothing is lost, what comes twice can
be recognised, and an operator is told what to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.attributes import Attributes
from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.rabbitmq import RabbitmqQueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery
from mailpoller.wire import celery
from servers import programs
from servers.celery import JOB, CeleryWorker
from servers.certificates import make_certificate
from servers.children import die_with_parent
from servers.proxy import Fault, FaultProxy
from servers.rabbitmq import RabbitServer, missing

aiormq = pytest.importorskip("aiormq", reason="the extra rabbitmq is not installed")
pytestmark = pytest.mark.skipif(bool(missing), reason=missing)


class PushedClock(SystemClock):
    """The system's, which a test pushes ahead."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitServer]:
    """One for all tests that do not stop it; each has a queue of its own."""
    with RabbitServer("max_message_size = 20000000") as started:
        yield started


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The queue of this test."""
    return re.sub(r"\W", "_", request.node.name)[:200]


@contextlib.asynccontextmanager
async def channel_at(server: RabbitServer) -> AsyncIterator[Any]:
    """The server, for the test itself."""
    connection = await aiormq.connect(f"amqp://guest:guest@127.0.0.1:{server.port}/")
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def declare(server: RabbitServer, name: str, durable: bool = True, **arguments: Any) -> None:
    async with channel_at(server) as channel:
        found = {f"x-{word.replace('_', '-')}": value for word, value in arguments.items()}
        await channel.queue_declare(name, durable=durable, arguments=found)


@contextlib.asynccontextmanager
async def queue_to(server: RabbitServer, clock: PushedClock | None = None, **more: Any) -> AsyncIterator[Any]:
    usual = {"host": "127.0.0.1", "port": server.port, "tls": "none", "username": "guest", "password": "guest"}
    config = RabbitmqQueueConfig(type="rabbitmq", **{**usual, **more})
    sink = config.build("support", Runtime(clock or PushedClock(), Spool(Path("/nonexistent")), Path("/nonexistent")))
    try:
        yield sink
    finally:
        await sink.close()


def batch(count: int, octets: bytes = b"x") -> list[Delivery]:
    return [make_delivery(uid, octets, place="inside") for uid in range(count)]


async def messages(server: RabbitServer, name: str) -> list[Any]:
    found = []
    async with channel_at(server) as channel:
        while (one := await channel.basic_get(name)).delivery_tag is not None:
            found.append(one)
    return found


async def held(server: RabbitServer, name: str) -> list[str]:
    return [one.header.properties.message_id for one in await messages(server, name)]


async def held_once_it_is_back(server: RabbitServer, name: str) -> list[str]:
    """As :func:`held`, after a restart: queues need a moment to find themselves again."""
    async with asyncio.timeout(90):
        while True:
            try:
                return await held(server, name)
            except (aiormq.exceptions.AMQPError, aiormq.exceptions.ChannelInvalidStateError):
                await asyncio.sleep(0.5)


async def depth(server: RabbitServer, name: str) -> int:
    async with channel_at(server) as channel:
        return int((await channel.queue_declare(name, passive=True)).message_count)


async def receipts(sink: Any, orders: Sequence[Delivery]) -> int:
    """How many of them are receipted; the others are the queue's trouble and no message's."""
    try:
        answers = await sink.deliver(orders)
    except TransientError:
        return 0
    assert all(isinstance(one, Receipt) or (one.blame == "queue" and not one.permanent) for one in answers)
    return sum(isinstance(one, Receipt) for one in answers)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


# --- one that is stopped -----------------------------------------------------------------------------------------


async def test_a_server_killed_and_frozen_costs_time_and_no_mail(name: str) -> None:
    with RabbitServer() as server:
        await declare(server, name)
        orders = batch(60, bytes(300_000))  # several parts
        async with queue_to(server, queue=name, timeout=timedelta(seconds=2)) as sink:
            server.freeze()
            began = time.monotonic()
            with pytest.raises(TransientError, match="within"):
                await sink.deliver(orders[:3])
            assert time.monotonic() - began < 10
            server.thaw()
            under_way = asyncio.ensure_future(receipts(sink, orders))
            await asyncio.sleep(0.3)
            server.kill()
            told = await under_way
            with pytest.raises(TransientError, match=f"127.0.0.1:{server.port}"):
                await sink.check()
            server.start()
            before = await held_once_it_is_back(server, name)
            assert told <= len(set(before)) <= 60, "what was receipted is there"
            async with asyncio.timeout(60):
                while await receipts(sink, orders) < 60:
                    await asyncio.sleep(0.2)
        assert set(await held(server, name)) == {one.delivery_id for one in orders}


# --- one that goes on ---------------------------------------------------------------------------------------------


async def test_a_queue_that_is_not_there_is_not_made(server: RabbitServer, name: str) -> None:
    for where in ({"queue": name}, {"exchange": name, "durability": "declared"}):
        async with queue_to(server, **where) as sink:
            for call in (sink.check(), sink.deliver(batch(1))):
                with pytest.raises(TransientError, match="NOT_FOUND"):
                    await call
    async with channel_at(server) as channel:
        with pytest.raises(aiormq.exceptions.ChannelNotFoundEntity):
            await channel.queue_declare(name, passive=True)


async def test_a_queue_that_vanishes_is_the_queues_trouble(server: RabbitServer, name: str) -> None:
    await declare(server, name)
    async with queue_to(server, queue=name) as sink:
        assert await receipts(sink, batch(1)) == 1
        async with channel_at(server) as channel:
            await channel.queue_delete(name)
        with pytest.raises(TransientError, match="no such queue"):
            await sink.deliver(batch(3)[1:])


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_a_full_queue_is_the_queues_trouble_and_loses_nothing(server: RabbitServer, name: str, kind: str) -> None:
    await declare(server, name, queue_type=kind, max_length=5, overflow="reject-publish")
    async with queue_to(server, queue=name) as sink:
        await sink.check()
        orders = batch(40)
        taken = 0
        for one in orders:
            try:
                taken += await receipts_of_one(sink, one)
            except TransientError as error:
                assert "full queue" in str(error) and error.advice
                break
        assert 5 <= taken < 40
        assert len(await held(server, name)) >= taken
        async with channel_at(server) as channel:
            await channel.queue_purge(name)
        assert await receipts(sink, orders[taken : taken + 2]) == 2


async def receipts_of_one(sink: Any, one: Delivery) -> int:
    (answer,) = await sink.deliver([one])
    return int(isinstance(answer, Receipt))


async def test_an_unroutable_message_is_never_delivered_and_its_neighbours_are(server: RabbitServer, name: str) -> None:
    await declare(server, name)
    async with channel_at(server) as channel:
        await channel.exchange_declare(name, exchange_type="topic", durable=True)
        await channel.queue_bind(name, name, "mail.bills")
    orders = [
        replace(one, attributes=Attributes(topic=topic))
        for one, topic in zip(batch(4), ["bills", "", "other", "bills"], strict=True)
    ]
    async with queue_to(server, exchange=name, queue=name, routing_key="mail.{topic}") as sink:
        await sink.check()
        answers = await sink.deliver(orders)
    assert [isinstance(one, Receipt) for one in answers] == [True, False, False, True]
    assert isinstance(answers[2], Refusal)
    assert "mail.other" in answers[2].reason and answers[2].blame == "message"
    assert await held(server, name) == [orders[0].delivery_id, orders[3].delivery_id]


async def test_an_unroutable_message_that_is_handed_over_twice_at_once_has_no_receipt(
    server: RabbitServer, name: str
) -> None:
    """What the server returns is known by its message-id alone, which both bear."""
    await declare(server, name)
    async with channel_at(server) as channel:
        await channel.exchange_declare(name, exchange_type="topic", durable=True)
    async with queue_to(server, exchange=name, queue=name, routing_key="mail.{topic}") as sink:
        await sink.check()
        for uid in range(20):
            one = make_delivery(uid, place="inside")
            told = await asyncio.gather(*(sink.deliver([one]) for _ in range(3)), return_exceptions=True)
            assert not any(isinstance(answer, Receipt) for each in told if isinstance(each, list) for answer in each)
    assert await held(server, name) == []


async def test_a_message_that_is_too_large_is_refused_alone_with_its_size(server: RabbitServer, name: str) -> None:
    await declare(server, name)
    orders = [make_delivery(uid, bytes(size), place="inside") for uid, size in ((1, 9), (2, 16_000_000), (3, 9))]
    async with queue_to(server, queue=name, max_size=10_000) as sink:
        answers = await sink.deliver(orders)
        assert "max_size is 10,000" in answers[1].reason and answers[1].permanent and answers[1].unasked
    async with queue_to(server, queue=name, max_size=100_000_000) as sink:  # the server's own limit
        fresh = [make_delivery(uid, bytes(size), place="inside") for uid, size in ((4, 9), (5, 16_000_000), (6, 9))]
        answers = await sink.deliver(fresh)
        assert [isinstance(one, Receipt) for one in answers] == [True, False, True]
        assert answers[1].permanent and "larger than" in answers[1].reason
    found = await held(server, name)
    assert set(found) == {orders[0].delivery_id, orders[2].delivery_id, fresh[0].delivery_id, fresh[2].delivery_id}


async def test_a_line_cut_anywhere_in_a_batch_loses_nothing(server: RabbitServer, name: str) -> None:
    await declare(server, name)
    orders = batch(40, bytes(20_000))
    async with FaultProxy(server.port) as proxy:
        proxy.plan = [
            Fault(kind, after, direction)  # type: ignore[arg-type]
            for kind in ("cut", "close")
            for direction, after in (("up", 50), ("up", 30_000), ("up", 860_000), ("down", 20), ("down", 1_700))
        ]
        async with queue_to(server, queue=name, port=proxy.port, timeout=timedelta(seconds=5)) as sink:
            async with asyncio.timeout(60):
                while proxy.connections < 11:
                    await receipts(sink, orders)
                    proxy.cut()
                    sink._recent.__init__()  # as after a restart
            assert await receipts(sink, orders) == 40
    assert set(await held(server, name)) == {one.delivery_id for one in orders}


async def test_refused_credentials_are_told_and_the_password_is_not(server: RabbitServer, name: str) -> None:
    await declare(server, name)
    for wrong in ({"password": "hunter2/:@%"}, {"vhost": "elsewhere"}):
        async with queue_to(server, queue=name, **wrong) as sink:
            with pytest.raises(TransientError, match=r"refuses us|NOT_ALLOWED") as caught:
                await sink.deliver(batch(1))
        assert "hunter2" not in f"{caught.value!r}"


async def test_the_queue_is_made_once_and_then_left_as_it_is(server: RabbitServer, name: str) -> None:
    where = {"host": "127.0.0.1", "port": server.port, "tls": "none", "username": "guest", "password": "guest"}
    wanted = RabbitmqQueueConfig(type="rabbitmq", queue=name, **where).preparation("support")
    await asyncio.to_thread(wanted.make)
    async with queue_to(server, queue=name) as sink:
        await sink.check()
        assert "quorum" in sink.durability.setting
        await sink.deliver(batch(2))
    await asyncio.to_thread(wanted.make)
    assert len(await held(server, name)) == 2
    assert f"name={name} durable=true" in wanted.statements
    await declare(server, f"{name}-classic")
    classic = RabbitmqQueueConfig(type="rabbitmq", queue=f"{name}-classic", **where).preparation("support")
    await asyncio.to_thread(classic.make)
    assert RabbitmqQueueConfig(type="rabbitmq", exchange="amq.topic", **where).preparation("support") is None


# --- durability --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"durable": False}, "not durable"),
        ({"message_ttl": 60_000}, "x-message-ttl"),
        ({"expires": 600_000}, "x-expires"),
        ({"queue_type": "quorum", "max_length": 5}, "x-max-length"),
        ({"max_length_bytes": 500_000}, "x-max-length"),
    ],
)
async def test_a_queue_that_may_forget_is_refused(
    server: RabbitServer, name: str, words: dict[str, Any], said: str
) -> None:
    await declare(server, name, **words)
    for word in ("strict", "declared"):
        async with queue_to(server, queue=name, durability=word) as sink:
            for call in (sink.deliver(batch(1)), sink.check()):
                with pytest.raises(TransientError) as caught:
                    await call
                assert said in str(caught.value)
                assert "durability: warn" in str(caught.value)
    assert await held(server, name) == []
    async with queue_to(server, queue=name, durability="warn") as sink:
        assert await receipts(sink, batch(1)) == 1
        (doubt,) = await sink.upkeep()
        assert doubt.kind is NOT_DURABLE
        assert said in doubt.detail


@pytest.mark.parametrize("words", [{}, {"queue_type": "quorum"}, {"queue_type": "quorum", "delivery_limit": 5}])
async def test_a_durable_queue_of_either_kind_is_taken_as_it_is(
    server: RabbitServer, name: str, words: dict[str, Any]
) -> None:
    await declare(server, name, **words)
    async with queue_to(server, queue=name) as sink:
        await sink.check()
        assert sink.durability.finding == "promised"
        assert words.get("queue_type", "classic") in sink.durability.setting
        assert await receipts(sink, batch(2)) == 2


async def test_an_exchange_alone_is_unknown(server: RabbitServer) -> None:
    async with queue_to(server, exchange="amq.topic") as sink:
        with pytest.raises(TransientError, match=r"queue: NAME.*durability: declared"):
            await sink.check()
    async with queue_to(server, exchange="amq.topic", durability="declared") as sink:
        await sink.check()
        assert [doubt.kind for doubt in await sink.upkeep()] == [NOT_DURABLE]


async def test_a_queue_is_looked_at_again_every_hour(server: RabbitServer, name: str) -> None:
    await declare(server, name)
    clock = PushedClock()
    async with queue_to(server, clock, queue=name) as sink:
        await sink.deliver(batch(1))
        async with channel_at(server) as channel:
            await channel.queue_delete(name)
        await declare(server, name, message_ttl=60_000)
        assert await receipts(sink, batch(2)) == 2, "within the hour, over the same connection"
        clock.ahead = 3700
        for call in (sink.upkeep(), sink.deliver(batch(3))):
            with pytest.raises(TransientError, match="x-message-ttl"):
                await call


@pytest.mark.skipif(programs.found("strace") is None, reason="there is no strace")
@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_twenty_messages_are_twenty_syncs_before_their_answers(
    server: RabbitServer, name: str, kind: str, tmp_path: Path
) -> None:
    await declare(server, name, queue_type=kind)
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-p", str(server.pid), "-o", str(trace), "-e", "trace=fdatasync,fsync"]
    with subprocess.Popen(command, preexec_fn=die_with_parent) as tracer:
        await until(lambda: "TracerPid:\t0" not in Path(f"/proc/{server.pid}/status").read_text())
        async with queue_to(server, queue=name) as sink:
            for one in batch(20):
                await sink.deliver([one])
        tracer.terminate()
    assert trace.read_text().count("sync(") >= 20


# --- forms -------------------------------------------------------------------------------------------------------


async def test_the_attributes_are_headers_in_each_mode(server: RabbitServer, name: str) -> None:
    await declare(server, name)
    orders = {}
    for uid, mode in enumerate(("structured", "binary", "raw")):
        async with queue_to(server, queue=name, mode=mode) as sink:
            assert sink.octets_place == ("beside" if mode == "raw" else "inside")
            orders[mode] = make_delivery(uid, HOSTILE * 50, place=sink.octets_place)
            await sink.deliver([orders[mode]])
    structured, binary, raw = await messages(server, name)
    assert structured.body == orders["structured"].event.structured()
    assert binary.body == orders["binary"].event.data()
    assert raw.body == HOSTILE * 50
    kinds = ["application/cloudevents+json; charset=UTF-8", "application/json", "message/rfc822"]
    for found, kind, order in zip((structured, binary, raw), kinds, orders.values(), strict=True):
        properties = found.header.properties
        assert (properties.content_type, properties.delivery_mode) == (kind, 2)
        assert properties.message_id == properties.headers["cloudEvents_deliveryid"] == order.delivery_id


async def test_a_repeat_is_not_published_again_while_the_process_knows_it(server: RabbitServer, name: str) -> None:
    await declare(server, name)
    for expected in (3, 6):
        async with queue_to(server, queue=name) as sink:
            first, *_ = await sink.deliver(batch(3))
            again = await sink.deliver(batch(3))
            assert not first.repeated and all(answer.repeated for answer in again)
        assert await depth(server, name) == expected, "after a restart they come again, under the same id"


async def test_tls_trusts_the_named_authority_alone(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with RabbitServer() as spare:
        port = spare.port
    settings = [f"listeners.ssl.default = {port}", "ssl_options.verify = verify_none"]
    settings += [f"ssl_options.{one} = {certificate.path}" for one in ("cacertfile", "certfile", "keyfile")]
    with RabbitServer(*settings) as server:
        await declare(server, "support")
        ours = {"tls": "tls", "host": "localhost", "port": port, "queue": "support"}
        async with queue_to(server, **ours, ca_file=certificate.path) as sink:
            assert await receipts(sink, batch(2)) == 2
        async with queue_to(server, **ours) as sink:
            with pytest.raises(TransientError, match=r"(?i)certificate"):
                await sink.deliver(batch(3))


# --- the other end -----------------------------------------------------------------------------------------------


async def test_the_example_consumer_processes_each_message_once(
    server: RabbitServer, name: str, tmp_path: Path
) -> None:
    pytest.importorskip("aio_pika", reason="the example is for aio-pika")
    example = Path(__file__).parents[2] / "examples/consumers/rabbitmq.py"
    await declare(server, name, queue_type="quorum")
    orders, more = batch(25)[:20], batch(25)[20:]
    async with queue_to(server, queue=name) as sink:
        await sink.deliver(orders)
    url = f"amqp://guest:guest@127.0.0.1:{server.port}/"
    with subprocess.Popen([sys.executable, str(example), url, name], cwd=tmp_path) as consumer:
        try:
            async with queue_to(server, queue=name) as sink:  # another process, which knows no repeats
                await sink.deliver(orders[:5])
                await sink.deliver(more)
            async with asyncio.timeout(40):
                while await asyncio.to_thread(_tickets, tmp_path) != sorted(
                    one.delivery_id for one in (*orders, *more)
                ):
                    await asyncio.sleep(0.05)
        finally:
            consumer.kill()


async def test_a_celery_worker_runs_each_event_as_a_task_whose_id_is_the_delivery_id(
    server: RabbitServer, name: str, tmp_path: Path
) -> None:
    pytest.importorskip("celery", reason="Celery is not installed")
    orders = [make_delivery(uid, HOSTILE, place="inside", text="Größe \u2028 😀") for uid in range(3)]
    block = {"queue": name, "format": "celery", "job": JOB}
    url = f"amqp://guest:guest@127.0.0.1:{server.port}/"
    with CeleryWorker(tmp_path, url, name) as worker:
        async with queue_to(server, **block) as sink:  # the worker declared the queue: a classic one
            await sink.check()
            assert await receipts(sink, orders) == 3
            assert await receipts(sink, orders) == 3
        async with queue_to(server, **block) as sink:  # another process, which knows no repeats
            assert await receipts(sink, orders[:1]) == 1
        taken = await asyncio.to_thread(worker.taken, 4)
        assert await depth(server, name) == 0
    wanted = [(one.delivery_id, json.loads(one.event.structured())) for one in (*orders, orders[0])]
    assert taken == wanted


async def test_a_task_larger_than_max_size_is_refused_with_what_is_around_the_event(
    server: RabbitServer, name: str
) -> None:
    await declare(server, name, queue_type="quorum")
    (order,) = batch(1)
    whole = len(celery.task_body(order.event.structured()))
    for most, wanted in ((whole - 1, Refusal), (whole, Receipt)):
        async with queue_to(server, queue=name, format="celery", job=JOB, max_size=most) as sink:
            (answer,) = await sink.deliver([order])
        assert isinstance(answer, wanted)
        assert not isinstance(answer, Refusal) or f"{whole:,}" in answer.reason


def _tickets(directory: Path) -> list[str]:
    with (
        contextlib.closing(sqlite3.connect(directory / "tickets.db")) as tickets,
        contextlib.suppress(sqlite3.OperationalError),
    ):
        return sorted(row[0] for row in tickets.execute("SELECT delivery_id FROM ticket"))
    return []
