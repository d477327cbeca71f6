"""The tables of procrastinate at a server, and a real worker of it."""

from __future__ import annotations

from typing import Any

import pytest

from servers.postgres import PostgresServer

TASK = "desk.take"


def make_tables(server: PostgresServer) -> None:
    """As its own command makes them. Skips the test if it is not installed."""
    procrastinate = pytest.importorskip("procrastinate", reason="procrastinate is not installed")
    connector = procrastinate.SyncPsycopgConnector(conninfo=_place(server))
    with procrastinate.App(connector=connector).open() as app:
        app.schema_manager.apply_schema()


async def work(server: PostgresServer, queue: str) -> list[tuple[int, dict[str, Any]]]:
    """What a worker is given that takes all that waits in the queue: the job's priority, and its argument."""
    import procrastinate

    taken: list[tuple[int, dict[str, Any]]] = []
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=_place(server)))

    @app.task(name=TASK, pass_context=True)
    async def take(context: Any, event: dict[str, Any]) -> None:
        taken.append((context.job.priority, event))

    async with app.open_async():
        await app.run_worker_async(queues=[queue], wait=False, install_signal_handlers=False, listen_notify=False)
    return taken


def _place(server: PostgresServer) -> str:
    return f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres"
