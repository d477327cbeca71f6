"""A bucket whose store is killed, frozen, cut off or refuses us: nothing is lost, nothing is there twice, and what
somebody else put under a name of ours is not taken for our mail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.s3 import S3QueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery
from servers.proxy import Fault, FaultProxy
from servers.s3 import KEY, SECRET, S3Server, at_the_store, make_bucket, missing, object_of, objects_of
from servers.web import Asked, Reply, Web

pytest.importorskip("aiobotocore", reason="the extra aws is not installed")
needs_weed = pytest.mark.skipif(bool(missing), reason=missing)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server("Read", "Write", "List") as started:
        make_bucket(started.port, "mail")
        yield started


@contextlib.asynccontextmanager
async def queue(url: str, **more: Any) -> AsyncIterator[Any]:
    usual = {"bucket": "mail", "endpoint": url, "region": "us-east-1", "durability": "declared"}
    login = {"access_key_id": KEY, "secret_access_key": SECRET}
    config = S3QueueConfig(type="s3", **{**usual, **login, **more})
    sink = config.build("support", Runtime(SystemClock(), Spool(Path("/nonexistent")), Path("/nonexistent")))
    try:
        yield sink
    finally:
        await sink.close()


def batch(count: int, octets: bytes = b"x") -> list[Delivery]:
    return [make_delivery(uid, octets + str(uid).encode()) for uid in range(count)]


async def receipts(sink: Any, messages: Sequence[Delivery]) -> int:
    """How many of them are receipted; the others are the queue's trouble and no message's."""
    try:
        answers = await sink.deliver(messages)
    except TransientError:
        return 0
    assert all(isinstance(one, Receipt) or (one.blame == "queue" and not one.permanent) for one in answers)
    return sum(isinstance(one, Receipt) for one in answers)


async def assert_held(server: S3Server, prefix: str, messages: Sequence[Delivery]) -> None:
    """Each is there, whole, and nothing else."""
    names = await asyncio.to_thread(objects_of, server.port, "mail", prefix)
    wanted = {f"{prefix}{one.delivery_id}.json": one.event.structured() for one in messages}
    wanted |= {f"{prefix}{one.raw.octets.digest.hex()}.eml": bytes(one.raw.octets.view()) for one in messages}
    assert sorted(names) == sorted(wanted)
    for name, octets in wanted.items():
        assert await asyncio.to_thread(object_of, server.port, "mail", name) == octets


@needs_weed
async def test_a_line_cut_anywhere_loses_nothing_and_a_frozen_store_is_given_up_in_time(server: S3Server) -> None:
    messages = batch(6, HOSTILE * 100)
    faults = [
        Fault(kind, after, direction)  # type: ignore[arg-type]
        for kind in ("cut", "close")
        for direction, after in (("up", 500), ("up", 20_000), ("down", 20), ("down", 600))
    ]
    async with FaultProxy(server.port) as proxy:
        proxy.plan = faults
        async with queue(f"http://127.0.0.1:{proxy.port}", prefix="cut/", timeout=timedelta(seconds=5)) as sink:
            async with asyncio.timeout(60):
                while proxy.connections <= len(faults):
                    await receipts(sink, messages)
                    proxy.cut()
                    while proxy.open_connections:  # else the next goes out on one that is about to be reset
                        await asyncio.sleep(0.01)
            answers = await sink.deliver(messages)
            assert [one for one in answers if not isinstance(one, Receipt)] == []
    await assert_held(server, "cut/", messages)
    async with queue(server.url, prefix="frozen/", timeout=timedelta(seconds=2)) as sink:
        await sink.check()
        server.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(TransientError, match="no answer within"):
                await sink.deliver(messages)
            assert time.monotonic() - began < 6
        finally:
            server.thaw()
        assert await receipts(sink, messages) == 6
    await assert_held(server, "frozen/", messages)


@needs_weed
async def test_what_was_receipted_is_there_after_the_store_was_killed() -> None:
    messages = batch(8, HOSTILE * 50)
    with S3Server() as server:
        make_bucket(server.port, "mail")
        async with queue(server.url, prefix="killed/") as sink:
            assert await receipts(sink, messages[:4]) == 4
            server.kill()
            with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
                await sink.deliver(messages[4:])
            server.start()
            assert await receipts(sink, messages) == 8
        await assert_held(server, "killed/", messages)


@needs_weed
async def test_what_lies_there_is_looked_at_before_it_counts(server: S3Server) -> None:
    """412 says that something is there, and not what."""
    same, torn, foreign, another = batch(4, HOSTILE)

    async def put(s3: Any) -> None:
        for name, octets in {
            f"{same.raw.octets.digest.hex()}.eml": bytes(same.raw.octets.view()),
            f"{same.delivery_id}.json": same.event.structured().replace(b"Hello", b"Earlier"),
            f"{torn.raw.octets.digest.hex()}.eml": bytes(torn.raw.octets.view())[:-1] + b"?",
            f"{foreign.delivery_id}.json": another.event.structured(),
            f"{another.delivery_id}.json": b'{"deliveryid": "' + another.delivery_id.encode() + b'", "da',
        }.items():
            await s3.put_object(Bucket="mail", Key=f"there/{name}", Body=octets)

    at_the_store(server.port, put)
    async with queue(server.url, prefix="there/") as sink:
        answers = await sink.deliver([same, torn, foreign, another])
    assert isinstance(answers[0], Receipt)
    assert answers[0].repeated
    for answer in answers[1:]:
        assert isinstance(answer, Refusal)
        assert not answer.permanent
        assert "something else lies under there/" in answer.reason


@needs_weed
async def test_equal_octets_are_held_once_and_the_event_says_where(server: S3Server) -> None:
    messages = [make_delivery(uid, b"the same") for uid in range(3)]
    async with queue(server.url, prefix="equal/") as sink:
        assert await receipts(sink, [*messages, make_delivery(9, b"not wanted", octets_wanted=False)]) == 4
    names = await asyncio.to_thread(objects_of, server.port, "mail", "equal/")
    assert [one for one in names if one.endswith(".eml")] == [f"equal/{sha256(b'the same').hexdigest()}.eml"]
    assert len(names) == 5


@needs_weed
async def test_a_bucket_that_is_missing_a_wrong_key_and_a_large_message_say_what_they_are(server: S3Server) -> None:
    for more, said in (
        ({"bucket": "nowhere"}, "NoSuchBucket"),
        ({"secret_access_key": "wrong-wrong"}, "SignatureDoesNotMatch"),
        ({"access_key_id": "NOBODY"}, "InvalidAccessKeyId"),
        ({"durability": "strict"}, "durability: declared"),
    ):
        async with queue(server.url, **more) as sink:
            for call in (sink.deliver, lambda _, sink=sink: sink.check()):
                with pytest.raises(TransientError, match=said) as caught:
                    await call(batch(1))
                assert SECRET not in str(caught.value)
    async with queue(server.url, prefix="large/", max_size=2000) as sink:
        small, large = await sink.deliver([make_delivery(1, b"x"), make_delivery(2, bytes(2001))])
    assert isinstance(small, Receipt)
    assert isinstance(large, Refusal)
    assert large.permanent
    assert "2,001 octets" in large.reason


async def test_octets_that_changed_on_the_way_are_no_receipt_and_the_event_waits_for_its_octets() -> None:
    put: list[str] = []

    def answer(asked: Asked) -> Reply:
        if asked.method == "GET":
            return Reply(body=b"<ListBucketResult/>", headers={"content-type": "application/xml"})
        put.append(asked.path)
        assert asked.headers["if-none-match"] == "*"
        return Reply(headers={"x-amz-checksum-sha256": "0" * 43 + "="})

    async with Web(answer) as web, queue(web.url) as sink:
        with pytest.raises(TransientError, match="not about what was sent"):
            await sink.deliver(batch(1))
    assert len(put) == 1
    assert put[0].endswith(".eml")
    assert json.dumps(put).isascii()


async def test_a_name_that_somebody_else_is_writing_just_now_is_asked_for_again() -> None:
    """AWS: 409 while another one's conditional put of the same name is not done."""
    put: list[str] = []

    def answer(asked: Asked) -> Reply:
        if asked.method != "PUT":
            return Reply(body=b"<ListBucketResult/>", headers={"content-type": "application/xml"})
        put.append(asked.path)
        conflict = b"<Error><Code>ConditionalRequestConflict</Code><Message>again</Message></Error>"
        return Reply(409, conflict) if put.count(asked.path) < 3 else Reply()

    async with Web(answer) as web, queue(web.url) as sink:
        assert await receipts(sink, batch(1)) == 1
    assert len(put) == 6


@pytest.mark.parametrize(
    ("code", "status", "advice"),
    [
        ("AccessDenied", 403, "policy"),
        ("InvalidAccessKeyId", 403, "key"),
        ("RequestTimeTooSkewed", 403, "clock"),
        ("QuotaExceeded", 403, ""),
        ("SlowDown", 503, ""),
    ],
)
async def test_what_is_no_messages_fault_is_the_stores_and_says_what_to_do(code: str, status: int, advice: str) -> None:
    """A right that was taken away, a full store, one that is too busy: no message is refused for it."""

    def answer(asked: Asked) -> Reply:
        if asked.method != "PUT":
            return Reply(body=b"<ListBucketResult/>", headers={"content-type": "application/xml"})
        return Reply(status, f"<Error><Code>{code}</Code><Message>{SECRET} is wrong</Message></Error>".encode())

    async with Web(answer) as web, queue(web.url) as sink:
        with pytest.raises(TransientError, match=code) as caught:
            await sink.deliver(batch(3))
        assert advice in caught.value.advice
        assert SECRET not in str(caught.value)


async def test_a_message_that_the_store_finds_too_large_is_refused_and_the_others_are_taken() -> None:
    def answer(asked: Asked) -> Reply:
        if asked.method != "PUT":
            return Reply(body=b"<ListBucketResult/>", headers={"content-type": "application/xml"})
        if len(asked.body) > 5000:
            return Reply(400, b"<Error><Code>EntityTooLarge</Code><Message>too large</Message></Error>")
        return Reply()

    async with Web(answer) as web, queue(web.url) as sink:
        small, large = await sink.deliver([make_delivery(1, b"x"), make_delivery(2, bytes(6000))])
    assert isinstance(small, Receipt)
    assert isinstance(large, Refusal)
    assert large.permanent
    assert "EntityTooLarge" in large.reason
