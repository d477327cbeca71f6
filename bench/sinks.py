"""Messages a second that a queue takes, beside a bare client of the same library with the same durability.

Both write the same event and octets to the same server in turn, a batch a transaction; the bare one refuses repeats
too, and knows no marks, no settings to be read, no refusals. Small messages of 2 KB.

    sinks.py                    batches of 1 and 50: the table of docs/performance.md
    sinks.py --seconds 3        each measurement takes so long

queues
  sqlite    a bare connection of sqlite3, WAL with synchronous=FULL
  postgres  psycopg over one connection: INSERT ON CONFLICT DO NOTHING, executemany
  redis     redis-py over one connection: SET NX and XADD in a MULTI, appendfsync always
  rabbitmq  aiormq over one channel: a persistent message with a confirmation, to a quorum queue
  nats      nats-py over one connection: a publication with Nats-Msg-Id and its PubAck, sync_interval always
  kafka     confluent-kafka, one idempotent producer with acks=all, at the cluster of librdkafka's tests (in memory)
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from rig.options import heading, reader, rounds, say
from rig.table import percent, table

from mailpoller.config.registry import load_plugin
from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Receipt
from mailpoller.core.ports import OctetsPlace
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.postgres.schema import rights, schema
from mailpoller.testing.deliveries import make_delivery
from servers.kafka import KafkaCluster
from servers.nats import NatsServer
from servers.postgres import PostgresServer
from servers.rabbitmq import RabbitServer
from servers.redis import RedisServer

Take = Callable[[Sequence[Delivery]], Awaitable[object]]
BATCHES = (1, 50)
OCTETS = b"Subject: x\r\n\r\n" + b"x" * 2000


def plugin(kind: str, **block: Any) -> Any:
    """The sink's block."""
    return load_plugin("sinks", kind).model_validate({"type": kind, "raw": True, **block})


@asynccontextmanager
async def ours(kind: str, directory: Path, **block: Any) -> AsyncIterator[Take]:
    """The sink, whose every answer is a receipt."""
    sink: Any = plugin(kind, **block).build("bench", Runtime(SystemClock(), Spool(directory / "spool"), directory))

    async def take(batch: Sequence[Delivery]) -> None:
        if not all(isinstance(one, Receipt) and not one.repeated for one in await sink.deliver(batch)):
            raise SystemExit(f"{kind}: a message was not taken")

    try:
        yield take
    finally:
        await sink.close()


@asynccontextmanager
async def bare_sqlite(path: Path) -> AsyncIterator[Take]:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE message (id TEXT UNIQUE, event TEXT, octets BLOB)")

    def write(batch: Sequence[Delivery]) -> None:
        rows = [(one.delivery_id, one.event.structured().decode(), bytes(one.raw.octets.view())) for one in batch]
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT OR IGNORE INTO message VALUES (?, ?, ?)", rows)
        database.execute("COMMIT")

    yield lambda batch: asyncio.to_thread(write, batch)
    database.close()


@asynccontextmanager
async def bare_postgres(port: int) -> AsyncIterator[Take]:
    import psycopg

    place = f"host=127.0.0.1 port={port} dbname=postgres user=postgres"
    async with await psycopg.AsyncConnection.connect(place, autocommit=True) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS bare (id text UNIQUE, event json, octets bytea)")

        async def take(batch: Sequence[Delivery]) -> None:
            rows = [(one.delivery_id, one.event.structured().decode(), bytes(one.raw.octets.view())) for one in batch]
            async with connection.transaction(), connection.cursor() as cursor:
                await cursor.executemany("INSERT INTO bare VALUES (%s, %s, %b) ON CONFLICT DO NOTHING", rows)

        yield take


@asynccontextmanager
async def bare_redis(port: int) -> AsyncIterator[Take]:
    from redis.asyncio import Redis

    async with Redis(port=port) as client:

        async def take(batch: Sequence[Delivery]) -> None:
            async with client.pipeline(transaction=True) as pipe:
                for one in batch:
                    pipe.set(f"{{bare}}:{one.delivery_id}", 1, nx=True, ex=86_400)
                    pipe.xadd("{bare}", {"event": one.event.structured(), "octets": bytes(one.raw.octets.view())})
                await pipe.execute()

        yield take


@asynccontextmanager
async def bare_rabbitmq(port: int) -> AsyncIterator[Take]:
    import aiormq

    connection = await aiormq.connect(f"amqp://guest:guest@127.0.0.1:{port}/")
    channel = await connection.channel(publisher_confirms=True)
    await channel.queue_declare("bare", durable=True, arguments={"x-queue-type": "quorum"})

    async def publish(one: Delivery) -> None:
        properties = aiormq.spec.Basic.Properties(message_id=one.delivery_id, delivery_mode=2)
        await channel.basic_publish(one.event.structured(), routing_key="bare", properties=properties, mandatory=True)

    async def take(batch: Sequence[Delivery]) -> None:
        await asyncio.gather(*map(publish, batch))

    yield take
    await connection.close()


@asynccontextmanager
async def bare_nats(port: int) -> AsyncIterator[Take]:
    import nats

    client = await nats.connect(f"nats://127.0.0.1:{port}")
    stream = client.jetstream()
    await stream.add_stream(name="BARE", subjects=["bare.>"], discard="new")

    async def publish(one: Delivery) -> None:
        await stream.publish("bare.x", one.event.structured(), headers={"Nats-Msg-Id": one.delivery_id})

    async def take(batch: Sequence[Delivery]) -> None:
        await asyncio.gather(*map(publish, batch))

    yield take
    await client.close()


@asynccontextmanager
async def bare_kafka(servers: Sequence[str]) -> AsyncIterator[Take]:
    import confluent_kafka

    settings = {"bootstrap.servers": ",".join(servers), "acks": "all", "enable.idempotence": True, "linger.ms": 0}
    producer = confluent_kafka.Producer({**settings, "log_level": 0})

    def write(batch: Sequence[Delivery]) -> None:
        for one in batch:
            producer.produce("bare", one.event.structured(), one.delivery_id.encode())
        producer.flush()

    yield lambda batch: asyncio.to_thread(write, batch)


async def rate(take: Take, size: int, seconds: float, place: OctetsPlace) -> float:
    """Messages a second; the messages are made before the clock runs."""
    batches = [
        [make_delivery(0, OCTETS, mailbox=uuid4().hex, place=place) for _ in range(size)]
        for _ in range(int(seconds * 3000 / size) + 1)
    ]
    await take(batches.pop())
    begun, count = time.monotonic(), 0
    for batch in batches:
        await take(batch)
        count += len(batch)
        if time.monotonic() - begun > seconds:
            break
    return count / (time.monotonic() - begun)


async def compare(name: str, first: Any, second: Any, options: Any, place: OctetsPlace = "beside") -> list[list[Any]]:
    rows: list[list[Any]] = []
    async with first as sink, second as bare:
        for size in BATCHES:
            found: tuple[list[float], list[float]] = ([], [])
            for number in range(rounds(options)):
                pair = ((sink, found[0]), (bare, found[1]))
                for take, into in pair if number % 2 else reversed(pair):
                    into.append(await rate(take, size, options.seconds, place))
            mine, limit = map(statistics.median, found)
            rows.append([name, size, mine, limit, percent(mine, limit)])
            say(f"{name} {size}: {mine:,.0f} of {limit:,.0f}")
    return rows


async def measure(options: Any) -> list[list[Any]]:
    with tempfile.TemporaryDirectory() as made, PostgresServer(access=("host all all 127.0.0.1/32 trust",)) as postgres:
        here = Path(made)
        postgres.ask("CREATE ROLE mailer LOGIN")
        postgres.ask(schema("bench") + rights("bench", "mailer"))
        block = {"host": "127.0.0.1", "tls": "none"}
        sink = ours("sqlite", here, path=here / "q" / "bench.db")
        rows = await compare("sqlite", sink, bare_sqlite(here / "bare.db"), options)
        role = {"port": postgres.port, "database": "postgres", "username": "mailer", "table": "bench"}
        sink = ours("postgres", here, **block, **role)
        rows += await compare("postgres", sink, bare_postgres(postgres.port), options)
        with RedisServer() as redis:
            sink = ours("redis", here, **block, port=redis.port)
            rows += await compare("redis", sink, bare_redis(redis.port), options)
        return rows + await measure_brokers(options, here)


async def measure_brokers(options: Any, here: Path) -> list[list[Any]]:
    block = {"host": "127.0.0.1", "tls": "none"}
    rows: list[list[Any]] = []
    with RabbitServer() as rabbit:
        login = {"port": rabbit.port, "username": "guest", "password": "guest", "queue": "bench"}
        preparation = plugin("rabbitmq", **block, **login).preparation("bench")
        await asyncio.to_thread(preparation.make)
        sink = ours("rabbitmq", here, **block, **login)
        rows += await compare("rabbitmq", sink, bare_rabbitmq(rabbit.port), options, "inside")
    with NatsServer() as nats:
        where = {"port": nats.port, "stream": "BENCH", "subject": "bench.x", "monitoring": [nats.page]}
        preparation = plugin("nats", **block, **where).preparation("bench")
        await asyncio.to_thread(preparation.make)
        rows += await compare("nats", ours("nats", here, **block, **where), bare_nats(nats.port), options, "inside")
    with KafkaCluster() as kafka:
        kafka.make("bench")
        kafka.make("bare")
        sink = ours("kafka", here, servers=kafka.servers, tls="none", topic="bench", durability="declared")
        rows += await compare("kafka", sink, bare_kafka(kafka.servers), options, "inside")
    return rows


def main() -> None:
    arguments = reader(__doc__, repeat=3)
    arguments.add_argument("--seconds", type=float, default=1.0, help="how long each measurement takes (1)")
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rows = asyncio.run(measure(options))
    heading("Queues beside bare clients")
    print(table(["queue", "batch", "messages/s", "bare client", "of it"], rows))


if __name__ == "__main__":
    main()
