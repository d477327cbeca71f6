"""The machine's own limits, one by one: each ends in words and an alarm, counts against no message, and is over by
itself when it is lifted.

Full disks under a queue and under the ledger, and a read-only queue, are in ``test_outages.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from scenarios import limited
from scenarios.harness import Daemon, Site
from scenarios.outage import fill, full, locked, remount, ring, rung, said, small_disk, stopped
from scenarios.outage import until as until_
from servers.dovecot import Dovecot
from servers.smtp import Relay

LARGE = 2_500_000
"""Octets of a mail that goes through the spool."""
WEEK_S = 7 * 24 * 3600.0
NOBODY = 54321
"""A user that no system has, and so one without processes."""
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
READABLE = pytest.mark.skipif(
    not all(above.stat().st_mode & 0o001 for above in Path(__file__).parents),
    reason="others cannot read this checkout",
)
MOUNTS = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk of its own")


@pytest.fixture
async def bell(site: Site) -> AsyncIterator[Relay]:
    """The relay that alerts go by."""
    async with Relay() as relay:
        ring(site, relay)
        site.settings["mailboxes"]["support"]["reconnect_interval"] = "200ms"
        site.settings["queues"]["support"]["retry_interval"] = "100ms"
        yield relay


def within(site: Site, monkeypatch: pytest.MonkeyPatch, **limits: int) -> Daemon:
    monkeypatch.setenv(limited.LIMITS, json.dumps(limits))
    return site.run(by="scenarios.limited")


def site_of_nobody(site: Site, monkeypatch: pytest.MonkeyPatch, threads: int) -> Daemon:
    daemon = within(site, monkeypatch, uid=NOBODY, NPROC=threads)
    os.chown(site.directory / "mailpoller.yaml", NOBODY, NOBODY)
    return daemon


async def until(daemon: Daemon, true) -> None:  # type: ignore[no-untyped-def]
    await until_(daemon, true, 60)


def unforeseen(daemon: Daemon) -> list[dict[str, Any]]:
    """What the daemon took for a bug of its own."""
    return [line for line in daemon.log if "exception" in line]


def unharmed(site: Site, ledger: Path | None = None) -> None:
    """Nothing was counted against a message."""
    with sqlite3.connect(f"file:{ledger or site.directory / 'ledger.db'}?mode=ro", uri=True, timeout=10) as database:
        assert database.execute("SELECT sum(strikes), sum(suspect) FROM message").fetchone() == (0, 0)
    assert site.quarantined() == []


async def all_over(daemon: Daemon, bell: Relay) -> None:
    """Every alarm that began has ended, but for the one that nobody takes from the queue: here nobody does."""

    def standing(event: str) -> set[tuple[str, str]]:
        told = [line for line in daemon.log if line.get("event") == event and line["kind"] != "queue-untaken"]
        return {(line["kind"], line["subject"]) for line in told}

    def ended() -> bool:
        raised = standing("alarm.raised")
        return bool(raised) and raised == standing("alarm.ended")

    await until(daemon, ended)
    assert rung(bell), "somebody was told"


async def test_with_sixty_four_files_sixty_mailboxes_take_turns_and_all_mail_arrives(
    site: Site, dovecot: Dovecot, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: Counter[str] = Counter()
    for number in range(60):
        name = f"{user}-{number}"
        expected += fill(dovecot, name, f"box{number}", 1)
        site.imap(f"box{number}", dovecot.imap_port, name)
    with within(site, monkeypatch, NOFILE=64) as daemon:
        await until(daemon, lambda: site.subjects() == expected)
        assert daemon.count("connections.bounded", mailboxes=61) == 1
        assert "Too many open files" not in daemon.said
        assert await stopped(daemon) == 0
    unharmed(site)


async def test_where_no_file_can_be_opened_mail_waits_in_words_and_comes_when_one_can(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fill(dovecot, user, "first", 1)
    with within(site, monkeypatch) as daemon:
        await until(daemon, lambda: site.subjects() == first)
        pid = daemon.process.pid
        limited.limit(pid, "NOFILE", 8)  # numbers that are taken for ever, so none is left whatever it closes
        mail = first + fill(dovecot, user, "small", 2) + fill(dovecot, user, "large", 3, size=LARGE)
        await until(daemon, lambda: "Too many open files" in daemon.said)
        limited.lift(pid)
        await comes(site, daemon, mail)
        assert await stopped(daemon) == 0
    unharmed(site)


async def comes(site: Site, daemon: Daemon, mail: Counter[str]) -> None:
    """What met the machine's trouble is tried again after a minute, and who is at it just now after one more."""
    site.pass_time(120)
    await until_(daemon, lambda: site.subjects() == mail, 120)


@MOUNTS
async def test_with_a_full_disk_under_the_spool_large_mail_waits_and_small_mail_goes_on(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "state", "20m") as disk:
        first = fill(dovecot, user, "first", 1)
        with within(site, monkeypatch) as daemon:
            await until(daemon, lambda: site.subjects() == first)
            with full(disk):
                small = first + fill(dovecot, user, "small", 2)
                large = fill(dovecot, user, "large", 3, size=LARGE)
                small += fill(dovecot, user, "later", 2)
                await until(daemon, lambda: site.subjects() == small)
                await until(daemon, lambda: "No space left on device" in daemon.said)
                site.pass_time(3700)
                await until(daemon, lambda: daemon.count("alarm.raised", kind="mail-stuck") == 3)
                await until(daemon, lambda: rung(bell))
            await comes(site, daemon, small + large)
            await all_over(daemon, bell)
            assert await stopped(daemon) == 0
        unharmed(site)


@MOUNTS
async def test_on_a_read_only_disk_the_daemon_says_so_and_starts_once_it_is_writable(
    site: Site, dovecot: Dovecot, user: str, tmp_path: Path
) -> None:
    """74, so systemd tries again: there is no ledger that could keep an alarm."""
    with small_disk(tmp_path / "state", "8m") as disk:
        site.settings["ledger"]["path"] = str(disk / "ledger.db")
        first = fill(dovecot, user, "first", 1)
        assert await asyncio.to_thread(site.once) == 0
        waiting = first + fill(dovecot, user, "message", 3)
        remount(disk, "ro")
        for _ in range(4):
            with site.run() as daemon:
                assert await asyncio.to_thread(daemon.wait) == 74
                assert "Read-only file system" in daemon.said or "readonly database" in daemon.said, daemon.said
        remount(disk, "rw")
        assert await asyncio.to_thread(site.once) == 0
        assert site.subjects() == waiting
        unharmed(site, disk / "ledger.db")


async def test_a_clock_that_is_a_week_ahead_and_put_right_keeps_no_mail_waiting_for_a_week(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.settings["queues"]["support"]["busy_timeout"] = "50ms"
    first = fill(dovecot, user, "first", 1)
    with within(site, monkeypatch) as daemon:
        await until(daemon, lambda: site.subjects() == first)
        site.pass_time(WEEK_S)
        ahead = first + fill(dovecot, user, "ahead", 2)
        await until(daemon, lambda: site.subjects() == ahead)
        with locked(site.queue_path):
            waiting = fill(dovecot, user, "waiting", 3)
            await said(daemon, "queue.failed", 2)
            await until(daemon, lambda: rung(bell))
            await until(daemon, lambda: site.ledger_counts("support")["deferred"] >= 1)
            site.pass_time(-WEEK_S)
        await until(daemon, lambda: site.subjects() == ahead + waiting)
        right = ahead + waiting + fill(dovecot, user, "right", 2)
        await until(daemon, lambda: site.subjects() == right)
        await all_over(daemon, bell)
        assert await stopped(daemon) == 0
    unharmed(site)


@READABLE
@ROOT
@pytest.mark.parametrize("threads", [2, 4])
async def test_where_no_thread_can_be_begun_mail_waits_in_words_and_comes_when_one_can(
    dovecot: Dovecot, user: str, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """TasksMax, as the limit of a user's processes, which root has not. With two the service cannot start: 74, so that
    systemd tries again."""
    with tempfile.TemporaryDirectory(prefix="mailpoller-test-") as name:
        site = Site(Path(name))
        site.imap("support", dovecot.imap_port, user, reconnect_interval="200ms")
        site.settings["queues"]["support"]["retry_interval"] = "100ms"
        mail = fill(dovecot, user, "message", 5) + fill(dovecot, user, "large", 3, size=LARGE)
        async with Relay() as relay:
            ring(site, relay)
            os.chown(name, NOBODY, NOBODY)
            os.chown(site.config, NOBODY, NOBODY)
            with site_of_nobody(site, monkeypatch, threads) as daemon:
                if threads == 2:
                    assert await asyncio.to_thread(daemon.wait) == 74
                    assert "no thread can be begun" in daemon.said
                    return
                await until(daemon, lambda: "no thread can be begun" in daemon.said and rung(relay))
                limited.lift(daemon.process.pid)
                await comes(site, daemon, mail)
                await all_over(daemon, relay)
                assert await stopped(daemon) == 0
                assert unforeseen(daemon) == []
            unharmed(site)


async def test_with_300_mb_of_addresses_mail_waits_in_words_and_comes_when_there_are_more(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RLIMIT_AS counts what is reserved and never used: 64 MB for each thread's heap, 8 MB for its stack. A daemon that
    uses 60 MB has reserved 570, so with 300 some threads cannot be begun."""
    mail = fill(dovecot, user, "first", 3) + fill(dovecot, user, "large", 3, size=LARGE)
    with within(site, monkeypatch, AS=300 << 20) as daemon:
        with contextlib.suppress(AssertionError):
            await until_(daemon, lambda: "no thread can be begun" in daemon.said, 5)
        limited.lift(daemon.process.pid)
        await comes(site, daemon, mail)
        assert unforeseen(daemon) == []
        assert await stopped(daemon) == 0
    unharmed(site)
