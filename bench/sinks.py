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
  webhook   httpcore, one POST after the other over a kept connection; four at once for a batch, as ours
  command   asyncio.subprocess, a shell's "cat" for each message
  lmtp      smtplib over one connection to Dovecot; two for a batch, as ours
  imap      imaplib, APPEND over one connection to Dovecot
  sqs, sns  aiobotocore over its own HTTP, ten messages in a call, four calls at once, at moto (in memory)
  s3        aiobotocore over its own HTTP: octets and event with If-None-Match, eight puts at once, at SeaweedFS

    sinks.py --only sqs,s3      of these alone
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from rig.bare_queues import (
    COMMAND,
    Take,
    bare_calls,
    bare_command,
    bare_imap,
    bare_kafka,
    bare_lmtp,
    bare_nats,
    bare_postgres,
    bare_rabbitmq,
    bare_redis,
    bare_s3,
    bare_sqlite,
    bare_webhook,
)
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
from servers.aws import AwsServer, make_queue, make_topic
from servers.dovecot import Dovecot
from servers.kafka import KafkaCluster
from servers.nats import NatsServer
from servers.postgres import PostgresServer
from servers.rabbitmq import RabbitServer
from servers.redis import RedisServer
from servers.s3 import KEY, SECRET, S3Server, make_bucket
from servers.web import Reply, Web

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


async def rate(take: Take, size: int, seconds: float, place: OctetsPlace) -> float:
    """Messages a second; the messages are made before the clock runs."""
    batches = [
        [make_delivery(0, OCTETS + (own := uuid4().hex).encode(), mailbox=own, place=place) for _ in range(size)]
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
        rows += await measure_brokers(options, here)
        rows += await measure_others(options, here)
        return rows + await measure_clouds(options, here, ())


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


async def measure_clouds(options: Any, here: Path, only: Sequence[str]) -> list[list[Any]]:
    """Each at a stand-in: the services of Amazon themselves cannot be measured here."""
    rows: list[list[Any]] = []
    key = {"access_key_id": "test", "secret_access_key": "test", "durability": "declared"}
    if not only or {"sqs", "sns"} & set(only):
        with AwsServer() as aws:
            if not only or "sqs" in only:
                sink = ours("sqs", here, queue=make_queue(aws.port, "bench"), region="eu-central-1", **key)
                words = {"QueueUrl": make_queue(aws.port, "bare")}
                bare = bare_calls("sqs", aws.url, words, "send_message_batch", "Entries MessageBody")
                rows += await compare("sqs", sink, bare, options, "inside")
            if not only or "sns" in only:
                sink = ours("sns", here, topic=make_topic(aws.port, "bench", queue="b"), endpoint=aws.url, **key)
                words = {"TopicArn": make_topic(aws.port, "bare", queue="c")}
                bare = bare_calls("sns", aws.url, words, "publish_batch", "PublishBatchRequestEntries Message")
                rows += await compare("sns", sink, bare, options, "inside")
    if not only or "s3" in only:
        with S3Server() as store:
            make_bucket(store.port, "bench")
            login = {"access_key_id": KEY, "secret_access_key": SECRET, "durability": "declared"}
            where = {"bucket": "bench", "prefix": "ours/", "region": "eu-central-1", "endpoint": store.url}
            rows += await compare("s3", ours("s3", here, **where, **login), bare_s3(store.url), options)
    return rows


async def measure_others(options: Any, here: Path) -> list[list[Any]]:
    rows: list[list[Any]] = []
    async with Web(lambda asked: Reply(204)) as web:
        sink = ours("webhook", here, url=f"{web.url}/x")
        rows += await compare("webhook", sink, bare_webhook(f"{web.url}/x"), options, "inside")
    rows += await compare("command", ours("command", here, command=COMMAND), bare_command(), options)
    with Dovecot(lmtp=True) as dovecot:
        socket, port = dovecot.directory / "lmtp", dovecot.imap_port
        sink = ours("lmtp", here, socket=socket, to="ours@example.com")
        rows += await compare("lmtp", sink, bare_lmtp(socket, "bare@example.com"), options)
        login = {"host": "127.0.0.1", "port": port, "tls": "none", "username": "kept", "password": "secret"}
        rows += await compare("imap", ours("imap", here, **login), bare_imap(port, "bare"), options)
    return rows


async def measure_some(options: Any) -> list[list[Any]]:
    """What ``--only`` names, else everything."""
    if options.only:
        with tempfile.TemporaryDirectory() as made:
            return await measure_clouds(options, Path(made), options.only.split(","))
    return await measure(options)


def main() -> None:
    arguments = reader(__doc__, repeat=3)
    arguments.add_argument("--seconds", type=float, default=1.0, help="how long each measurement takes (1)")
    arguments.add_argument("--only", default="", help="sqs, sns and s3, as far as they are named here")
    options = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rows = asyncio.run(measure_some(options))
    heading("Queues beside bare clients")
    print(table(["queue", "batch", "messages/s", "bare client", "of it"], rows))


if __name__ == "__main__":
    main()
