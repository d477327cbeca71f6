"""Jobs at a real PostgreSQL, as a real worker of procrastinate takes them: once, and known again when they are done."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.postgres import PostgresQueueConfig
from mailpoller.testing.deliveries import HOSTILE, make_delivery
from servers.postgres import PostgresServer, missing
from servers.procrastinate import TASK, make_tables, work

pytest.importorskip("psycopg", reason="the extra postgres is not installed")
pytest.importorskip("procrastinate", reason="procrastinate is not installed")
pytestmark = pytest.mark.skipif(bool(missing), reason=missing)


def block(port: int, **more: Any) -> PostgresQueueConfig:
    where = {"host": "127.0.0.1", "port": port, "tls": "none", "database": "postgres", "username": "mailer"}
    return PostgresQueueConfig.model_validate(
        {"type": "postgres", **where, "format": "procrastinate", "job": TASK, "job_queue": "mail", **more}
    )


@pytest.fixture(scope="module")
def shared() -> Iterator[PostgresServer]:
    """Its role has the rights that ``mailpoller queue create --print`` says, and no others."""
    with PostgresServer() as started:
        started.ask("CREATE ROLE mailer LOGIN")
        started.ask("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        make_tables(started)
        preparation = block(1).preparation("support")
        assert preparation is not None
        started.ask(preparation.statements)
        yield started


@pytest.fixture
def server(shared: PostgresServer) -> PostgresServer:
    shared.ask("TRUNCATE procrastinate_jobs, mailpoller_support_known CASCADE")
    return shared


@contextlib.asynccontextmanager
async def queue(server: PostgresServer, **more: Any) -> AsyncIterator[Any]:
    runtime = Runtime(SystemClock(), Spool(Path("/nonexistent")), Path("/nonexistent"))
    sink = block(server.port, **more).build("support", runtime)
    try:
        yield sink
    finally:
        await sink.close()


async def test_a_worker_runs_each_event_once_with_its_priority(server: PostgresServer) -> None:
    batch = [
        make_delivery(uid, HOSTILE, place="inside", text="Größe \u2028 😀 \\", priority=priority)  # type: ignore[arg-type]
        for uid, priority in enumerate(("low", "normal", "high"))
    ]
    for again in (False, True):
        async with queue(server) as sink:  # each time as another process
            await sink.check()
            answers = await sink.deliver(batch)
            assert set(await sink.holds([one.delivery_id for one in batch])) == {one.delivery_id for one in batch}
        assert [isinstance(one, Receipt) and one.repeated for one in answers] == [again] * 3
        taken = await work(server, "mail")
        wanted = [(1 - number, json.loads(one.event.structured())) for number, one in enumerate(reversed(batch))]
        assert taken == ([] if again else wanted)
    assert server.ask("SELECT DISTINCT status::text FROM procrastinate_jobs") == [("succeeded",)]


async def test_a_job_and_the_id_of_its_delivery_are_there_together_or_not_at_all(server: PostgresServer) -> None:
    server.ask("ALTER TABLE procrastinate_events RENAME TO away")  # so that the job's own trigger fails, after the ids
    try:
        async with queue(server) as sink:
            with pytest.raises(TransientError, match=r"procrastinate"):
                await sink.deliver([make_delivery(1, place="inside")])
    finally:
        server.ask("ALTER TABLE away RENAME TO procrastinate_events")
    assert server.ask("SELECT count(*) FROM mailpoller_support_known") == [(0,)]
    async with queue(server) as sink:
        (answer,) = await sink.deliver([make_delivery(1, place="inside")])
    assert isinstance(answer, Receipt) and not answer.repeated
    assert len(await work(server, "mail")) == 1


async def test_what_a_job_cannot_hold_is_refused_alone(server: PostgresServer) -> None:
    batch = [make_delivery(uid, place="inside", text="\0" if uid == 1 else "x") for uid in range(3)]
    async with queue(server) as sink:
        answers = await sink.deliver(batch)
    assert [isinstance(one, Refusal) and one.permanent for one in answers] == [False, True, False]
    assert len(await work(server, "mail")) == 2


async def test_octets_inside_of_a_job_are_counted_once(server: PostgresServer) -> None:
    order, larger = (make_delivery(uid, bytes(size), place="inside") for uid, size in ((1, 50_000), (2, 50_010)))
    async with queue(server, max_size=order.event.size) as sink:
        first, second, third = await sink.deliver([order, larger, make_delivery(3, place="inside")])
    assert isinstance(first, Receipt) and isinstance(third, Receipt)
    assert isinstance(second, Refusal) and second.unasked
    assert f"{larger.event.size:,}" in second.reason


async def test_what_is_lacking_is_the_queues_trouble_and_said(server: PostgresServer) -> None:
    async def said(statement: str, back: str) -> str:
        server.ask(statement)
        try:
            async with queue(server) as sink:
                with pytest.raises(TransientError) as checked:
                    await sink.check()
                with pytest.raises(TransientError):
                    await sink.deliver([make_delivery(1, place="inside")])
        finally:
            server.ask(back)
        return str(checked.value)

    name = "procrastinate_defer_jobs_v1"
    assert "too old" in await said(f"ALTER FUNCTION {name} RENAME TO away", f"ALTER FUNCTION away RENAME TO {name}")
    right = "INSERT ON procrastinate_jobs"
    assert "refuses us" in await said(f"REVOKE {right} FROM mailer", f"GRANT {right} TO mailer")
    table = "procrastinate_jobs"
    assert "schema --apply" in await said(f"ALTER TABLE {table} RENAME TO away", f"ALTER TABLE away RENAME TO {table}")
    assert server.ask("SELECT count(*) FROM mailpoller_support_known") == [(0,)]


async def test_jobs_that_a_power_cut_takes_are_refused(server: PostgresServer) -> None:
    server.ask("ALTER TABLE procrastinate_events SET UNLOGGED; ALTER TABLE procrastinate_periodic_defers SET UNLOGGED")
    server.ask("ALTER TABLE procrastinate_jobs SET UNLOGGED")
    try:
        async with queue(server) as sink:
            with pytest.raises(TransientError, match="not logged: procrastinate_jobs"):
                await sink.deliver([make_delivery(1, place="inside")])
    finally:
        server.ask("ALTER TABLE procrastinate_jobs SET LOGGED")
        server.ask("ALTER TABLE procrastinate_events SET LOGGED; ALTER TABLE procrastinate_periodic_defers SET LOGGED")


@pytest.mark.parametrize(
    "wrong",
    [{"job": None}, {"notify": "x"}, {"format": "rows"}, {"job": "x" * 129}],
    ids=["job", "notify", "rows", "long"],
)
def test_a_block_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        block(1, **wrong)
