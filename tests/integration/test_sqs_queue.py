"""A queue of SQS whose service is killed, frozen, cut off, refuses us, or takes one message of ten: nothing is lost,
what is there twice can be recognised, and an operator is told what to do.

The stand-in takes what AWS refuses and knows no users: those answers are scripted, as AWS's documentation has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.attributes import Attributes
from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.sqs import SqsQueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery
from servers.aws import AwsServer, make_queue, messages_of, missing
from servers.proxy import Fault, FaultProxy
from servers.web import Asked, Reply, Web

pytest.importorskip("aiobotocore", reason="the extra aws is not installed")
needs_moto = pytest.mark.skipif(bool(missing), reason=missing)


@pytest.fixture(scope="module")
def server() -> Iterator[AwsServer]:
    with AwsServer() as started:
        yield started


@contextlib.asynccontextmanager
async def queue(url: str, **more: Any) -> AsyncIterator[Any]:
    keys = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "hunter2hunter2", "region": "eu-central-1"}
    config = SqsQueueConfig(type="sqs", queue=url, **{**keys, "durability": "declared", **more})
    sink = config.build("support", Runtime(SystemClock(), Spool(Path("/nonexistent")), Path("/nonexistent")))
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
async def test_a_service_that_is_killed_is_the_queues_trouble_and_told_in_time() -> None:
    with AwsServer() as server:
        make_queue(server.port, "mail")
        async with queue(server.queue("mail")) as sink:
            assert await receipts(sink, batch(3)) == 3
            server.kill()
            began = time.monotonic()
            for call in (sink.deliver(batch(5, first=10)), sink.check()):
                with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
                    await call
            assert time.monotonic() - began < 5


@needs_moto
async def test_a_frozen_service_is_given_up_in_time_and_what_it_did_later_is_there_once(server: AwsServer) -> None:
    make_queue(server.port, "frozen.fifo")
    async with queue(server.queue("frozen.fifo"), timeout=timedelta(seconds=2)) as sink:
        await sink.deliver(batch(1, first=10))
        server.freeze()
        try:
            began = time.monotonic()
            for call in (sink.deliver(batch(3)), sink.check()):
                with pytest.raises(TransientError, match="no answer within"):
                    await call
            assert time.monotonic() - began < 8
        finally:
            server.thaw()
        assert await receipts(sink, batch(3)) == 3
    wanted = batch(3) + batch(1, first=10)
    assert sorted(await held(server, "frozen.fifo")) == sorted(one.delivery_id for one in wanted)


@needs_moto
async def test_a_line_cut_anywhere_in_a_batch_loses_nothing_and_a_fifo_queue_holds_it_once(server: AwsServer) -> None:
    make_queue(server.port, "cut.fifo")
    messages = batch(30, bytes(20_000))
    faults = [
        Fault(kind, after, direction)  # type: ignore[arg-type]
        for kind in ("cut", "close")
        for direction, after in (("up", 50), ("up", 200_000), ("down", 20), ("down", 900))
    ]
    async with FaultProxy(server.port) as proxy:
        proxy.plan = faults
        async with queue(f"http://127.0.0.1:{proxy.port}/123456789012/cut.fifo") as sink:
            async with asyncio.timeout(60):
                while proxy.connections <= len(faults):
                    await receipts(sink, messages)
                    proxy.cut()
            assert await receipts(sink, messages) == 30
    assert sorted(await held(server, "cut.fifo")) == sorted(one.delivery_id for one in messages)


@needs_moto
async def test_a_fifo_queue_knows_a_repeat_of_another_process_and_each_message_is_its_own_group(
    server: AwsServer,
) -> None:
    make_queue(server.port, "once.fifo")
    for _ in range(2):
        async with queue(server.queue("once.fifo")) as sink:
            assert await receipts(sink, batch(12)) == 12
    found = await asyncio.to_thread(messages_of, server.port, "once.fifo")
    assert len(found) == 12
    assert len({one["Attributes"]["MessageGroupId"] for one in found}) == 12
    assert {one["Attributes"]["MessageDeduplicationId"] for one in found} == {one.delivery_id for one in batch(12)}


@needs_moto
async def test_a_group_may_be_the_topic_whatever_stands_in_it(server: AwsServer) -> None:
    make_queue(server.port, "topics.fifo")
    topics = ["billing", "Rechnung über 日本 \x00" + "x" * 300, ""]
    async with queue(server.queue("topics.fifo"), group="mail.{topic}") as sink:
        for uid, topic in enumerate(topics):
            assert await receipts(sink, [make_delivery(uid, place="inside", topic=topic)]) == 1
    found = await asyncio.to_thread(messages_of, server.port, "topics.fifo")
    groups = {one["Attributes"]["MessageGroupId"] for one in found}
    assert {"mail.billing", "mail._"} <= groups
    assert all(one.isascii() and len(one) <= 128 for one in groups)
    assert all("\x00" not in json.dumps(one["MessageAttributes"], ensure_ascii=False) for one in found)


@needs_moto
async def test_calls_stay_within_the_limit_as_it_is_rendered(server: AwsServer) -> None:
    """Of each message Base64 makes a third more, and ten of them together are bounded as well."""
    make_queue(server.port, "large")
    messages = batch(10, os.urandom(260_000))  # 350 KB each: three fit into a call, and none is refused
    async with queue(server.queue("large")) as sink:
        assert await receipts(sink, messages) == 10
        whole, larger = (
            make_delivery(20, bytes(780_000), place="inside"),
            make_delivery(21, bytes(790_000), place="inside"),
        )
        fits, refused = await sink.deliver([whole, larger])
    assert isinstance(fits, Receipt)
    assert isinstance(refused, Refusal)
    assert refused.permanent
    assert refused.unasked
    assert "1,048,576" in refused.reason
    assert len(await held(server, "large")) == 11


@needs_moto
async def test_the_queues_own_limit_is_read_and_holds(server: AwsServer) -> None:
    make_queue(server.port, "small", MaximumMessageSize="2048")
    async with queue(server.queue("small")) as sink:
        small, large = await sink.deliver(
            [make_delivery(1, place="inside"), make_delivery(2, bytes(2000), place="inside")]
        )
    assert isinstance(small, Receipt)
    assert isinstance(large, Refusal)
    assert "2,048" in large.reason


@needs_moto
async def test_what_sqs_does_not_take_is_written_otherwise_and_nothing_of_it_is_lost(server: AwsServer) -> None:
    make_queue(server.port, "hostile")
    text = "".join(map(chr, range(0x250))) + "\\\ufffe\uffff\ufdd0\U0001fffe\\\\\uffff🎈"
    message = make_delivery(1, HOSTILE, place="inside", text=text, topic="a\x01\ufffeb")
    async with queue(server.queue("hostile")) as sink:
        assert await receipts(sink, [message]) == 1
    (found,) = await asyncio.to_thread(messages_of, server.port, "hostile")
    assert json.loads(found["Body"])["data"]["text"] == text
    assert not any(one in found["Body"] for one in [*map(chr, range(0x20)), "\ufffe", "\uffff"])
    assert found["MessageAttributes"]["topic"]["StringValue"] == "a__b"


@needs_moto
async def test_a_queue_that_is_not_there_is_down_and_is_made_once(server: AwsServer) -> None:
    for name in ("made", "made.fifo"):
        async with queue(server.queue(name)) as sink:
            for call in (sink.deliver(batch(1)), sink.check()):
                with pytest.raises(TransientError, match=name + r".*NonExistentQueue"):
                    await call
        config = SqsQueueConfig(
            type="sqs", queue=server.queue(name), region="eu-central-1", access_key_id="a", secret_access_key="b"
        )
        wanted = config.preparation("support")
        for _ in range(2):
            await asyncio.to_thread(wanted.make)
        assert f"--queue-name {name}" in wanted.statements
        assert "MessageRetentionPeriod=1209600" in wanted.statements
        async with queue(server.queue(name)) as sink:
            await sink.check()
            assert "14 days" in str(sink.durability)
            assert await receipts(sink, batch(1)) == 1


@needs_moto
async def test_the_example_consumer_processes_each_message_once(server: AwsServer, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/consumers/sqs.py"
    url = make_queue(server.port, "consumed", VisibilityTimeout="30")
    messages = batch(12)
    for _ in range(2):  # of another process a repeat is sent again
        async with queue(url) as sink:
            assert await receipts(sink, messages) == 12
    login = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "eu-central-1"}
    environment = {**os.environ, **login, "AWS_ENDPOINT_URL": server.url}
    with subprocess.Popen([sys.executable, str(example), url], cwd=tmp_path, env=environment) as consumer:
        try:
            async with asyncio.timeout(30):
                while await asyncio.to_thread(_left, server, url):
                    assert consumer.poll() is None
                    await asyncio.sleep(0.1)
        finally:
            consumer.kill()
    with contextlib.closing(sqlite3.connect(tmp_path / "tickets.db")) as tickets:
        done = [row[0] for row in tickets.execute("SELECT delivery_id FROM ticket")]
    assert sorted(done) == sorted(one.delivery_id for one in messages)


def _left(server: AwsServer, url: str) -> bool:
    from servers.aws import sqs

    asked = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    told = sqs(server.port, "GetQueueAttributes", QueueUrl=url, AttributeNames=asked)["Attributes"]
    return any(int(told[name]) for name in asked)


# --- scripted ---------------------------------------------------------------------------------------------------


class Scripted(Web):
    """SQS as it answers, or as ``says`` makes of a call's entries."""

    def __init__(self, says: Any = None, status: int = 200) -> None:
        super().__init__(self._answer)
        self.says = says
        self.status = status
        self.calls: list[list[str]] = []

    @property
    def queue(self) -> str:
        return f"{self.url}/123456789012/mail"

    def _answer(self, asked: Asked) -> Reply:
        target, told = asked.headers["x-amz-target"], json.loads(asked.body)
        if target == "AmazonSQS.GetQueueAttributes":
            return Reply(body={"Attributes": {"MaximumMessageSize": "1048576", "MessageRetentionPeriod": "345600"}})
        entries = told["Entries"]
        self.calls.append([json.loads(one["MessageBody"])["deliveryid"] for one in entries])
        made = self.says(entries) if self.says is not None else taken(entries)
        return made if isinstance(made, Reply) else Reply(body=made)


def taken(entries: list[dict[str, Any]], digest: str = "") -> dict[str, Any]:
    return {
        "Successful": [
            {
                "Id": one["Id"],
                "MessageId": f"m-{one['Id']}",
                "MD5OfMessageBody": digest or md5(one["MessageBody"].encode()).hexdigest(),
            }
            for one in entries
        ],
        "Failed": [],
    }


def error(code: str, words: str = "so it is", status: int = 400) -> Reply:
    return Reply(status, {"__type": f"com.amazonaws.sqs#{code}", "message": words})


async def test_each_entry_of_a_call_has_its_own_answer() -> None:
    """AWS: some of a batch may fail in an answer whose status is 200."""

    def says(entries: list[dict[str, Any]]) -> dict[str, Any]:
        made = taken(entries)
        made["Successful"] = [one for one in made["Successful"] if one["Id"] not in ("1", "2", "3", "4")]
        made["Failed"] = [
            {"Id": "1", "SenderFault": True, "Code": "InvalidMessageContents", "Message": "#x1"},
            {"Id": "2", "SenderFault": False, "Code": "InternalError", "Message": "later"},
            {"Id": "3", "SenderFault": True, "Code": "InvalidParameterValue", "Message": "something"},
        ]
        return made  # and of 4 nothing is said

    messages = batch(6)
    async with Scripted(says) as web, queue(web.queue) as sink:
        answers = await sink.deliver(messages)
    assert [one.delivery_id for one in answers] == [one.delivery_id for one in messages]
    assert [isinstance(one, Receipt) for one in answers] == [True, False, False, False, False, True]
    told = [(one.permanent, one.blame) for one in answers if isinstance(one, Refusal)]
    assert told == [(True, "message"), (False, "queue"), (False, "message"), (False, "queue")]


async def test_a_call_that_is_refused_for_one_message_is_sent_message_by_message() -> None:
    messages = batch(4)

    def says(entries: list[dict[str, Any]]) -> Any:
        bad = any(messages[2].delivery_id in one["MessageBody"] for one in entries)
        return error("InvalidMessageContents", "#xFFFE") if bad else taken(entries)

    async with Scripted(says) as web, queue(web.queue) as sink:
        answers = await sink.deliver(messages)
        assert [len(one) for one in web.calls] == [4, 1, 1, 1, 1]
    assert [isinstance(one, Receipt) for one in answers] == [True, True, False, True]
    assert isinstance(answers[2], Refusal)
    assert answers[2].permanent


async def test_an_answer_about_other_octets_is_no_receipt() -> None:
    async with Scripted(lambda entries: taken(entries, "0" * 32)) as web, queue(web.queue) as sink:
        with pytest.raises(TransientError, match="not about what was sent"):
            await sink.deliver(batch(2))


@pytest.mark.parametrize(
    ("code", "status", "advice"),
    [
        ("InvalidClientTokenId", 403, "key"),
        ("AccessDeniedException", 400, "policy"),
        ("RequestTimeTooSkewed", 403, "clock"),
        ("ThrottlingException", 400, ""),
        ("OverLimit", 403, ""),
        ("InternalFailure", 500, ""),
    ],
)
async def test_what_is_no_messages_fault_is_the_queues_and_says_what_to_do(code: str, status: int, advice: str) -> None:
    async with Scripted(lambda _: error(code, "hunter2hunter2 is wrong", status)) as web, queue(web.queue) as sink:
        with pytest.raises(TransientError, match=code) as caught:
            await sink.deliver(batch(3))
        assert len(web.calls) == 1, "and nothing is tried again at once"
    assert advice in caught.value.advice
    assert "hunter2" not in str(caught.value)


async def test_a_key_that_was_changed_is_read_anew_after_a_refusal(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("former\n")
    key = tmp_path / "key"
    key.write_text("FORMERKEY\n")

    async with Scripted() as web:
        web.says = lambda entries: (
            taken(entries) if "NEWKEY" in web.asked[-1].headers["authorization"] else error("InvalidClientTokenId")
        )
        async with queue(web.queue, access_key_id=f"file:{key}", secret_access_key=f"file:{secret}") as sink:
            with pytest.raises(TransientError, match="InvalidClientTokenId"):
                await sink.deliver(batch(1))
            secret.unlink()
            key.write_text("NEWKEY\n")
            with pytest.raises(ConfigError, match="cannot read the secret"):
                await sink.deliver(batch(1))
            secret.write_text("new\n")
            assert await receipts(sink, batch(1)) == 1


async def test_nothing_of_the_environment_counts_that_nobody_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("[profile other]\nregion = us-west-1\n")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "OTHERKEY",
        "AWS_SECRET_ACCESS_KEY": "other",
        "AWS_PROFILE": "nobody",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_ENDPOINT_URL": "http://127.0.0.9:9",
        "AWS_ENDPOINT_URL_SQS": "http://127.0.0.9:9",
        "HTTP_PROXY": "http://127.0.0.9:9",
        "http_proxy": "http://127.0.0.9:9",
        "AWS_MAX_ATTEMPTS": "7",
    }.items():
        monkeypatch.setenv(name, value)
    async with Scripted() as web, queue(web.queue) as sink:
        assert await receipts(sink, batch(2)) == 2
        assert all("AKIDEXAMPLE/" in one.headers["authorization"] for one in web.asked)


async def test_a_profile_is_taken_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OTHERKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    nobody = {"access_key_id": None, "secret_access_key": None}
    async with Scripted() as web, queue(web.queue, profile="mail", **nobody) as sink:
        with pytest.raises(TransientError, match="mail"):
            await sink.check()
        (tmp_path / "credentials").write_text("[mail]\naws_access_key_id = MAILKEY\naws_secret_access_key = x\n")
        (tmp_path / "config").write_text("[profile mail]\nregion = us-west-1\n")
        assert await receipts(sink, batch(1)) == 1
        assert all("MAILKEY/" in one.headers["authorization"] for one in web.asked)
        assert all("/eu-central-1/sqs/" in one.headers["authorization"] for one in web.asked)


async def test_another_service_than_aws_is_refused_unless_it_is_declared() -> None:
    async with Scripted() as web:
        async with queue(web.queue, durability="strict") as sink:
            for call in (sink.deliver(batch(1)), sink.check()):
                with pytest.raises(TransientError, match=r"is not AWS.*durability: declared"):
                    await call
            assert not web.calls
        async with queue(web.queue) as sink:
            assert await receipts(sink, batch(1)) == 1
            assert sink.durability.finding == "unknown"


async def test_an_answer_without_end_is_not_held() -> None:
    async with Scripted(lambda _: Reply(body=b'{"Failed": "' + b"x" * 5_000_000)) as web, queue(web.queue) as sink:
        with pytest.raises(TransientError, match="more than 4,194,304 octets"):
            await sink.deliver(batch(1))


async def test_attributes_of_a_delivery_stand_beside_it() -> None:
    heard: list[dict[str, Any]] = []

    def says(entries: list[dict[str, Any]]) -> dict[str, Any]:
        heard.extend(entries)
        return taken(entries)

    message = replace(make_delivery(1, place="inside"), attributes=Attributes("billing", "high"))
    async with Scripted(says) as web, queue(web.queue) as sink:
        assert await receipts(sink, [message]) == 1
    told = {name: one["StringValue"] for name, one in heard[0]["MessageAttributes"].items()}
    assert told == {"deliveryid": message.delivery_id, "mailbox": "support", "topic": "billing", "priority": "high"}
    assert "MessageGroupId" not in heard[0], "a standard queue has none unless the block says so"
