"""SIGTERM at every inconvenient moment, and two daemons on one ledger."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import time
from collections.abc import Iterator

import pytest

from scenarios.harness import Site
from scenarios.outage import fill, said, stopped, strikes, until
from servers.dovecot import Dovecot
from servers.ports import free_port
from servers.proxy import FaultProxy

AT_ONCE_S = 5.0
"""Less than a second on a machine that does nothing else."""
PROMPT_S = 30.0
"""Less than a grace period of a minute, on a machine that does other things too."""


async def test_a_stop_in_the_middle_of_a_backlog_drains_what_is_in_hand_and_the_next_run_goes_on(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    site.settings["service"]["batch_messages"] = 20
    expected = await asyncio.to_thread(fill, dovecot, user, "message", 1200)
    # Over a slow line, lest a fast daemon be through before a busy test has noticed that it began.
    async with FaultProxy(dovecot.imap_port, delay=0.2) as proxy:
        site.settings["mailboxes"]["support"]["port"] = proxy.port
        with site.run() as daemon:
            await until(daemon, lambda: site.subjects().total() >= 60)
            assert await stopped(daemon) == 0
            delivered = site.subjects().total()
            assert delivered < 1200
            assert daemon.count("service.stopped") == 1
            assert daemon.count("watcher.cancelled") == 0
        proxy.delay = 0.0
        counts = site.ledger_counts("support")
        assert counts["claimed"] == counts["undisposed"] == 0
        assert counts["settled"] == delivered
        assert strikes(site) == (0, 0)
        assert await asyncio.to_thread(site.once) == 0
    assert site.subjects() == expected
    with sqlite3.connect(site.queue_path) as database:
        assert database.execute("SELECT count(*), count(DISTINCT mid) FROM message").fetchone() == (1200, 1200)


async def test_a_stop_on_a_stalled_server_ends_when_the_grace_period_does(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    site.settings["service"]["stop_grace"] = "1s"
    async with FaultProxy(dovecot.imap_port) as proxy:
        site.settings["mailboxes"]["support"]["port"] = proxy.port
        with site.run() as daemon:
            await said(daemon, "session.opened")
            await until(daemon, lambda: site.ledger_counts("support") is not None)
            proxy.stall()
            fill(dovecot, user, "message", 3)
            await asyncio.sleep(1.5)  # a poll that hangs
            began = time.monotonic()
            assert await stopped(daemon) == 0
            assert time.monotonic() - began < PROMPT_S
        proxy.flow()
    assert site.ledger_counts("support")["claimed"] == 0


@pytest.mark.parametrize("where", ["logging in", "waiting"])
async def test_a_stop_with_nothing_in_hand_is_prompt_beside_a_server_that_hangs(
    site: Site, dovecot: Dovecot, user: str, where: str
) -> None:
    site.settings["service"]["stop_grace"] = "60s"
    async with FaultProxy(dovecot.imap_port) as proxy:
        site.settings["mailboxes"]["support"] |= {"port": proxy.port, "poll_interval": "1h"}
        if where == "logging in":
            proxy.stall()
        with site.run("--log-level", "debug") as daemon:
            if where == "logging in":
                await until(daemon, lambda: proxy.connections)
            else:
                await said(daemon, "mailbox.polled")
                await asyncio.sleep(0.3)
                proxy.stall()
            began = time.monotonic()
            assert await stopped(daemon) == 0
            assert time.monotonic() - began < AT_ONCE_S
            assert not daemon.count("mailbox.failed")


async def test_a_stop_while_a_name_is_asked_for_or_a_server_is_dialled_is_prompt(site: Site) -> None:
    site.settings["service"]["stop_grace"] = "60s"
    with silent() as port:
        site.imap("support", port, "anybody")
        site.imap("named", 993, "anybody", host="hangs.test", tls="implicit")
        with site.run("--log-level", "debug", by="scenarios.unresolved") as daemon:
            await said(daemon, "service.started")
            await asyncio.sleep(1)
            assert not daemon.count("mailbox.failed"), "both are at it"
            began = time.monotonic()
            assert await stopped(daemon) == 0
            assert time.monotonic() - began < AT_ONCE_S
            assert not daemon.count("service.abandoned")


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that answers nobody who dials it: those it has room for were never accepted."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, contextlib.ExitStack() as waiting:
        for _ in range(4):
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


async def test_a_stop_while_waiting_for_news_is_prompt(site: Site, dovecot: Dovecot, user: str) -> None:
    site.settings["service"]["stop_grace"] = "60s"
    site.settings["mailboxes"]["support"]["poll_interval"] = "1h"
    expected = fill(dovecot, user, "message", 1)
    with site.run("--log-level", "debug") as daemon:
        await until(daemon, lambda: site.subjects() == expected)
        await said(daemon, "mailbox.polled")
        began = time.monotonic()
        assert await stopped(daemon) == 0
        assert time.monotonic() - began < PROMPT_S
        assert daemon.count("session.closed") == 1


async def test_a_stop_while_backing_off_is_prompt(site: Site) -> None:
    port = free_port()
    site.settings["service"]["stop_grace"] = "60s"
    site.settings["mailboxes"]["support"] |= {"port": port, "reconnect_interval": "1h"}
    with site.run() as daemon:
        await said(daemon, "mailbox.failed", kind="mailbox-down")
        began = time.monotonic()
        assert await stopped(daemon) == 0
        assert time.monotonic() - began < PROMPT_S


async def test_a_second_daemon_on_the_same_ledger_names_the_first_and_leaves(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    with site.run() as first:
        await said(first, "service.started")
        with site.run() as second:
            assert await asyncio.to_thread(second.wait) == 75
            assert f"in use by process {first.process.pid}" in second.said
        expected = fill(dovecot, user, "message", 2)
        await until(first, lambda: site.subjects() == expected)
        assert await stopped(first) == 0
    with site.run() as third:
        await said(third, "service.started")
        assert await stopped(third) == 0
