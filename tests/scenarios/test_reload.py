"""The configuration changes while the daemon runs: nothing is lost, nothing comes twice, and who is not concerned does
not notice."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from scenarios.harness import Daemon, Site
from scenarios.outage import command, fill, said, sqlite_queue, stopped, until
from servers.dovecot import Dovecot
from servers.proxy import FaultProxy


def sessions(daemon: Daemon) -> dict[str, int]:
    """How often a session of each mailbox was opened."""
    opened = [line["mailbox"] for line in daemon.log if line["event"] == "session.opened"]
    return {name: opened.count(name) for name in opened}


async def test_only_what_changed_is_changed_under_a_running_drain_and_nothing_is_lost_or_comes_twice(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    site.settings["service"]["batch_messages"] = 20
    site.imap("quiet", dovecot.imap_port, f"{user}-quiet")
    site.imap("leaving", dovecot.imap_port, f"{user}-leaving")
    here = await asyncio.to_thread(fill, dovecot, user, "message", 100)
    quiet = await asyncio.to_thread(fill, dovecot, f"{user}-quiet", "quiet", 2)
    # Over a slow line, lest the drain be through before the reload.
    async with FaultProxy(dovecot.imap_port, delay=0.1) as proxy:
        site.settings["mailboxes"]["support"]["port"] = proxy.port
        with site.run() as daemon:
            await until(daemon, lambda: site.subjects().total() >= 40 and len(sessions(daemon)) == 3)
            second = sqlite_queue(site, "second", site.directory / "queue" / "second.db")
            site.settings["mailboxes"]["support"]["default_queue"] = "second"
            site.settings["mailboxes"]["leaving"]["enabled"] = False
            site.imap("joining", dovecot.imap_port, f"{user}-joining", default_queue="second")
            joined = await asyncio.to_thread(fill, dovecot, f"{user}-joining", "joining", 2)
            trial = await command(site, "reload", "--dry-run", "--json")
            assert trial.returncode == 0, trial.stderr
            parts = {change["part"] for change in json.loads(trial.stdout)["changes"]}
            assert parts == {"queue second", "mailbox support", "mailbox leaving", "mailbox joining"}
            assert not daemon.count("fleet.changed")
            filling = asyncio.create_task(asyncio.to_thread(fill, dovecot, user, "meanwhile", 60))
            done = await command(site, "reload")
            assert done.returncode == 0, done.stderr + daemon.said
            assert "default_queue: support → second" in done.stdout
            here += await filling
            here += await asyncio.to_thread(fill, dovecot, user, "after", 1)
            await until(daemon, lambda: site.subjects(second).total() + site.subjects().total() == 165)
            assert daemon.count("watcher.cancelled") == 0
            assert sessions(daemon) == {"support": 2, "quiet": 1, "leaving": 1, "joining": 1}
            status = json.loads((await command(site, "status", "--json")).stdout)
            conditions = {box["mailbox"]: box["condition"] for box in status["mailboxes"]}
            assert conditions["leaving"] == "not polled"
            assert await stopped(daemon) == 0
    former, later = site.subjects(), site.subjects(second)
    assert former + later == here + joined + quiet
    assert later["after 0"] == 1


async def test_a_file_with_an_error_changes_nothing_and_says_where(site: Site, dovecot: Dovecot, user: str) -> None:
    with site.run() as daemon:
        await said(daemon, "session.opened")
        site.settings["mailboxes"]["support"]["disposition"] = "shred"
        refused = await command(site, "reload")
        assert refused.returncode == 78
        assert f"{site.config}:" in refused.stderr
        assert "mailboxes.support.disposition" in refused.stderr
        status = await command(site, "status")
        assert "1 mailbox:" in status.stdout
        assert "the configuration on disk is not the one that holds" in status.stdout
        assert "mailboxes.support.disposition" in status.stderr
        expected = await asyncio.to_thread(fill, dovecot, user, "still", 2)
        await until(daemon, lambda: site.subjects() == expected)
        del site.settings["mailboxes"]["support"]["disposition"]
        assert (await command(site, "reload")).returncode == 0
        assert "on disk" not in (await command(site, "status")).stdout
        assert sessions(daemon) == {"support": 1}
        assert await stopped(daemon) == 0


async def test_what_is_in_use_goes_only_if_it_is_named(site: Site, dovecot: Dovecot, user: str) -> None:
    site.imap("other", dovecot.imap_port, f"{user}-other")
    with site.run() as daemon:
        await until(daemon, lambda: len(sessions(daemon)) == 2)
        del site.settings["mailboxes"]["other"]
        refused = await command(site, "reload")
        assert refused.returncode == 65
        assert "--remove other" in refused.stderr
        assert not daemon.count("fleet.changed")
        assert (await command(site, "reload", "--remove", "other")).returncode == 0
        assert daemon.count("fleet.changed", change="removed", part="mailbox other") == 1
        assert await stopped(daemon) == 0


async def test_sighup_reloads_and_systemd_is_told(
    site: Site, dovecot: Dovecot, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(site.directory / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(site.directory / "notify"))
        former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            daemon = site.run()
        finally:
            signal.signal(signal.SIGHUP, former)
        with daemon:
            await said(daemon, "session.opened")
            site.settings["mailboxes"]["support"]["poll_interval"] = "2s"
            assert site.config
            daemon.process.send_signal(signal.SIGHUP)
            await said(daemon, "config.reloaded", outcome="applied")
            words: list[str] = []
            while True:
                try:
                    words += systemd.recv(4096).decode().splitlines()
                except BlockingIOError:
                    break
            about = [word for word in words if word.partition("=")[0] in ("READY", "RELOADING", "MONOTONIC_USEC")]
            assert [word.partition("=")[0] for word in about] == ["READY", "RELOADING", "MONOTONIC_USEC", "READY"]
            assert await stopped(daemon) == 0


async def test_a_kill_in_the_middle_of_a_reload_loses_nothing_and_brings_nothing_twice(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    site.settings["service"]["batch_messages"] = 20
    expected = await asyncio.to_thread(fill, dovecot, user, "message", 200)
    async with FaultProxy(dovecot.imap_port) as proxy:
        site.settings["mailboxes"]["support"]["port"] = proxy.port
        with site.run() as daemon:
            await until(daemon, lambda: site.subjects().total() >= 40)
            proxy.stall()  # so the mailbox cannot end what it has in hand, and the reload is in its midst for long
            second = sqlite_queue(site, "second", site.directory / "queue" / "second.db")
            site.settings["mailboxes"]["support"]["default_queue"] = "second"
            asking = asyncio.create_task(command(site, "reload"))
            await said(daemon, "fleet.changed", change="added", part="queue second")
            await until(daemon, lambda: site.ledger_counts("support")["settled"] == site.subjects().total())
            assert not daemon.count("fleet.changed", change="replaced")
            daemon.kill()
            assert (await asking).returncode == 69
    site.settings["mailboxes"]["support"]["port"] = dovecot.imap_port
    assert await asyncio.to_thread(site.once) == 0
    assert site.subjects() + site.subjects(second) == expected
    assert site.subjects(second)


async def test_a_mistake_in_one_mailbox_costs_that_one_alone_and_is_mended_by_a_reload(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    site.imap("wrong", dovecot.imap_port, f"{user}-wrong", pasword="secret")
    first = await asyncio.to_thread(fill, dovecot, user, "first", 2)
    second = await asyncio.to_thread(fill, dovecot, f"{user}-wrong", "second", 2)
    with site.run() as daemon:
        await said(daemon, "mailbox.refused", mailbox="wrong", kind="mailbox-lacking")
        await until(daemon, lambda: site.subjects() == first)
        assert any(
            "mailboxes.wrong.pasword" in line["reason"] for line in daemon.log if line["event"] == "config.wrong"
        )
        assert (await command(site, "check")).returncode == 78
        assert (await command(site, "reload")).returncode == 78
        forgotten = await command(site, "forget", "wrong", "--yes")
        assert forgotten.returncode != 0
        del site.settings["mailboxes"]["wrong"]["pasword"]
        assert (await command(site, "reload")).returncode == 0
        await until(daemon, lambda: site.subjects() == first + second)
        assert sessions(daemon) == {"support": 1, "wrong": 1}
        assert await stopped(daemon) == 0
