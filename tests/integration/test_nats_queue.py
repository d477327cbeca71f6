"""A NATS server that is killed, frozen, full, cut off, or answers before it syncs: nothing is lost, what is there
twice can be recognised, and an operator is told what to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
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
from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.nats import NatsQueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery
from servers import nats_keys, programs
from servers.certificates import make_certificate
from servers.children import die_with_parent
from servers.nats import NatsServer, missing
from servers.proxy import Fault, FaultProxy

nats = pytest.importorskip("nats", reason="the extra nats is not installed")
pytestmark = pytest.mark.skipif(bool(missing), reason=missing)


class PushedClock(SystemClock):
    """The system's, which a test pushes ahead."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@pytest.fixture
def server() -> Iterator[NatsServer]:
    """One that this test may kill."""
    with NatsServer() as started:
        yield started


@contextlib.asynccontextmanager
async def jetstream(server: NatsServer, **login: Any) -> AsyncIterator[Any]:
    """The server, for the test itself."""
    client = await nats.connect(f"nats://127.0.0.1:{server.port}", **login)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def make_stream(server: NatsServer, **settings: Any) -> None:
    async with jetstream(server) as stream:
        await stream.add_stream(**{"name": "MAIL", "subjects": ["mail.>"], "discard": "new", **settings})


@contextlib.asynccontextmanager
async def queue(server: NatsServer, clock: PushedClock | None = None, **more: Any) -> AsyncIterator[Any]:
    usual = {"host": "127.0.0.1", "port": server.port, "tls": "none", "stream": "MAIL", "subject": "mail.support"}
    config = NatsQueueConfig(type="nats", **{**usual, "monitoring": [server.page], **more})
    sink = config.build("support", Runtime(clock or PushedClock(), Spool(Path("/nonexistent")), Path("/nonexistent")))
    try:
        yield sink
    finally:
        await sink.close()


def batch(count: int, octets: bytes = b"x", **more: Any) -> list[Delivery]:
    return [make_delivery(uid, octets, place="inside", **more) for uid in range(count)]


async def entries(server: NatsServer) -> list[Any]:
    async with jetstream(server) as stream:
        state = (await stream.stream_info("MAIL")).state
        return [await stream.get_msg("MAIL", seq=number) for number in range(state.first_seq or 1, state.last_seq + 1)]


async def held(server: NatsServer) -> list[str]:
    return [one.headers["Nats-Msg-Id"] for one in await entries(server)]


async def held_in_the_end(sink: Any, messages: Sequence[Delivery], server: NatsServer) -> None:
    """All are receipted now, and each is there once, in any order."""
    answers = await sink.deliver(messages)
    assert all(isinstance(answer, Receipt) for answer in answers)
    assert sorted(await held(server)) == sorted(one.delivery_id for one in messages)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


async def receipts(sink: Any, messages: Sequence[Delivery]) -> int:
    """How many of them are receipted; the others are the queue's trouble and no message's."""
    try:
        answers = await sink.deliver(messages)
    except TransientError:
        return 0
    assert all(isinstance(one, Receipt) or (one.blame == "queue" and not one.permanent) for one in answers)
    return sum(isinstance(one, Receipt) for one in answers)


async def test_a_server_killed_in_the_middle_of_a_batch_costs_time_and_no_mail(server: NatsServer) -> None:
    await make_stream(server)
    messages = batch(60, bytes(400_000))  # several parts
    async with queue(server) as sink:
        under_way = asyncio.ensure_future(receipts(sink, messages))
        await until(lambda: any(path.stat().st_size > 4_000_000 for path in server.streams.rglob("*.blk")))
        server.kill()
        began = time.monotonic()
        assert await under_way < 60
        with pytest.raises(TransientError, match=f"127.0.0.1:{server.port}"):
            await sink.check()
        assert time.monotonic() - began < 5, "nobody waits for an answer that will not come"
        server.start()
        assert len(await held(server)) < 60
        await sink.check()
        await held_in_the_end(sink, messages, server)


async def test_a_frozen_server_is_given_up_in_time_and_what_it_did_later_is_there_once(server: NatsServer) -> None:
    await make_stream(server)
    async with queue(server, timeout=timedelta(seconds=1)) as sink:
        await sink.deliver(batch(1))
        server.freeze()
        began = time.monotonic()
        for call in (sink.deliver(batch(3)), sink.check()):
            with pytest.raises(TransientError, match="no answer within"):
                await call
        assert time.monotonic() - began < 14
        server.thaw()
        await held_in_the_end(sink, batch(3), server)


async def test_a_full_stream_is_the_queues_trouble_and_loses_nothing(server: NatsServer) -> None:
    await make_stream(server, max_msgs=5)
    async with queue(server) as sink:
        assert await receipts(sink, batch(8)) == 5
        with pytest.raises(TransientError, match="maximum messages") as caught:
            await sink.deliver([make_delivery(77, place="inside")])
        assert "limits" in caught.value.advice
        with pytest.raises(TransientError, match="it is full"):
            await sink.check()
        async with jetstream(server) as stream:
            await stream.update_stream(name="MAIL", subjects=["mail.>"], discard="new", max_msgs=-1)
        await held_in_the_end(sink, batch(8), server)


async def test_a_line_cut_anywhere_in_a_batch_loses_nothing(server: NatsServer) -> None:
    await make_stream(server)
    messages = batch(40, bytes(20_000))
    async with FaultProxy(server.port) as proxy:
        proxy.plan = [
            Fault(kind, after, direction)  # type: ignore[arg-type]
            for kind in ("cut", "close")
            for direction, after in (("up", 50), ("up", 30_000), ("up", 860_000), ("down", 20), ("down", 3_700))
        ]
        async with queue(server, port=proxy.port, timeout=timedelta(seconds=5)) as sink:
            async with asyncio.timeout(40):
                while proxy.connections < 11:
                    await receipts(sink, messages)
                    proxy.cut()
            await held_in_the_end(sink, messages, server)


async def test_revoked_credentials_are_told_and_the_password_is_not() -> None:
    def users(rights: str, password: str) -> str:
        own = f"{{ user: mailpoller, password: {password}, permissions: {{ publish: [{rights}] }} }}"
        return f"authorization {{ users: [ {own}, {{ user: root, password: root }} ] }}"

    rights = '"mail.>", "$JS.API.STREAM.INFO.MAIL"'
    with NatsServer(users(rights, "hunter2hunter2")) as server:
        async with jetstream(server, user="root", password="root") as stream:
            await stream.add_stream(name="MAIL", subjects=["mail.>"], discard="new")
        login = {"username": "mailpoller", "password": "hunter2hunter2", "timeout": timedelta(seconds=1)}
        async with queue(server, **login) as sink:
            await sink.check()
            assert await receipts(sink, batch(2)) == 2
            server.kill()
            server.settings = (users(rights, "another"),)
            server.start()
            with pytest.raises(TransientError, match="it refuses us") as caught:
                await sink.deliver(batch(3))
            assert "hunter2" not in f"{caught.value!r}"
            server.kill()
            server.settings = (users('"$JS.API.STREAM.INFO.MAIL"', "hunter2hunter2"),)
            server.start()
            assert await receipts(sink, batch(3)) == 0, "it may not publish"
            server.kill()
            server.settings = (users(rights, "hunter2hunter2"),)
            server.start()
            assert await receipts(sink, batch(3)) == 3


async def test_a_message_that_is_too_large_is_refused_alone_with_its_size(server: NatsServer) -> None:
    await make_stream(server)
    small, large, other = (
        make_delivery(uid, bytes(size), place="inside") for uid, size in ((1, 1), (7, 790_000), (8, 1))
    )
    async with queue(server) as sink:
        answers = await sink.deliver([small, large, other])
        assert isinstance(answers[1], Refusal) and answers[1].permanent and answers[1].unasked
        assert "1,05" in answers[1].reason and "max_payload is 1,048,576" in answers[1].reason
        assert await held(server) == [small.delivery_id, other.delivery_id]
    async with queue(server, max_size=10_000) as sink:
        (answer,) = await sink.deliver([large])
        assert "max_size is 10,000" in answer.reason


@pytest.mark.parametrize("mode", ["structured", "binary", "raw"])
@pytest.mark.parametrize("spare", [-1, 0, 1])
async def test_the_largest_message_that_is_sent_is_one_that_the_server_takes(
    server: NatsServer, mode: str, spare: int
) -> None:
    """It ends the connection of whoever sends an octet more, and counts headers too."""
    await make_stream(server)
    async with queue(server, mode=mode) as sink:
        low, high = 500_000, 1_100_000
        while high - low > 1:
            size = (low + high) // 2
            low, high = (size, high) if not sink._too_large(_sized(size, mode), await _info(sink)) else (low, size)
        answers = await sink.deliver([_sized(low + spare, mode)])
        assert isinstance(answers[0], Receipt if spare < 1 else Refusal)


def _sized(octets: int, mode: str) -> Delivery:
    return make_delivery(octets, bytes(octets), place="beside" if mode == "raw" else "inside")


async def _info(sink: Any) -> Any:
    return (await sink._look())[1]


async def test_what_another_stream_takes_is_no_receipt(server: NatsServer) -> None:
    await make_stream(server)
    async with jetstream(server) as stream:
        await stream.add_stream(name="OTHER", subjects=["other.>"])
    for subject, reason in (("other.mail", "not other.mail"), ("nowhere.mail", "not nowhere.mail")):
        async with queue(server, subject=subject) as sink:
            with pytest.raises(TransientError, match=reason):
                await sink.check()
            with pytest.raises(TransientError, match=r"expected stream|no stream takes"):
                await sink.deliver(batch(1))
    async with queue(server, stream="NONE") as sink:
        with pytest.raises(TransientError, match="there is no stream NONE"):
            await sink.check()
    async with jetstream(server) as stream:
        assert (await stream.stream_info("OTHER")).state.messages == 0


async def test_topics_are_words_of_the_subject(server: NatsServer) -> None:
    await make_stream(server)
    topics = ["bills", "", "a.b c*>", "Müll"]
    async with queue(server, subject="mail.{topic}") as sink:
        orders = [replace(one, attributes=Attributes(topic=topic)) for one, topic in zip(batch(4), topics, strict=True)]
        await sink.deliver(orders)
    assert [one.subject for one in await entries(server)] == ["mail.bills", "mail._", "mail.a_b_c__", "mail.Müll"]


async def test_binary_and_raw_mode_have_the_attributes_as_headers(server: NatsServer) -> None:
    await make_stream(server)
    async with queue(server, mode="binary") as sink:
        (binary,) = batch(1)
        await sink.deliver([binary])
    async with queue(server, mode="raw") as sink:
        assert sink.octets_place == "beside"
        raw = make_delivery(5, HOSTILE * 50)
        await sink.deliver([raw])
    first, second = await entries(server)
    assert first.data == binary.event.data()
    assert second.data == HOSTILE * 50
    assert second.headers["content-type"] == "message/rfc822"
    for found, order in ((first, binary), (second, raw)):
        assert found.headers["ce-specversion"] == "1.0"
        assert found.headers["ce-deliveryid"] == order.delivery_id


async def test_the_stream_is_made_once_and_then_left_as_it_is(server: NatsServer) -> None:
    usual = {"host": "127.0.0.1", "port": server.port, "tls": "none", "stream": "MAIL", "subject": "mail.{topic}"}
    config = NatsQueueConfig(type="nats", **usual)
    wanted = config.preparation("support")
    await asyncio.to_thread(wanted.make)
    async with queue(server, subject="mail.{topic}") as sink:
        await sink.check()
        await sink.deliver(batch(2))
    await asyncio.to_thread(wanted.make)
    assert len(await held(server)) == 2
    assert wanted.statements.startswith("nats stream add MAIL --subjects 'mail.*' ")


# --- durability -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said", "mends"),
    [
        ({"storage": "memory"}, "in memory", "--storage=file"),
        ({"max_age": 3600}, "older than 3,600 s", "--max-age=0"),
        ({"discard": "old", "max_msgs": 100}, "removes the oldest", "--discard=new"),
        ({"max_msgs_per_subject": 1}, "oldest of a subject", "--max-msgs-per-subject=-1"),
        ({"retention": "interest"}, "no consumer waits for", "--retention=work"),
    ],
)
async def test_a_stream_that_may_forget_is_refused_with_what_mends_it(
    server: NatsServer, settings: dict[str, Any], said: str, mends: str
) -> None:
    await make_stream(server, **settings)
    for word in ("strict", "declared"):
        async with queue(server, durability=word) as sink:
            for call in (sink.deliver(batch(1)), sink.check()):
                with pytest.raises(TransientError) as caught:
                    await call
                assert said in str(caught.value)
                assert mends in str(caught.value)
                assert "durability: warn" in str(caught.value)
    assert await held(server) == []
    async with queue(server, durability="warn") as sink:
        assert await receipts(sink, batch(1)) == 1
        (doubt,) = await sink.upkeep()
        assert doubt.kind is NOT_DURABLE
        assert said in doubt.detail


async def test_a_server_that_answers_before_it_syncs_is_refused_and_one_that_hides_it_is_unknown() -> None:
    with NatsServer(sync="2m") as server:
        await make_stream(server)
        for word, finding, monitoring in (
            ("declared", "volatile", [server.page]),
            ("strict", "unknown", []),
            ("strict", "unknown", [f"http://127.0.0.1:{server.port}"]),
        ):
            async with queue(server, durability=word, monitoring=monitoring, timeout=timedelta(seconds=2)) as sink:
                with pytest.raises(TransientError, match="sync_interval: always"):
                    await sink.check()
                assert sink.durability.finding == finding
                assert finding != "volatile" or "post answers before it syncs" in sink.durability.setting
        async with queue(server, durability="declared", monitoring=[]) as sink:
            await held_in_the_end(sink, batch(1), server)
            assert [doubt.kind for doubt in await sink.upkeep()] == [NOT_DURABLE]


async def test_the_setting_is_read_again_at_each_connection_and_every_hour(server: NatsServer) -> None:
    await make_stream(server)
    clock = PushedClock()
    async with queue(server, clock) as sink:
        await sink.deliver(batch(1))
        async with jetstream(server) as stream:
            await stream.update_stream(name="MAIL", subjects=["mail.>"], discard="new", max_age=3600)
        assert await receipts(sink, batch(2)) == 2, "within the hour, over the same connection"
        clock.ahead = 3700
        with pytest.raises(TransientError, match="older than"):
            await sink.upkeep()
        with pytest.raises(TransientError, match="older than"):
            await sink.deliver(batch(3))
        async with jetstream(server) as stream:
            await stream.update_stream(name="MAIL", subjects=["mail.>"], discard="new", max_age=0)
        assert await receipts(sink, batch(3)) == 3
        server.kill()
        server.sync = "2m"
        server.start()
        with pytest.raises(TransientError, match="answers before it syncs"):
            await sink.deliver(batch(4))


@pytest.mark.skipif(programs.found("strace") is None, reason="there is no strace")
async def test_twenty_messages_are_twenty_syncs_before_their_answers(server: NatsServer, tmp_path: Path) -> None:
    await make_stream(server)
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-p", str(server.pid), "-o", str(trace), "-e", "trace=fdatasync,fsync"]
    with subprocess.Popen(command, preexec_fn=die_with_parent) as tracer:
        await until(lambda: "TracerPid:\t0" not in Path(f"/proc/{server.pid}/status").read_text())
        async with queue(server) as sink:
            for one in batch(20):
                await sink.deliver([one])
        tracer.terminate()
    assert trace.read_text().count("sync(") >= 20


# --- ways to the server -----------------------------------------------------------------------------------------


async def test_tls_trusts_the_named_authority_alone(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    tls = f"tls {{ cert_file: {certificate.path}, key_file: {certificate.path} }}"
    for more, first in ((), False), (("",), True):
        setting = tls if not more else tls.replace("tls {", "tls { handshake_first: true, ")
        with NatsServer(setting) as server:
            ours = {"tls": "tls", "host": "localhost", "handshake_first": first, "timeout": timedelta(seconds=3)}
            async with queue(server, **ours, ca_file=certificate.path, durability="declared") as sink:
                with pytest.raises(TransientError, match="there is no stream"):
                    await sink.check()
            async with queue(server, **ours) as sink:
                with pytest.raises(TransientError, match=r"(?i)certificate"):
                    await sink.deliver(batch(3))


async def test_a_user_of_an_operator_logs_in_with_a_file_of_credentials(tmp_path: Path) -> None:
    lines, credentials = nats_keys.operated()
    (kept := tmp_path / "nats.creds").write_text(credentials, "utf-8")
    _, another = nats_keys.operated()
    with NatsServer(lines) as server:
        async with jetstream(server, user_credentials=str(kept)) as stream:
            await stream.add_stream(name="MAIL", subjects=["mail.>"], discard="new")
        async with queue(server, credentials=f"file:{kept}", durability="declared") as sink:
            assert await receipts(sink, batch(2)) == 2
        async with queue(server, credentials=another, timeout=timedelta(seconds=2)) as sink:
            with pytest.raises(TransientError, match="it refuses us") as caught:
                await sink.check()
            assert nats_keys.SEED.search(f"{caught.value!r} {caught.value}") is None


async def test_a_user_logs_in_with_an_nkey() -> None:
    ours, theirs = nats_keys.key_pair(), nats_keys.key_pair()
    users = f"{{ nkey: {nats_keys.public(ours)} }}, {{ user: root, password: root }}"
    with NatsServer(f"authorization {{ users: [ {users} ] }}") as server:
        async with jetstream(server, user="root", password="root") as stream:
            await stream.add_stream(name="MAIL", subjects=["mail.>"], discard="new")
        async with queue(server, nkey=nats_keys.seed(ours)) as sink:
            assert await receipts(sink, batch(2)) == 2
        async with queue(server, nkey=nats_keys.seed(theirs), timeout=timedelta(seconds=2)) as sink:
            with pytest.raises(TransientError, match="it refuses us"):
                await sink.check()


@pytest.mark.parametrize("kept", ["", "hunter2", "-----BEGIN NATS USER JWT-----", "SU" + "A" * 55])
@pytest.mark.parametrize("key", ["credentials", "nkey"])
async def test_what_is_no_key_is_said_and_not_shown(server: NatsServer, key: str, kept: str) -> None:
    async with queue(server, **{key: kept}) as sink:
        with pytest.raises(ConfigError, match="holds no") as caught:
            await sink.check()
    assert not kept or kept not in str(caught.value)


async def test_a_server_without_tls_never_hears_the_password(server: NatsServer) -> None:
    """Anybody in between can take the server's wish for TLS out of its greeting."""
    heard: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": "2.10.0", "max_payload": 1 << 20, "auth_required": True, "headers": True}
        info["nonce"] = "n" * 16
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                heard.append(await reader.read(65536))
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as between:
        port = between.sockets[0].getsockname()[1]
        logins: list[dict[str, str]] = [{"username": "mailpoller", "password": "hunter2"}, {"token": "hunter2"}]
        pair = nats_keys.key_pair()
        logins += [{"credentials": nats_keys.credentials("hunter2", pair)}, {"nkey": nats_keys.seed(pair)}, {}]
        for login in logins:
            async with queue(server, port=port, tls="tls", timeout=timedelta(seconds=2), **login) as sink:
                with pytest.raises(
                    TransientError, match="offers no TLS" if login else "offers no TLS|lost|EOF|response"
                ):
                    await sink.deliver(batch(1))
    assert b"hunter2" not in b"".join(heard)
    assert b'"sig"' not in b"".join(heard)


async def test_another_server_of_the_cluster_is_asked_where_one_is_away(server: NatsServer) -> None:
    await make_stream(server)
    async with queue(server, host="127.0.0.9", others=["127.0.0.1"]) as sink:
        await sink.check()
        await held_in_the_end(sink, batch(2), server)


# --- the other end ----------------------------------------------------------------------------------------------


async def test_the_example_consumer_processes_each_message_once(server: NatsServer, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/consumers/nats_stream.py"
    await make_stream(server, retention="workqueue")
    messages = batch(20)
    async with queue(server) as sink:
        await sink.deliver(messages)
        command = [sys.executable, str(example), f"nats://127.0.0.1:{server.port}", "MAIL"]
        with subprocess.Popen(command, cwd=tmp_path) as consumer:
            try:
                await _emptied(server)
                await sink.deliver(messages[:5])  # repeats
                more = [make_delivery(uid, place="inside") for uid in range(20, 25)]
                await sink.deliver(more)
                await _emptied(server)
            finally:
                consumer.kill()
    with contextlib.closing(sqlite3.connect(tmp_path / "tickets.db")) as tickets:
        done = [row[0] for row in tickets.execute("SELECT delivery_id FROM ticket")]
    assert sorted(done) == sorted(one.delivery_id for one in (*messages, *more))


async def _emptied(server: NatsServer) -> None:
    async with asyncio.timeout(30), jetstream(server) as stream:
        while (await stream.stream_info("MAIL")).state.messages:
            await asyncio.sleep(0.02)
