"""A Redis server that is killed, frozen, full, cut off, or answers before it syncs: nothing is lost, nothing is there
twice, and an operator is told what to do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
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
from mailpoller.sinks.redis import RedisQueueConfig
from mailpoller.testing.deliveries import make_delivery
from servers import programs
from servers.certificates import make_certificate
from servers.children import die_with_parent
from servers.proxy import Fault, FaultProxy
from servers.redis import RedisServer, missing

redis = pytest.importorskip("redis", reason="the extra redis is not installed")
pytestmark = pytest.mark.skipif(bool(missing), reason=missing)


class PushedClock(SystemClock):
    """The system's, which a test pushes ahead."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


STREAM = "{mailpoller:support}"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One that this test may kill."""
    with RedisServer() as started:
        yield started


@contextlib.asynccontextmanager
async def queue(port: int, clock: PushedClock | None = None, **more: Any) -> AsyncIterator[Any]:
    where = {"host": "127.0.0.1", "port": port, "tls": "none", **more}
    config = RedisQueueConfig(type="redis", **where)
    sink = config.build("support", Runtime(clock or PushedClock(), Spool(Path("/nonexistent")), Path("/nonexistent")))
    try:
        yield sink
    finally:
        await sink.close()


def batch(count: int, octets: bytes = b"x") -> list[Delivery]:
    return [make_delivery(uid, octets) for uid in range(count)]


def held(server: RedisServer) -> list[str]:
    with redis.Redis(port=server.port) as client:
        return [fields[b"deliveryid"].decode() for _, fields in client.xrange(STREAM)]


async def held_in_the_end(sink: Any, messages: Sequence[Delivery], server: RedisServer) -> None:
    """All are receipted now, and each is there once, in any order."""
    answers = await sink.deliver(messages)
    assert all(isinstance(answer, Receipt) for answer in answers)
    assert sorted(held(server)) == sorted(one.delivery_id for one in messages)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


async def test_a_server_killed_in_the_middle_of_a_batch_costs_time_and_no_mail(server: RedisServer) -> None:
    messages = batch(24, bytes(1_000_000))  # several calls of the script
    async with queue(server.port) as sink:
        under_way = asyncio.ensure_future(sink.deliver(messages))
        await until(lambda: len(held(server)) > 2)
        server.kill()
        with pytest.raises(TransientError, match=f"127.0.0.1:{server.port}"):
            await under_way
        with pytest.raises(TransientError):
            await sink.check()
        server.start()
        assert 0 < len(held(server)) < 24
        await sink.check()
        await held_in_the_end(sink, messages, server)


async def test_a_frozen_server_is_given_up_in_time_and_what_it_did_later_is_there_once(server: RedisServer) -> None:
    async with queue(server.port, timeout=timedelta(seconds=1)) as sink:
        await sink.deliver(batch(1))
        server.freeze()
        began = time.monotonic()
        for call in (sink.deliver(batch(3)), sink.check()):
            with pytest.raises(TransientError, match="no answer within"):
                await call
        assert time.monotonic() - began < 6
        server.thaw()
        await held_in_the_end(sink, batch(3), server)


async def test_a_full_server_is_the_queues_trouble_and_loses_nothing(server: RedisServer) -> None:
    server.ask("CONFIG", "SET", "maxmemory", "6mb")
    messages = batch(80, os.urandom(100_000))
    async with queue(server.port) as sink:
        with pytest.raises(TransientError, match="full") as caught:
            for one in messages:
                await sink.deliver([one])
        assert "XDEL" in caught.value.advice
        server.ask("CONFIG", "SET", "maxmemory", "2mb")
        with pytest.raises(TransientError, match="full: maxmemory is 2,097,152"):
            await sink.check()
        server.ask("CONFIG", "SET", "maxmemory", "0")
        await held_in_the_end(sink, messages, server)


async def test_a_line_cut_anywhere_in_a_batch_loses_nothing(server: RedisServer) -> None:
    messages = batch(40, bytes(20_000))
    async with FaultProxy(server.port) as proxy:
        proxy.plan = [
            Fault(kind, after, direction)  # type: ignore[arg-type]
            for kind in ("cut", "close")
            for direction, after in (("up", 50), ("up", 300_000), ("up", 860_000), ("down", 20), ("down", 4_700))
        ]
        async with queue(proxy.port) as sink:
            async with asyncio.timeout(20):
                while proxy.connections < 11:
                    with contextlib.suppress(TransientError):
                        await sink.deliver(messages)
                    proxy.cut()
            await held_in_the_end(sink, messages, server)


async def test_revoked_credentials_are_told_and_the_password_is_not(server: RedisServer) -> None:
    inside = ("get", "set", "expire", "xadd", "hget", "hset", "hincrby")
    grant = ("~{mailpoller:*", *(f"+{one}" for one in ("evalsha", "script|load", "type", "mget", "hmget", *inside)))
    server.ask("ACL", "SETUSER", "mailpoller", "on", ">hunter2hunter2", *grant, "+config|get", "+info")
    async with queue(server.port, username="mailpoller", password="hunter2hunter2") as sink:
        await sink.check()
        await sink.deliver(batch(1))
        server.ask("ACL", "SETUSER", "mailpoller", "resetpass", ">another")
        server.ask("CLIENT", "KILL", "USER", "mailpoller")
        with pytest.raises(TransientError, match="refuses us") as caught:
            await sink.deliver(batch(2))
        assert "hunter2" not in f"{caught.value!r}"
        server.ask("ACL", "SETUSER", "mailpoller", "resetpass", ">hunter2hunter2", "-xadd")
        with pytest.raises(TransientError, match="refuses us"):
            await sink.deliver(batch(2))
        server.ask("ACL", "SETUSER", "mailpoller", "+xadd")
        await held_in_the_end(sink, batch(2), server)


async def test_it_is_told_which_entries_are_in_the_stream_now(server: RedisServer) -> None:
    messages = batch(3)
    ids = [one.delivery_id for one in messages]
    async with queue(server.port) as sink:
        answers = await sink.deliver(messages)
        server.ask("XDEL", STREAM, answers[1].reference)
        assert await sink.still_holds([*ids, "unknown"]) == [ids[0], ids[2]]
        assert set(await sink.holds(ids)) == set(ids)


async def test_a_message_that_is_too_large_is_refused_alone_with_its_size(server: RedisServer) -> None:
    async with queue(server.port, max_size=10_000) as sink:
        small, large, other = batch(1)[0], make_delivery(7, bytes(20_000)), make_delivery(8)
        answers = await sink.deliver([small, large, other])
        assert isinstance(answers[1], Refusal) and answers[1].permanent and answers[1].blame == "message"
        assert "20," in answers[1].reason and "10,000" in answers[1].reason
        assert held(server) == [small.delivery_id, other.delivery_id]


async def test_a_repeat_is_known_after_a_consumer_removed_the_entry_and_nothing_else_is_trimmed(
    server: RedisServer,
) -> None:
    async with queue(server.port) as sink:
        await sink.deliver(batch(500))
        assert len(held(server)) == 500
        with redis.Redis(port=server.port) as client:
            client.delete(STREAM)
            again = await sink.deliver(batch(3))
            assert all(answer.repeated for answer in again)
            assert held(server) == []
            assert list(await sink.holds([batch(1)[0].delivery_id, "unknown"])) == [batch(1)[0].delivery_id]
            keys = client.keys()
            assert len(keys) == 501, "and the mark"
            assert 179 * 86400 < client.ttl(f"{STREAM}:id:{batch(1)[0].delivery_id}") <= 180 * 86400
            assert all(key.startswith(STREAM.encode()) for key in keys), "one hash slot"
    async with queue(server.port, maxlen=1, stream="short") as sink:
        await sink.deliver(batch(500))
        with redis.Redis(port=server.port) as client:
            assert client.xlen("short") < 500


async def test_a_key_that_is_no_stream_is_left_alone(server: RedisServer) -> None:
    server.ask("SET", STREAM, "somebody's")
    async with queue(server.port) as sink:
        with pytest.raises(TransientError, match="no stream"):
            await sink.check()
        with pytest.raises(TransientError, match="WRONGTYPE"):
            await sink.deliver(batch(1))
    assert b"somebody's" in server.ask("GET", STREAM)


# --- durability -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "command"),
    [
        ("appendfsync", "everysec", "CONFIG SET appendfsync always"),
        ("appendonly", "no", "CONFIG SET appendonly yes"),
        ("no-appendfsync-on-rewrite", "yes", "CONFIG SET no-appendfsync-on-rewrite no"),
        ("maxmemory-policy", "allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
    ],
)
async def test_a_server_that_may_forget_is_refused_with_what_mends_it(
    server: RedisServer, name: str, value: str, command: str
) -> None:
    server.ask("CONFIG", "SET", name, value)
    for word in ("strict", "declared"):
        async with queue(server.port, durability=word) as sink:
            for call in (sink.deliver(batch(1)), sink.check()):
                with pytest.raises(TransientError) as caught:
                    await call
                assert f"{name} {value}" in str(caught.value)
                assert command in str(caught.value)
                assert "durability: warn" in str(caught.value)
    assert held(server) == []
    async with queue(server.port, durability="warn") as sink:
        await held_in_the_end(sink, batch(1), server)
        (doubt,) = await sink.upkeep()
        assert doubt.kind is NOT_DURABLE
        assert f"{name} {value}" in doubt.detail
        for word in command.split("; "):
            server.ask(*word.split())


async def test_a_server_that_hides_its_settings_is_unknown(server: RedisServer) -> None:
    server.ask("ACL", "SETUSER", "default", "-config", "-info")
    async with queue(server.port) as sink:
        with pytest.raises(TransientError, match=r"CONFIG GET.*ACL SETUSER.*durability: declared"):
            await sink.deliver(batch(1))
    async with queue(server.port, durability="declared") as sink:
        await sink.check()
        await held_in_the_end(sink, batch(1), server)
        assert [doubt.kind for doubt in await sink.upkeep()] == [NOT_DURABLE]


async def test_the_setting_is_read_again_at_each_connection_and_every_hour(server: RedisServer) -> None:
    clock = PushedClock()
    async with queue(server.port, clock) as sink:
        await sink.deliver(batch(1))
        server.ask("CONFIG", "SET", "appendfsync", "everysec")
        assert await sink.deliver(batch(2)), "within the hour, over the same connection"
        clock.ahead = 3700
        with pytest.raises(TransientError, match="appendfsync everysec"):
            await sink.upkeep()
        with pytest.raises(TransientError, match="appendfsync everysec"):
            await sink.deliver(batch(3))
        server.ask("CONFIG", "SET", "appendfsync", "always")
        await sink.deliver(batch(3))
        server.ask("CONFIG", "SET", "appendfsync", "everysec")
        server.ask("CLIENT", "KILL", "TYPE", "normal")
        with pytest.raises(TransientError, match="appendfsync everysec"):
            await sink.deliver(batch(4))
        assert len(held(server)) == 3


async def test_a_replica_and_a_lack_of_replicas_are_no_receipt(server: RedisServer) -> None:
    async with queue(server.port, replicas=1, timeout=timedelta(milliseconds=300)) as alone:
        with pytest.raises(TransientError, match="0 of 1 replicas"):
            await alone.deliver(batch(2))
    server.ask("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    with RedisServer(f"replicaof 127.0.0.1 {server.port}") as replica:
        await until(lambda: b"link_status:up" in replica.ask("INFO", "replication"))
        async with queue(server.port, replicas=1) as sink:
            await held_in_the_end(sink, batch(2), server)
        assert held(replica) == held(server)
        async with queue(replica.port) as wrong:
            with pytest.raises(TransientError, match="it is a replica"):
                await wrong.deliver(batch(1))


@pytest.mark.skipif(programs.found("strace") is None, reason="there is no strace")
async def test_twenty_messages_are_twenty_syncs_before_their_answers(server: RedisServer, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-p", str(server.pid), "-o", str(trace), "-e", "trace=fdatasync,fsync"]
    with subprocess.Popen(command, preexec_fn=die_with_parent) as tracer:
        await until(lambda: "TracerPid:\t0" not in Path(f"/proc/{server.pid}/status").read_text())
        async with queue(server.port) as sink:
            for one in batch(20):
                await sink.deliver([one])
            (repeat,) = await sink.deliver(batch(1))
        tracer.terminate()
    assert repeat.repeated
    assert trace.read_text().count("sync(") >= 21, "a repeat is synced too: a killed server may have left it unsynced"


# --- ways to the server -----------------------------------------------------------------------------------------


async def test_tls_trusts_the_named_authority_alone(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    tls = [f"tls-cert-file {certificate.path}", f"tls-key-file {certificate.path}", "tls-auth-clients no"]
    with RedisServer() as probe:
        spare = probe.port
    with RedisServer(*tls, f"tls-port {spare}", "bind 127.0.0.1 127.0.0.2") as server:
        async with queue(spare, tls="tls", host="localhost", ca_file=certificate.path) as sink:
            await held_in_the_end(sink, batch(2), server)
        for wrong in ({"host": "localhost"}, {"host": "127.0.0.2", "ca_file": certificate.path}):
            async with queue(spare, tls="tls", **wrong) as sink:
                with pytest.raises(TransientError, match=r"(?i)certificate"):
                    await sink.deliver(batch(3))
        assert len(held(server)) == 2


async def test_a_socket_serves_as_well(tmp_path: Path) -> None:
    with RedisServer(f"unixsocket {tmp_path}/redis.sock") as server:
        async with queue(server.port, host=None, socket=tmp_path / "redis.sock") as sink:
            await sink.check()
            await held_in_the_end(sink, batch(2), server)


async def test_a_cluster_takes_a_whole_batch() -> None:
    with RedisServer("cluster-enabled yes") as server:
        server.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        await until(lambda: b"cluster_state:ok" in server.ask("CLUSTER", "INFO"))
        for stream in (None, "support", "{mail}:support"):
            async with queue(server.port, stream=stream) as sink:
                assert all(isinstance(answer, Receipt) for answer in await sink.deliver(batch(20)))


async def test_sentinels_name_the_server(server: RedisServer) -> None:
    watch = f"sentinel monitor mails 127.0.0.1 {server.port} 1"
    with RedisServer(watch, sentinel=True) as sentinel:
        async with queue(server.port, host=None, sentinels=[f"127.0.0.1:{sentinel.port}"], master="mails") as sink:
            await sink.check()
            await held_in_the_end(sink, batch(2), server)
        async with queue(server.port, host=None, sentinels=[f"127.0.0.1:{sentinel.port}"], master="other") as sink:
            with pytest.raises(TransientError, match="other"):
                await sink.deliver(batch(1))


# --- the other end ----------------------------------------------------------------------------------------------


async def test_the_example_consumer_processes_each_message_once(server: RedisServer, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/consumers/redis_stream.py"
    messages = batch(20)
    async with queue(server.port) as sink:
        await sink.deliver(messages)
        command = [sys.executable, str(example), f"redis://127.0.0.1:{server.port}", STREAM]
        with subprocess.Popen(command, cwd=tmp_path) as consumer:
            try:
                await until(lambda: server.ask("XLEN", STREAM) == b":0\r\n")
                await sink.deliver(messages[:5])  # repeats
                more = [make_delivery(uid) for uid in range(20, 25)]
                await sink.deliver(more)
                await until(lambda: server.ask("XLEN", STREAM) == b":0\r\n")
            finally:
                consumer.kill()
    with contextlib.closing(sqlite3.connect(tmp_path / "tickets.db")) as tickets:
        done = [row[0] for row in tickets.execute("SELECT delivery_id FROM ticket")]
    assert sorted(done) == sorted(one.delivery_id for one in (*messages, *more))
