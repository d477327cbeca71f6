"""A PostgreSQL server that is killed, frozen, full, cut off, or answers before it syncs: nothing is lost, nothing is
there twice, and an operator is told what to do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
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
from mailpoller.sinks.postgres import PostgresQueueConfig
from mailpoller.sinks.postgres.schema import rights, schema
from mailpoller.testing.deliveries import make_delivery
from servers import command, programs
from servers.certificates import make_certificate
from servers.children import die_with_parent
from servers.postgres import PgBouncer, PostgresServer, give, missing
from servers.proxy import Fault, FaultProxy

psycopg = pytest.importorskip("psycopg", reason="the extra postgres is not installed")
pytestmark = pytest.mark.skipif(bool(missing), reason=missing)

PASSWORD = "hunter2hunter2"
_numbers = itertools.count(1)


def begin(*settings: str) -> PostgresServer:
    """A server with a role that must log in, and may make nothing."""
    return PostgresServer(*settings, access=("host all mailer 127.0.0.1/32 scram-sha-256",))


def make_role(server: PostgresServer) -> None:
    server.ask(f"CREATE ROLE mailer LOGIN PASSWORD '{PASSWORD}'")
    server.ask("REVOKE CREATE ON SCHEMA public FROM PUBLIC")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One for all tests that leave it as it was."""
    with begin() as started:
        make_role(started)
        yield started


@pytest.fixture
def own() -> Iterator[PostgresServer]:
    """One that this test may kill."""
    with begin() as started:
        make_role(started)
        yield started


@pytest.fixture
def table(request: pytest.FixtureRequest) -> str:
    """A table that the role may use, at the server of this test."""
    name = f"q{next(_numbers)}"
    server = request.getfixturevalue("own" if "own" in request.fixturenames else "server")
    server.ask(schema(name) + rights(name, "mailer"))
    return name


@contextlib.asynccontextmanager
async def queue(port: int, table: str, **more: Any) -> AsyncIterator[Any]:
    where = {"host": "127.0.0.1", "port": port, "tls": "none", "database": "postgres", "username": "mailer"}
    config = PostgresQueueConfig(type="postgres", **{**where, "password": PASSWORD, "table": table, **more})
    sink = config.build("support", Runtime(SystemClock(), Spool(Path("/nonexistent")), Path("/nonexistent")))
    try:
        yield sink
    finally:
        await sink.close()


def batch(count: int, octets: bytes = b"x") -> list[Delivery]:
    return [make_delivery(uid, octets) for uid in range(count)]


def held(server: PostgresServer, table: str) -> list[str]:
    return [row[0] for row in server.ask(f"SELECT delivery_id FROM {table} ORDER BY seq")]


async def held_in_the_end(sink: Any, messages: Sequence[Delivery], server: PostgresServer, table: str) -> None:
    """All are receipted now, and each is there once."""
    answers = await sink.deliver(messages)
    assert all(isinstance(answer, Receipt) for answer in answers)
    assert sorted(held(server, table)) == sorted(one.delivery_id for one in messages)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


async def test_a_server_killed_in_the_middle_of_a_batch_costs_time_and_no_mail(own: PostgresServer, table: str) -> None:
    messages = batch(42, os.urandom(800_000))  # several transactions
    async with queue(own.port, table) as sink:
        under_way = asyncio.ensure_future(sink.deliver(messages))
        await until(lambda: held(own, table))
        own.kill()
        with pytest.raises(TransientError, match=r"postgres 127\.0\.0\.1"):
            await under_way
        with pytest.raises(TransientError):
            await sink.check()
        own.start()
        assert 0 < len(held(own, table)) < 42
        await sink.check()
        await held_in_the_end(sink, messages, own, table)


async def test_a_frozen_server_is_given_up_in_time_and_what_it_did_later_is_there_once(
    own: PostgresServer, table: str
) -> None:
    async with queue(own.port, table, timeout=timedelta(seconds=1)) as sink:
        await sink.deliver(batch(1))
        own.freeze()
        try:
            began = time.monotonic()
            for call in (sink.deliver(batch(3)), sink.check()):
                with pytest.raises(TransientError, match=r"no answer within|no connection within"):
                    await call
            task = asyncio.ensure_future(sink.deliver(batch(3)))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < 6
        finally:
            own.thaw()
        await held_in_the_end(sink, batch(3), own, table)


async def test_a_line_cut_anywhere_in_a_batch_loses_nothing(server: PostgresServer, table: str) -> None:
    messages = batch(40, bytes(20_000))
    async with FaultProxy(server.port) as proxy:
        proxy.plan = [
            Fault(kind, after, direction)  # type: ignore[arg-type]
            for kind in ("cut", "close")
            for direction, after in (("up", 50), ("up", 400_000), ("up", 850_000), ("down", 900), ("down", 2_500))
        ]
        async with queue(proxy.port, table) as sink:
            async with asyncio.timeout(20):
                while proxy.connections < 11:
                    with contextlib.suppress(TransientError):
                        await sink.deliver(messages)
                    proxy.cut()
            await held_in_the_end(sink, messages, server, table)


async def test_a_full_disk_is_the_queues_trouble_and_loses_nothing(
    server: PostgresServer, table: str, tmp_path: Path
) -> None:
    disk = server.directory / f"small-{table}"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=3m,mode=0777", "mailpoller-test", str(disk)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        (disk / "space").mkdir()
        give(disk / "space")
        server.ask(f"CREATE TABLESPACE small LOCATION '{disk / 'space'}'")
        server.ask(f"ALTER TABLE {table} SET TABLESPACE small")
        messages = batch(60, os.urandom(100_000))
        async with queue(server.port, table) as sink:
            with pytest.raises(TransientError, match="full"):
                for one in messages:
                    await sink.deliver([one])
            assert 5 < len(held(server, table)) < 60
            server.ask(f"ALTER TABLE {table} SET TABLESPACE pg_default")
            await held_in_the_end(sink, messages, server, table)
        server.ask("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def test_revoked_credentials_are_told_and_the_password_is_not(server: PostgresServer, table: str) -> None:
    async with queue(server.port, table) as sink:
        await sink.check()
        await sink.deliver(batch(1))
        server.ask("ALTER ROLE mailer PASSWORD 'another'")
        server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mailer'")
        try:
            with pytest.raises(TransientError, match="password authentication failed") as caught:
                await sink.deliver(batch(2))
            assert "hunter2" not in f"{caught.value!r} {sink!r}"
        finally:
            server.ask(f"ALTER ROLE mailer PASSWORD '{PASSWORD}'")
        server.ask(f"REVOKE INSERT ON {table} FROM mailer")
        for call in (sink.deliver(batch(2)), sink.check()):
            with pytest.raises(TransientError, match="refuses us"):
                await call
        server.ask(f"GRANT INSERT ON {table} TO mailer")
        await held_in_the_end(sink, batch(2), server, table)


async def test_a_connection_that_was_closed_while_idle_is_no_trouble(server: PostgresServer, table: str) -> None:
    async with queue(server.port, table) as sink:
        await sink.deliver(batch(1))
        server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mailer'")
        await held_in_the_end(sink, batch(2), server, table)


async def test_what_the_table_cannot_hold_is_refused_alone_and_its_words_are_not_told(
    server: PostgresServer, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask(f"ALTER TABLE {table} ALTER event TYPE jsonb")
    small, nul, other = make_delivery(1), make_delivery(2, text="secret words \0"), make_delivery(3)
    topic, large = make_delivery(4, topic="a\0b"), make_delivery(5, bytes(20_000))
    async with queue(server.port, table, max_size=10_000) as sink:
        answers = await sink.deliver([small, nul, other, topic, large])
        for refused in (answers[1], answers[3], answers[4]):
            assert isinstance(refused, Refusal) and refused.permanent and refused.blame == "message"
            assert "secret" not in refused.reason
        assert "Unicode" in answers[1].reason
        assert "NUL" in answers[3].reason
        assert "20," in answers[4].reason and "10,000" in answers[4].reason
        assert held(server, table) == [small.delivery_id, other.delivery_id]
        assert list(await sink.holds([nul.delivery_id])) == [], "what was refused is not known"
        server.ask(f"ALTER TABLE {table} ADD CHECK (mid <> '{make_delivery(6).mid}')")
        (ruled_out,) = await sink.deliver([make_delivery(6)])
        assert isinstance(ruled_out, Refusal) and not ruled_out.permanent
    assert caplog.records == [], "the library logs what the server quotes"


async def test_a_table_that_takes_no_copies_is_written_to_row_by_row(server: PostgresServer, table: str) -> None:
    server.ask(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    server.ask(f"CREATE POLICY all_of_it ON {table} TO mailer USING (true) WITH CHECK (true)")
    async with queue(server.port, table) as sink:
        answers = await sink.deliver(batch(9))
        again = await sink.deliver(batch(9))
    assert [isinstance(one, Receipt) and not one.repeated for one in answers] == [True] * 9
    assert [isinstance(one, Receipt) and one.repeated for one in again] == [True] * 9
    assert len(held(server, table)) == 9


@pytest.mark.parametrize("count", [1, 3, 50])
async def test_what_a_rule_refuses_at_the_commit_is_no_receipt(server: PostgresServer, table: str, count: int) -> None:
    bad = batch(count)[-1]
    server.ask(f"CREATE TABLE {table}_good (mid text PRIMARY KEY)")
    for one in batch(count)[:-1]:
        server.ask(f"INSERT INTO {table}_good VALUES ('{one.mid}')")
    server.ask(f"ALTER TABLE {table} ADD FOREIGN KEY (mid) REFERENCES {table}_good DEFERRABLE INITIALLY DEFERRED")
    async with queue(server.port, table) as sink:
        answers = await sink.deliver(batch(count))
    assert [one.delivery_id for one in answers if not isinstance(one, Receipt)] == [bad.delivery_id]
    assert len(held(server, table)) == count - 1


async def test_an_event_with_a_nul_is_held_by_the_documented_table(server: PostgresServer, table: str) -> None:
    async with queue(server.port, table) as sink:
        await sink.deliver([make_delivery(1, text="a\0b")])
    assert server.ask(f"SELECT event FROM {table}")[0][0]["data"]["text"] == "a\0b"


async def test_a_repeat_is_known_for_the_whole_time_after_a_consumer_deleted_the_row(
    server: PostgresServer, table: str
) -> None:
    known = f"SELECT count(*) FROM {table}_known"
    older = f"UPDATE {table}_known SET known_at = known_at - interval '61 s', gone_at = gone_at - interval '61 s'"
    async with queue(server.port, table, remember=timedelta(seconds=60)) as sink:
        await sink.deliver(batch(3))
        server.ask(older)
        await sink.upkeep()
        await sink.upkeep()
        server.ask(f"DELETE FROM {table} WHERE delivery_id <> '{batch(1)[0].delivery_id}'")
        for _ in range(2):
            await sink.upkeep()
            assert server.ask(known) == [(3,)], "the time begins when the row is gone"
            assert all(answer.repeated for answer in await sink.deliver(batch(3)))
        server.ask(older)
        await sink.upkeep()
        assert server.ask(known) == [(1,)], "and the id of a row that is there stays"


async def test_it_is_told_which_events_have_a_row_now(server: PostgresServer, table: str) -> None:
    messages = batch(3)
    ids = [one.delivery_id for one in messages]
    async with queue(server.port, table) as sink:
        await sink.deliver(messages)
        server.ask(f"DELETE FROM {table} WHERE delivery_id = '{ids[1]}'")
        assert set(await sink.still_holds([*ids, "unknown"])) == {ids[0], ids[2]}
        assert set(await sink.holds(ids)) == set(ids)


async def test_a_notification_comes_with_what_is_new(server: PostgresServer, table: str) -> None:
    async with queue(server.port, table, notify="mail") as sink:
        with server.connect() as listener:
            listener.execute("LISTEN mail")
            await sink.deliver(batch(2))
            await sink.deliver(batch(2))
            assert [(one.channel, one.payload) for one in listener.notifies(timeout=0.2)] == [("mail", "")]


# --- durability -------------------------------------------------------------------------------------------------


async def test_a_server_that_may_forget_is_refused_with_what_mends_it(own: PostgresServer, table: str) -> None:
    troubles = {
        ("ALTER SYSTEM SET fsync = off", "ALTER SYSTEM RESET fsync"): "fsync off.*ALTER SYSTEM SET fsync = on",
        (
            f"ALTER TABLE {table}_known SET UNLOGGED",
            f"ALTER TABLE {table}_known SET LOGGED",
        ): "not logged: .*SET LOGGED",
        ("ALTER SYSTEM SET full_page_writes = off", "ALTER SYSTEM RESET full_page_writes"): "full_page_writes off",
    }
    async with queue(own.port, table) as strict, queue(own.port, table, durability="warn") as lenient:
        await strict.deliver(batch(1))
        for number, ((spoil, mend), words) in enumerate(troubles.items(), start=2):
            own.ask(spoil)
            own.ask("SELECT pg_reload_conf()")
            await asyncio.sleep(0.3)
            for call in (strict.deliver(batch(number)), strict.check()):
                with pytest.raises(TransientError, match=f"{words}.*durability: warn"):
                    await call
            assert len(held(own, table)) == number - 1
            await lenient.deliver(batch(number))
            (doubt,) = await lenient.upkeep()
            assert doubt.kind is NOT_DURABLE
            own.ask(mend)
            own.ask("SELECT pg_reload_conf()")
            await asyncio.sleep(0.3)
            await strict.check()
            assert list(await strict.upkeep()) == []


@pytest.mark.skipif(programs.found("strace") is None, reason="there is no strace")
async def test_twenty_messages_are_twenty_syncs_whatever_the_role_is_set_to(
    server: PostgresServer, table: str, tmp_path: Path
) -> None:
    server.ask("ALTER ROLE mailer SET synchronous_commit = off")
    trace = tmp_path / "trace"
    try:
        async with queue(server.port, table) as sink:
            await sink.deliver([make_delivery(100)])
            backend = server.ask("SELECT pid FROM pg_stat_activity WHERE usename = 'mailer'")[0][0]
            words = ["strace", "-f", "-qq", "-p", str(backend), "-o", str(trace), "-e", "trace=fdatasync,fsync"]
            with subprocess.Popen(words, preexec_fn=die_with_parent) as tracer:
                await until(lambda: "TracerPid:\t0" not in Path(f"/proc/{backend}/status").read_text())
                for one in batch(20):
                    await sink.deliver([one])
                tracer.terminate()
    finally:
        server.ask("ALTER ROLE mailer RESET synchronous_commit")
    assert trace.read_text().count("sync(") >= 20


# --- ways to the server -----------------------------------------------------------------------------------------


@pytest.mark.skipif(programs.found("pgbouncer") is None, reason="there is no pgbouncer")
async def test_pgbouncer_in_transaction_mode_is_no_difference(server: PostgresServer, table: str) -> None:
    with PgBouncer(server) as bouncer:
        async with contextlib.AsyncExitStack() as stack:
            sinks = [await stack.enter_async_context(queue(bouncer.port, table, notify="mail")) for _ in range(4)]
            await sinks[0].check()
            batches = [[make_delivery(number * 10 + i) for i in range(10)] for number in range(4)]
            for _ in range(8):  # so that a prepared statement would be missed at another server connection
                await asyncio.gather(*(sink.deliver(some) for sink, some in zip(sinks, batches, strict=True)))
            await asyncio.gather(*(sink.deliver(batches[0] + batches[1]) for sink in sinks))
            assert list(await sinks[0].upkeep()) == []
    assert sorted(held(server, table)) == sorted(one.delivery_id for some in batches for one in some)


async def test_tls_trusts_the_named_authority_alone(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    server = PostgresServer(
        "ssl = on", "ssl_cert_file = 'tls.pem'", "ssl_key_file = 'tls.pem'", "listen_addresses = '*'"
    )
    inside = server.directory / "data" / "tls.pem"
    inside.write_bytes(certificate.path.read_bytes())
    inside.chmod(0o600)
    give(inside)
    with server:
        server.ask(schema("q"))
        tls = {"tls": "tls", "username": "postgres", "password": None, "ca_file": certificate.path}
        async with queue(server.port, "q", host="localhost", **tls) as sink:
            await held_in_the_end(sink, batch(2), server, "q")
            encrypted = "pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'mailpoller' AND ssl"
            assert server.ask(f"SELECT count(*) FROM {encrypted}") == [(1,)]
        for wrong in ({"host": "localhost", "ca_file": None}, {"host": "127.0.0.2"}):
            async with queue(server.port, "q", **{**tls, **wrong}) as sink:
                with pytest.raises(TransientError, match=r"(?i)certificate"):
                    await sink.deliver(batch(3))
        assert len(held(server, "q")) == 2


async def test_a_socket_serves_as_well(server: PostgresServer, table: str) -> None:
    async with queue(server.port, table, host=None, socket=server.directory) as sink:
        await sink.check()
        await held_in_the_end(sink, batch(2), server, table)


async def test_a_table_that_is_missing_is_told_with_the_command_that_makes_it(
    server: PostgresServer, tmp_path: Path
) -> None:
    async with queue(server.port, "absent") as sink:
        with pytest.raises(TransientError, match="mailpoller queue create"):
            await sink.check()
        with pytest.raises(TransientError, match="absent") as caught:
            await sink.deliver(batch(1))
        assert "mailpoller queue create" in caught.value.advice
    file = tmp_path / "mailpoller.yaml"
    lines = ["type: postgres", "host: 127.0.0.1", f"port: {server.port}", "tls: none", "database: postgres"]
    lines += ["username: postgres", "table: made"]
    file.write_text("queues:\n  support:\n" + "".join(f"    {line}\n" for line in lines), "utf-8")
    printed = command.mailpoller("queue", "create", "support", "--print", "--config", str(file))
    assert "CREATE TABLE IF NOT EXISTS made (" in printed.out, printed.err
    assert 'GRANT SELECT, INSERT ON made TO "postgres"' in printed.out
    assert server.ask("SELECT to_regclass('made')") == [(None,)]
    for _ in range(2):
        made = command.mailpoller("queue", "create", "support", "--config", str(file))
        assert made.code == 0, made.err
    async with queue(server.port, "made", username="postgres") as sink:
        await sink.check()


# --- the other end ----------------------------------------------------------------------------------------------


async def test_example_consumers_process_each_message_once(server: PostgresServer, table: str, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/consumers/postgres.py"
    messages = batch(40)
    words = [sys.executable, str(example), f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres", table]
    async with queue(server.port, table) as sink:
        await sink.deliver(messages)
        with subprocess.Popen(words, cwd=tmp_path) as one, subprocess.Popen(words, cwd=tmp_path) as two:
            try:
                await until(lambda: not held(server, table))
                await sink.deliver([*messages[:5], make_delivery(40)])
                await until(lambda: not held(server, table))
            finally:
                one.send_signal(signal.SIGKILL)
                two.send_signal(signal.SIGKILL)
    done = [row[0] for row in server.ask("SELECT delivery_id FROM ticket")]
    assert sorted(done) == sorted(one.delivery_id for one in (*messages, make_delivery(40)))


def test_the_tables_of_the_documents_are_those_that_are_made() -> None:
    page = (Path(__file__).parents[2] / "docs/sinks.md").read_text("utf-8")
    (shown,) = re.findall(r"^```sql\n(CREATE TABLE.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert shown == schema("mailpoller_support") + rights("mailpoller_support", "mailpoller")
