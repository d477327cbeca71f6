"""Jobs at a real Redis, as workers of others take them: in their shape, once, and known again after they were taken."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.redis import RedisQueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery
from servers import sidekiq
from servers.celery import JOB, CeleryWorker
from servers.redis import RedisServer, missing

redis = pytest.importorskip("redis", reason="the extra redis is not installed")
pytestmark = pytest.mark.skipif(bool(missing), reason=missing)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    with redis.Redis(port=server.port) as client:
        client.flushall()
        yield client


def queue(server: RedisServer, **more: Any) -> Any:
    config = RedisQueueConfig.model_validate(
        {"type": "redis", "host": "127.0.0.1", "port": server.port, "tls": "none", **more}
    )
    return config.build("support", Runtime(SystemClock(), Spool(Path("/nonexistent")), Path("/nonexistent")))


def orders(count: int) -> list[Any]:
    return [make_delivery(uid, place="inside") for uid in range(count)]


async def test_sidekiq_finds_a_job_whose_only_argument_is_the_event(server: RedisServer, client: Any) -> None:
    sink, batch = queue(server, format="sidekiq", job="MailJob", job_queue="mail"), orders(2)
    await sink.check()
    assert client.keys("*") == []
    answers = await sink.deliver(batch)
    await sink.close()
    assert all(isinstance(one, Receipt) and not one.repeated for one in answers)
    assert client.smembers("queues") == {b"mail"}
    first = json.loads(client.brpop("queue:mail")[1])  # as a worker takes it: the oldest first
    assert first["args"] == [json.loads(batch[0].event.structured())]
    assert (first["class"], first["queue"], first["retry"]) == ("MailJob", "mail", True)
    assert len(first["jid"]) == 24
    assert first["jid"] == batch[0].delivery_id.replace("-", "")[:24]
    assert abs(first["created_at"] - SystemClock().now().timestamp()) < 60


async def test_celery_finds_a_task_in_its_protocol(server: RedisServer, client: Any) -> None:
    sink, (order,) = queue(server, format="celery", job="desk.tasks.take"), orders(1)
    await sink.deliver([order])
    await sink.close()
    message = json.loads(client.brpop("celery")[1])
    assert (message["content-type"], message["content-encoding"]) == ("application/json", "utf-8")
    assert message["properties"]["body_encoding"] == "base64"
    assert message["properties"]["delivery_info"] == {"exchange": "", "routing_key": "celery"}
    assert message["properties"]["delivery_tag"]
    assert (message["headers"]["task"], message["headers"]["id"]) == ("desk.tasks.take", order.delivery_id)
    arguments, named, embed = json.loads(base64.b64decode(message["body"]))
    assert arguments == [json.loads(order.event.structured())]
    assert named == {}
    assert embed.keys() == {"callbacks", "errbacks", "chain", "chord"}


async def test_a_celery_worker_runs_each_event_as_a_task_whose_id_is_the_delivery_id(
    server: RedisServer, client: Any, tmp_path: Path
) -> None:
    pytest.importorskip("celery", reason="Celery is not installed")
    batch = [make_delivery(uid, HOSTILE, place="inside", text="Größe \u2028 😀") for uid in range(3)]
    with CeleryWorker(tmp_path, f"redis://127.0.0.1:{server.port}/0", "mail") as run:
        for _ in range(2):  # each time as another process
            sink = queue(server, format="celery", job=JOB, job_queue="mail")
            await sink.deliver(batch)
            await sink.close()
        taken = await asyncio.to_thread(run.taken, 3)
        await asyncio.sleep(0.2)
        assert run.taken(3) == taken == [(one.delivery_id, json.loads(one.event.structured())) for one in batch]


@pytest.mark.skipif(bool(sidekiq.missing), reason=sidekiq.missing)
async def test_a_sidekiq_worker_does_each_event_as_a_job_once(server: RedisServer, client: Any, tmp_path: Path) -> None:
    batch = [make_delivery(uid, HOSTILE, place="inside", text="Größe \u2028 😀") for uid in range(3)]
    with sidekiq.Sidekiq(tmp_path, f"redis://127.0.0.1:{server.port}/0", "mail") as run:
        for _ in range(2):  # each time as another process
            sink = queue(server, format="sidekiq", job=sidekiq.JOB, job_queue="mail")
            await sink.deliver(batch)
            await sink.close()
        taken = await asyncio.to_thread(run.taken, 3)
        await asyncio.sleep(0.2)
        ids = [one.delivery_id.replace("-", "")[:24] for one in batch]
        assert (
            run.taken(3)
            == taken
            == [(name, json.loads(one.event.structured())) for name, one in zip(ids, batch, strict=True)]
        )


@pytest.mark.parametrize(("format", "key"), [("sidekiq", "queue:default"), ("celery", "celery")])
async def test_a_job_that_was_taken_is_not_pushed_again(
    server: RedisServer, client: Any, format: str, key: str
) -> None:
    batch = orders(3)
    for _ in range(2):
        sink = queue(server, format=format, job="MailJob")
        answers = await sink.deliver(batch)
        assert set(await sink.holds([one.delivery_id for one in batch])) == {one.delivery_id for one in batch}
        await sink.close()
        client.rpop(key)
    assert all(isinstance(one, Receipt) and one.repeated for one in answers)
    assert client.llen(key) == 1


async def test_octets_inside_of_a_job_are_counted_once(server: RedisServer, client: Any) -> None:
    order = make_delivery(1, bytes(50_000), place="inside")
    sink = queue(server, format="celery", job="x", max_size=order.event.size)
    (answer,) = await sink.deliver([order])
    assert isinstance(answer, Receipt)
    (answer,) = await sink.deliver([make_delivery(2, bytes(50_010), place="inside")])
    assert isinstance(answer, Refusal) and answer.unasked
    assert f"{order.event.size:,}" in answer.reason
    await sink.close()


async def test_another_kind_of_key_in_its_place_is_the_queues_trouble(server: RedisServer, client: Any) -> None:
    client.set("celery", "x")
    sink = queue(server, format="celery", job="x")
    for call in (sink.check(), sink.deliver(orders(1))):
        with pytest.raises(TransientError):
            await call
    await sink.close()


@pytest.mark.parametrize(
    "wrong",
    [{"format": "celery"}, {"job": "x"}, {"format": "sidekiq", "job": "x", "maxlen": 5}],
    ids=["no-job", "no-format", "maxlen"],
)
def test_a_block_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RedisQueueConfig.model_validate({"type": "redis", "host": "127.0.0.1", **wrong})
