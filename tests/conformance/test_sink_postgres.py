"""The queue that is a PostgreSQL table keeps the promises of the sink's port, against a real server."""

from __future__ import annotations

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

    @pytest.fixture(autouse=True)
    def _server(self, server: servers.PostgresServer) -> Iterator[None]:
        with server.connect() as self.client:
            yield

    def make_sink(self, directory: Path) -> Sink:
        port = int(os.environ[_PORT])
        with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres") as client:
            client.execute(schema(_table(directory)))
        config = PostgresQueueConfig(
            type="postgres", host="127.0.0.1", port=port, tls="none", database="postgres", username="postgres",
            table=_table(directory),
        )  # fmt: skip
        return config.build("support", Runtime(SystemClock(), Spool(directory / "spool"), directory))

    def move(self, queue: Path, to: Path) -> None:
        for part in ("", "_known", "_mark"):
            if self.client.execute(f"SELECT to_regclass('{_table(to)}{part}')").fetchone() != (None,):
                self.client.execute(f"DROP TABLE {_table(to)}{part}")
            self.client.execute(f"ALTER TABLE {_table(queue)}{part} RENAME TO {_table(to)}{part}")

    def copy(self, queue: Path, to: Path) -> None:
        for part in ("", "_known", "_mark"):
            old, new = f"{_table(queue)}{part}", f"{_table(to)}{part}"
            self.client.execute(f"CREATE TABLE {new} (LIKE {old} INCLUDING ALL)")
            self.client.execute(f"INSERT INTO {new} OVERRIDING SYSTEM VALUE SELECT * FROM {old}")
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


def _table(directory: Path) -> str:
    return f"t{sha256(str(directory).encode()).hexdigest()[:20]}"
