"""A queue that is a topic of SNS: nothing is published to nobody, each message has an answer of its own, calls stay
within the limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.sns import SnsQueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery
from servers.aws import AwsServer, make_topic, messages_of, missing, sns, topic_arn
from servers.proxy import Fault, FaultProxy
from servers.web import Asked, Reply, Web

pytest.importorskip("aiobotocore", reason="the extra aws is not installed")
needs_moto = pytest.mark.skipif(bool(missing), reason=missing)
SECRET = "hunter2hunter2"
TOPIC = topic_arn("mail")


@pytest.fixture(scope="module")
def server() -> Iterator[AwsServer]:
    with AwsServer() as started:
        yield started


@contextlib.asynccontextmanager
async def queue(url: str, topic: str = TOPIC, *, clock: Any = None, **more: Any) -> AsyncIterator[Any]:
    keys = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": SECRET}
    config = SnsQueueConfig(type="sns", topic=topic, endpoint=url, **{**keys, "durability": "declared", **more})
    runtime = Runtime(clock or SystemClock(), Spool(Path("/nonexistent")), Path("/nonexistent"))
    sink = config.build("support", runtime)
    try:
        yield sink
    finally:
        await sink.close()


def batch(count: int, octets: bytes = b"x", first: int = 0) -> list[Delivery]:
    return [make_delivery(uid, octets, place="inside") for uid in range(first, first + count)]


async def held(server: AwsServer, name: str) -> list[str]:
    found = await asyncio.to_thread(messages_of, server.port, name)
    return [json.loads(one["Body"])["deliveryid"] for one in found]


async def receipts(sink: Any, messages: Sequence[Delivery]) -> int:
    """How many of them are receipted; the others are the queue's trouble and no message's."""
    try:
        answers = await sink.deliver(messages)
    except TransientError:
        return 0
    assert all(isinstance(one, Receipt) or (one.blame == "queue" and not one.permanent) for one in answers)
    return sum(isinstance(one, Receipt) for one in answers)


# --- against moto -----------------------------------------------------------------------------------------------


@needs_moto
async def test_nothing_is_published_to_nobody(server: AwsServer) -> None:
    """SNS answers as willingly if nobody is subscribed."""
    topic = make_topic(server.port, "lonely")
    async with queue(server.url, topic) as sink:
        for call in (sink.deliver(batch(2)), sink.check()):
            with pytest.raises(TransientError, match="nobody is subscribed") as caught:
                await call
            assert "subscribe" in caught.value.advice
        make_topic(server.port, "lonely", queue="company")
        assert await receipts(sink, batch(2)) == 2
    assert len(await held(server, "company")) == 2


@needs_moto
async def test_the_last_subscriber_to_leave_is_missed_within_a_minute(server: AwsServer) -> None:
    class Clock(SystemClock):
        ahead = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.ahead

    clock = Clock()
    topic = make_topic(server.port, "left", queue="left")
    async with queue(server.url, topic, clock=clock) as sink:
        assert await receipts(sink, batch(1)) == 1
        listed = sns(server.port, "ListSubscriptionsByTopic", TopicArn=topic)
        subscription = listed.split("<SubscriptionArn>")[1].split("<")[0]
        sns(server.port, "Unsubscribe", SubscriptionArn=subscription)
        clock.ahead = 61.0
        with pytest.raises(TransientError, match="nobody is subscribed"):
            await sink.deliver(batch(1, first=1))


@needs_moto
async def test_killed_frozen_or_cut_off_it_is_the_queues_trouble_and_nothing_is_lost(server: AwsServer) -> None:
    messages = batch(12, b"x" * 1000)
    faults = [
        Fault(kind, after, direction)  # type: ignore[arg-type]
        for kind in ("cut", "close")
        for direction, after in (("up", 500), ("up", 5_000), ("down", 20), ("down", 600))
    ]
    topic = make_topic(server.port, "faults", queue="faults")
    async with FaultProxy(server.port) as proxy:
        proxy.plan = faults
        async with queue(f"http://127.0.0.1:{proxy.port}", topic, timeout=timedelta(seconds=5)) as sink:
            async with asyncio.timeout(60):
                while proxy.connections <= len(faults):
                    await receipts(sink, messages)
                    proxy.cut()
                    while proxy.open_connections:
                        await asyncio.sleep(0.01)
            assert await receipts(sink, messages) == 12
    async with queue(server.url, topic, timeout=timedelta(seconds=2)) as sink:
        await sink.check()
        server.freeze()
        try:
            began = time.monotonic()
            with pytest.raises(TransientError, match="no answer within"):
                await sink.deliver(batch(1, first=50))
            assert time.monotonic() - began < 6
        finally:
            server.thaw()
        assert await receipts(sink, batch(1, first=50)) == 1
    assert set(await held(server, "faults")) == {one.delivery_id for one in messages + batch(1, first=50)}
    with AwsServer() as other:
        make_topic(other.port, "mail", queue="mail")
        async with queue(other.url) as sink:
            assert await receipts(sink, batch(1)) == 1
            other.kill()
            with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
                await sink.deliver(batch(1, first=1))


@needs_moto
async def test_calls_stay_within_the_limit_as_it_is_rendered(server: AwsServer) -> None:
    """Of each message Base64 makes a third more, and ten of them together are bounded as well."""
    topic = make_topic(server.port, "large", queue="large")
    messages = batch(10, os.urandom(60_000))
    whole, larger = (make_delivery(20 + n, bytes(size), place="inside") for n, size in enumerate((190_000, 200_000)))
    async with queue(server.url, topic) as sink:
        assert await receipts(sink, messages) == 10
        fits, refused = await sink.deliver([whole, larger])
    assert isinstance(fits, Receipt)
    assert isinstance(refused, Refusal)
    assert refused.permanent
    assert refused.unasked
    assert "262,144" in refused.reason
    assert len(await held(server, "large")) == 11


@needs_moto
async def test_a_topic_is_made_once_and_a_hostile_message_is_taken_whole(server: AwsServer) -> None:
    for name in ("made", "made.fifo"):
        topic = topic_arn(name)
        async with queue(server.url, topic) as sink:
            for call in (sink.deliver(batch(1)), sink.check()):
                with pytest.raises(TransientError, match="NotFound"):
                    await call
        config = SnsQueueConfig(type="sns", topic=topic, endpoint=server.url, access_key_id="a", secret_access_key="b")
        wanted = config.preparation("support")
        for _ in range(2):
            await asyncio.to_thread(wanted.make)
        assert f"--name {name}" in wanted.statements
        assert ("FifoTopic" in wanted.statements) is name.endswith(".fifo")
        make_topic(server.port, name, queue=name)
        text = "".join(map(chr, range(0x250))) + "\ufffe\uffff🎈"
        message = make_delivery(1, HOSTILE, place="inside", text=text, topic="a\x01\ufffeb")
        async with queue(server.url, topic) as sink:
            assert await receipts(sink, [message]) == 1
        (found,) = await asyncio.to_thread(messages_of, server.port, name)
        assert json.loads(found["Body"])["data"]["text"] == text


# --- scripted ---------------------------------------------------------------------------------------------------


class Scripted(Web):
    """SNS as it answers, or as ``says`` makes of a call: (its entries, by number) -> (failed, by number) or a reply."""

    def __init__(self, says: Any = None, arns: Sequence[str] = (f"{TOPIC}:1",)) -> None:
        super().__init__(self._answer)
        self.says = says
        self.arns = list(arns)
        self.calls: list[dict[str, dict[str, str]]] = []

    def _answer(self, asked: Asked) -> Reply:
        told = dict(parse_qsl(asked.body.decode(), keep_blank_values=True))
        if told["Action"] == "ListSubscriptionsByTopic":
            member = "".join(f"<member><SubscriptionArn>{one}</SubscriptionArn></member>" for one in self.arns)
            return _xml("ListSubscriptionsByTopic", f"<Subscriptions>{member}</Subscriptions>")
        entries: dict[str, dict[str, str]] = {}
        for name, value in told.items():
            if name.startswith("PublishBatchRequestEntries."):
                _, _, number, key = name.split(".", 3)
                entries.setdefault(number, {})[key] = value
        self.calls.append(entries)
        found = self.says(entries) if self.says is not None else {}
        if isinstance(found, Reply):
            return found
        taken = [one["Id"] for one in entries.values() if one["Id"] not in found]
        return _xml(
            "PublishBatch",
            "<Successful>"
            + "".join(f"<member><Id>{one}</Id><MessageId>m-{one}</MessageId></member>" for one in taken)
            + "</Successful><Failed>"
            + "".join(
                f"<member><Id>{one}</Id><Code>{code}</Code><Message>{words}</Message>"
                f"<SenderFault>{fault}</SenderFault></member>"
                for one, (code, words, fault) in found.items()
                if code
            )
            + "</Failed>",
        )


def _xml(operation: str, body: str) -> Reply:
    text = (
        f'<{operation}Response xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><{operation}Result>{body}'
        f"</{operation}Result></{operation}Response>"
    )
    return Reply(body=text.encode(), headers={"content-type": "text/xml"})


def error(code: str, words: str = "so it is", status: int = 400) -> Reply:
    told = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{words}</Message></Error>"
    return Reply(status, f"<ErrorResponse>{told}</ErrorResponse>".encode(), {"content-type": "text/xml"})


async def test_each_entry_of_a_call_has_its_own_answer() -> None:
    """AWS: some of a batch may fail in an answer whose status is 200."""
    failed = {
        "1": ("InvalidParameter", "Message too long", "true"),
        "2": ("InternalError", "later", "false"),
        "3": ("InvalidParameter", "something", "true"),
        "4": ("", "", ""),  # nothing is said of it
    }
    async with Scripted(lambda _: failed) as web, queue(web.url) as sink:
        answers = await sink.deliver(batch(6))
    assert [isinstance(one, Receipt) for one in answers] == [True, False, False, False, False, True]
    told = [(one.permanent, one.blame) for one in answers if isinstance(one, Refusal)]
    assert told == [(True, "message"), (False, "queue"), (False, "message"), (False, "queue")]


async def test_a_call_that_is_refused_for_one_message_is_sent_message_by_message() -> None:
    messages = batch(4)

    def says(entries: dict[str, dict[str, str]]) -> Any:
        bad = any(messages[2].delivery_id in one["Message"] for one in entries.values())
        return error("InvalidParameter", "Invalid parameter: Message too long") if bad else {}

    async with Scripted(says) as web, queue(web.url) as sink:
        answers = await sink.deliver(messages)
        assert [len(one) for one in web.calls] == [4, 1, 1, 1, 1]
    assert [isinstance(one, Receipt) for one in answers] == [True, True, False, True]
    assert isinstance(answers[2], Refusal)
    assert answers[2].permanent


async def test_a_fifo_topic_is_told_group_and_id_and_a_standard_one_its_group_alone() -> None:
    for topic, more, group in ((topic_arn("m.fifo"), {}, None), (TOPIC, {"group": "{mailbox}"}, "support")):
        async with Scripted() as web, queue(web.url, topic, **more) as sink:
            (message,) = batch(1)
            assert await receipts(sink, [message]) == 1
            ((entry,),) = (list(one.values()) for one in web.calls)
            assert entry["MessageGroupId"] == (group or message.delivery_id)
            assert entry.get("MessageDeduplicationId") == (None if group else message.delivery_id)
            assert {value for name, value in entry.items() if name.endswith(".Name")} == {
                "deliveryid",
                "mailbox",
                "priority",
            }


async def test_a_subscription_that_is_not_confirmed_is_none() -> None:
    async with Scripted(arns=["PendingConfirmation", "Deleted"]) as web, queue(web.url) as sink:
        with pytest.raises(TransientError, match="nobody is subscribed"):
            await sink.deliver(batch(1))
        assert not web.calls
        web.arns.append(f"{TOPIC}:2")
        assert await receipts(sink, batch(1)) == 1


@pytest.mark.parametrize(
    ("code", "status", "advice"),
    [("InvalidClientTokenId", 403, "key"), ("AuthorizationError", 403, "policy"), ("Throttled", 429, "")],
)
async def test_what_is_no_messages_fault_is_the_queues_and_says_what_to_do(code: str, status: int, advice: str) -> None:
    """A right that was taken away, a topic that is asked too much: no message is refused for it."""
    async with Scripted(lambda _: error(code, f"{SECRET} is wrong", status)) as web, queue(web.url) as sink:
        with pytest.raises(TransientError, match=code) as caught:
            await sink.deliver(batch(3))
        assert len(web.calls) == 1, "and nothing is tried again at once"
    assert advice in caught.value.advice
    assert SECRET not in str(caught.value)


async def test_another_service_than_aws_is_refused_unless_it_is_declared() -> None:
    async with Scripted() as web:
        async with queue(web.url, durability="strict") as sink:
            for call in (sink.deliver(batch(1)), sink.check()):
                with pytest.raises(TransientError, match=r"is not AWS.*durability: declared"):
                    await call
            assert not web.calls
        async with queue(web.url) as sink:
            assert await receipts(sink, batch(1)) == 1
            assert sink.durability.finding == "unknown"
