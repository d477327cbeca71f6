"""What hangs and raises no error: a trigger of somebody's that never ends, in a queue and in the ledger itself."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest

from scenarios.harness import Site
from scenarios.outage import fill, said, stopped, until
from servers.dovecot import Dovecot

ENDLESS = (
    "CREATE TRIGGER hangs AFTER INSERT ON message BEGIN SELECT (WITH RECURSIVE c(x) AS "
    "(SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c); END"
)


def change(path: Path, statement: str) -> None:
    with sqlite3.connect(path, timeout=30) as database:
        database.execute(statement)
    database.close()


def alarmed(path: Path, key: str) -> bool:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as database:
        found = database.execute("SELECT count(*) FROM alarm WHERE key = ?", (key,)).fetchone()
    database.close()
    return bool(found[0])


@pytest.fixture
def other(site: Site, dovecot: Dovecot, user: str) -> Path:
    """The queue of a second mailbox, ``other``."""
    path = site.directory / "queue" / "other.db"
    site.settings["queues"]["other"] = {"type": "sqlite", "path": str(path), "payload": "raw"}
    site.imap("other", dovecot.imap_port, f"{user}-other", default_queue="other")
    site.settings["service"]["stop_grace"] = "1s"
    return path


async def test_a_queue_in_which_a_trigger_never_ends_is_down_and_nobody_else_notices(
    site: Site, other: Path, dovecot: Dovecot, user: str
) -> None:
    await asyncio.to_thread(fill, dovecot, user, "before", 1)
    with site.run(by="scenarios.hasty") as daemon:
        await until(daemon, lambda: site.subjects().total() == 1)
        await asyncio.to_thread(change, site.queue_path, ENDLESS)
        await asyncio.to_thread(fill, dovecot, user, "hangs", 1)
        well = await asyncio.to_thread(fill, dovecot, f"{user}-other", "well", 5)
        await until(daemon, lambda: site.subjects(other) == well)
        await said(daemon, "queue.failed", queue="support")
        await until(daemon, lambda: alarmed(site.directory / "ledger.db", "queue-failing:support"))
        await asyncio.to_thread(change, site.queue_path, "DROP TRIGGER hangs")
        await until(daemon, lambda: site.subjects().total() == 2)
        assert await stopped(daemon) == 0
    assert not daemon.count("service.abandoned")


async def test_a_stop_is_heeded_within_the_grace_while_a_queue_hangs(
    site: Site, other: Path, dovecot: Dovecot, user: str
) -> None:
    await asyncio.to_thread(fill, dovecot, user, "before", 1)
    with site.run() as daemon:  # which waits ten minutes for a receipt
        await until(daemon, lambda: site.subjects().total() == 1)
        await asyncio.to_thread(change, site.queue_path, ENDLESS)
        await asyncio.to_thread(fill, dovecot, user, "hangs", 1)
        await until(daemon, lambda: site.ledger_counts("support")["claimed"] == 1)
        await asyncio.sleep(0.5)
        began = time.monotonic()
        assert await stopped(daemon) == 0
        assert time.monotonic() - began < 1 + 2
        assert daemon.count("service.abandoned") == 1
    await asyncio.to_thread(change, site.queue_path, "DROP TRIGGER hangs")
    assert await asyncio.to_thread(site.once) == 0
    assert sorted(site.subjects().values()) == [1, 1]


async def test_a_ledger_that_hangs_ends_the_process_with_74_and_the_next_one_loses_nothing(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    await asyncio.to_thread(fill, dovecot, user, "before", 1)
    with site.run(by="scenarios.hasty") as daemon:
        await until(daemon, lambda: site.subjects().total() == 1)
        await asyncio.to_thread(change, site.directory / "ledger.db", ENDLESS)
        await asyncio.to_thread(fill, dovecot, user, "hangs", 1)
        assert await asyncio.to_thread(daemon.wait, 60) == 74
        assert daemon.count("ledger.hung") == 1
    await asyncio.to_thread(change, site.directory / "ledger.db", "DROP TRIGGER hangs")
    assert await asyncio.to_thread(site.once) == 0
    assert sorted(site.subjects().values()) == [1, 1]
