"""The queue that is a PostgreSQL table keeps the promises of the sink's port, against a real server."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.postgres import PostgresQueueConfig
from mailpoller.sinks.postgres.schema import schema
from mailpoller.testing.sink_suite import SinkSuite
from servers import postgres as servers
from servers import procrastinate as jobs

psycopg = pytest.importorskip("psycopg", reason="the extra postgres is not installed")
pytestmark = pytest.mark.skipif(bool(servers.missing), reason=servers.missing)

_PORT = "MAILPOLLER_TEST_POSTGRES_PORT"


@pytest.fixture(scope="module")
def server() -> Iterator[servers.PostgresServer]:
    """One server for all tests, also for those of other processes."""
    with servers.PostgresServer() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_PORT, str(started.port))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield started


class TestPostgresQueue(SinkSuite):
    """Each directory is a table at one server."""

    fails_with_the_disk = False
    kills = 3
    parts: tuple[str, ...] = ("", "_known", "_mark")

    @pytest.fixture(autouse=True)
    def _server(self, server: servers.PostgresServer) -> Iterator[None]:
        with server.connect() as self.client:
            yield

    def make_sink(self, directory: Path) -> Sink:
        port = int(os.environ[_PORT])
        with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres") as client:
            client.execute(schema(_table(directory)))
        return self.build(directory)

    def build(self, directory: Path, **more: str) -> Sink:
        where = {"host": "127.0.0.1", "port": int(os.environ[_PORT]), "tls": "none", "database": "postgres"}
        config = PostgresQueueConfig.model_validate(
            {"type": "postgres", "username": "postgres", "table": _table(directory), **where, **more}
        )
        return config.build("support", Runtime(SystemClock(), Spool(directory / "spool"), directory))

    def move(self, queue: Path, to: Path) -> None:
        for part in self.parts:
            if self.client.execute(f"SELECT to_regclass('{_table(to)}{part}')").fetchone() != (None,):
                self.client.execute(f"DROP TABLE {_table(to)}{part}")
            self.client.execute(f"ALTER TABLE {_table(queue)}{part} RENAME TO {_table(to)}{part}")

    def copy(self, queue: Path, to: Path) -> None:
        for part in self.parts:
            old, new = f"{_table(queue)}{part}", f"{_table(to)}{part}"
            self.client.execute(f"CREATE TABLE {new} (LIKE {old} INCLUDING ALL)")
            self.client.execute(f"INSERT INTO {new} OVERRIDING SYSTEM VALUE SELECT * FROM {old}")
        if "" in self.parts:
            self.client.execute(f"SELECT setval(pg_get_serial_sequence('{_table(to)}', 'seq'), 1000)")

    def _ask(self, directory: Path, what: str, delivery_id: str | None = None) -> list[Any]:
        which = "" if delivery_id is None else f" WHERE delivery_id = '{delivery_id}'"
        return [row[0] for row in self.client.execute(f"SELECT {what} FROM {_table(directory)}{which} ORDER BY seq")]

    def held(self, directory: Path) -> Sequence[str]:
        return self._ask(directory, "delivery_id")

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        (found,) = self._ask(directory, "event::text", delivery_id)
        return found.encode()

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        (found,) = self._ask(directory, "octets", delivery_id)
        return found


@pytest.fixture(scope="module")
def tables_of_jobs(server: servers.PostgresServer) -> None:
    jobs.make_tables(server)


@pytest.mark.usefixtures("tables_of_jobs")
class TestProcrastinateJobs(TestPostgresQueue):
    """Each directory is a queue of procrastinate's at one server."""

    holds_events = (
        False  # its arguments are jsonb: what that makes of them, tests/integration/test_postgres_jobs.py shows
    )
    parts = ("_known", "_mark")

    def make_sink(self, directory: Path) -> Sink:
        table = _table(directory)
        with psycopg.connect(
            host="127.0.0.1", port=int(os.environ[_PORT]), user="postgres", dbname="postgres"
        ) as client:
            client.execute(schema(table, jobs=True))
        return self.build(directory, format="procrastinate", job="take", job_queue=table)

    def move(self, queue: Path, to: Path) -> None:
        super().move(queue, to)
        self.client.execute("DELETE FROM procrastinate_jobs WHERE queue_name = %s", [_table(to)])
        self.client.execute(
            "UPDATE procrastinate_jobs SET queue_name = %s WHERE queue_name = %s", [_table(to), _table(queue)]
        )

    def copy(self, queue: Path, to: Path) -> None:
        super().copy(queue, to)
        self.client.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, args) "
            "SELECT %s, task_name, args FROM procrastinate_jobs WHERE queue_name = %s ORDER BY id",
            [_table(to), _table(queue)],
        )

    def held(self, directory: Path) -> Sequence[str]:
        found = self.client.execute(
            "SELECT args->'event'->>'deliveryid' FROM procrastinate_jobs WHERE queue_name = %s ORDER BY id",
            [_table(directory)],
        )
        return [row[0] for row in found]

    def octets_of(self, directory: Path, delivery_id: str) -> bytes:
        found = self.client.execute(
            "SELECT args->'event'->'data'->>'raw' FROM procrastinate_jobs "
            "WHERE queue_name = %s AND args->'event'->>'deliveryid' = %s",
            [_table(directory), delivery_id],
        )
        ((octets,),) = found.fetchall()
        return base64.b64decode(octets)


def _table(directory: Path) -> str:
    return f"t{sha256(str(directory).encode()).hexdigest()[:20]}"
