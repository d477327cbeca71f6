"""Bare clients of the libraries that queues use: each writes the event and the octets of a batch, durably."""

from __future__ import annotations

import asyncio
import imaplib
import smtplib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from mailpoller.core.delivery import Delivery
from servers.s3 import KEY, SECRET

Take = Callable[[Sequence[Delivery]], Awaitable[object]]
COMMAND = ["/bin/sh", "-c", "cat > /dev/null"]


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


@asynccontextmanager
async def bare_aws(service: str, url: str, **keys: str) -> AsyncIterator[Any]:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession

    config = AioConfig(retries={"total_max_attempts": 1}, proxies={})
    keys = keys or {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    region = "eu-central-1"
    async with AioSession().create_client(
        service, region_name=region, endpoint_url=url, config=config, **keys
    ) as client:
        yield client


@asynccontextmanager
async def bare_calls(service: str, url: str, words: dict[str, str], operation: str, name: str) -> AsyncIterator[Take]:
    """SQS or SNS. ``name``: how the call names its entries, and each entry its text."""
    entries, text = name.split()
    async with bare_aws(service, url) as client:
        turns = asyncio.Semaphore(4)

        async def call(part: Sequence[Delivery]) -> None:
            several = [{"Id": str(n), text: one.event.structured().decode()} for n, one in enumerate(part)]
            async with turns:
                answer = await getattr(client, operation)(**words, **{entries: several})
            if len(answer["Successful"]) != len(part):
                raise SystemExit(f"{service}: a message was not taken")

        async def take(batch: Sequence[Delivery]) -> None:
            await asyncio.gather(*(call(batch[start : start + 10]) for start in range(0, len(batch), 10)))

        yield take


@asynccontextmanager
async def bare_s3(url: str) -> AsyncIterator[Take]:
    async with bare_aws("s3", url, aws_access_key_id=KEY, aws_secret_access_key=SECRET) as client:
        turns = asyncio.Semaphore(8)

        async def put(name: str, octets: bytes) -> None:
            async with turns:
                with suppress(client.exceptions.ClientError):  # it is there
                    await client.put_object(Bucket="bench", Key=f"bare/{name}", Body=octets, IfNoneMatch="*")

        async def take(batch: Sequence[Delivery]) -> None:
            octets = {one.raw.octets.digest: bytes(one.raw.octets.view()) for one in batch}
            await asyncio.gather(*(put(name.hex(), one) for name, one in octets.items()))
            await asyncio.gather(*(put(f"{one.delivery_id}.json", one.event.structured()) for one in batch))

        yield take


@asynccontextmanager
async def bare_webhook(url: str) -> AsyncIterator[Take]:
    import httpcore

    async with httpcore.AsyncConnectionPool(max_connections=4) as pool:

        async def post(one: Delivery) -> None:
            headers = {"content-type": "application/cloudevents+json", "webhook-id": one.delivery_id}
            answer = await pool.request("POST", url, headers=headers, content=one.event.structured())
            if answer.status != 204:
                raise SystemExit(f"webhook: {answer.status}")

        async def take(batch: Sequence[Delivery]) -> None:
            await asyncio.gather(*map(post, batch))

        yield take


@asynccontextmanager
async def bare_command() -> AsyncIterator[Take]:
    async def take(batch: Sequence[Delivery]) -> None:
        for one in batch:
            process = await asyncio.create_subprocess_exec(*COMMAND, stdin=asyncio.subprocess.PIPE)
            await process.communicate(bytes(one.raw.octets.view()))

    yield take


@asynccontextmanager
async def bare_lmtp(socket: Path, user: str) -> AsyncIterator[Take]:
    connections = [smtplib.LMTP(str(socket)) for _ in range(2)]

    def send(connection: smtplib.LMTP, batch: Sequence[Delivery]) -> None:
        for one in batch:
            connection.sendmail("", [user], bytes(one.raw.octets.view()))

    async def take(batch: Sequence[Delivery]) -> None:
        halves = [half for half in (batch[::2], batch[1::2]) if half]
        await asyncio.gather(*(asyncio.to_thread(send, *pair) for pair in zip(connections, halves, strict=False)))

    yield take
    for connection in connections:
        connection.quit()


@asynccontextmanager
async def bare_imap(port: int, user: str) -> AsyncIterator[Take]:
    with imaplib.IMAP4("127.0.0.1", port) as connection:
        connection.login(user, "secret")

        def write(batch: Sequence[Delivery]) -> None:
            for one in batch:
                connection.append("INBOX", None, None, bytes(one.raw.octets.view()))  # type: ignore[arg-type]

        yield lambda batch: asyncio.to_thread(write, batch)
