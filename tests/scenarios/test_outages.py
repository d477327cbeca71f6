"""Queues, relays, disks and ledgers that fail: mail waits, other mail goes on, one alert, and all comes once in the
end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mailpoller.testing.builders import auto_reply
from scenarios.harness import Daemon, Site
from scenarios.outage import (
    fill,
    full,
    locked,
    message_id_of,
    outgoing,
    remount,
    ring,
    rule,
    rung,
    said,
    small_disk,
    sqlite_queue,
    stopped,
    strikes,
    until,
)
from servers.dovecot import Dovecot
from servers.ports import free_port
from servers.proxy import FaultProxy
from servers.smtp import Relay, original_in

HASTY = "scenarios.hasty"


@pytest.fixture
async def bell(site: Site) -> AsyncIterator[Relay]:
    """The relay that alerts go by."""
    async with Relay() as relay:
        ring(site, relay)
        yield relay


@pytest.fixture
async def wire(site: Site, dovecot: Dovecot) -> AsyncIterator[FaultProxy]:
    """Between the daemon and Dovecot: it counts the octets."""
    async with FaultProxy(dovecot.imap_port) as proxy:
        site.settings["mailboxes"]["support"] |= {"port": proxy.port, "reconnect_interval": "50ms"}
        site.settings["queues"]["support"]["retry_interval"] = "100ms"
        yield proxy


def unseen(dovecot: Dovecot, user: str) -> int:
    return sum("\\Seen" not in flags for flags in dovecot.flags(user).values())


def mail_size(dovecot: Dovecot, user: str) -> int:
    return sum(len(octets) for octets in dovecot.octets(user).values())


async def all_settled(daemon: Daemon, site: Site, count: int) -> None:
    await until(
        daemon,
        lambda: site.ledger_counts("support") == {"claimed": 0, "deferred": 0, "settled": count, "undisposed": 0},
    )


async def alert_and_recovery(daemon: Daemon, bell: Relay) -> None:
    await until(daemon, lambda: len(rung(bell)) >= 2)
    first, last = rung(bell)
    assert "takes no mail" in first or "cannot be written" in first, rung(bell)
    assert "again" in last, rung(bell)


# --- relays ----------------------------------------------------------------------------------------------------------
async def test_a_dead_relay_keeps_no_mail_in_its_mailbox_and_the_notices_come_once_in_the_end(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, wire: FaultProxy
) -> None:
    port = free_port()
    outgoing(site, "relay", port)
    site.settings["quarantine"] = {
        "type": "smtp",
        "outgoing": "relay",
        "to": "quarantine@example.com",
        "retry_interval": "100ms",
    }
    robots = [auto_reply(subject=f"robot {number}", text="x" * 20_000) for number in range(5)]
    for robot in robots:
        dovecot.deliver(user, robot)
    humans = fill(dovecot, user, "human", 5)
    with site.run(by=HASTY) as daemon:
        await all_settled(daemon, site, 10)
        await said(daemon, "queue.failed", 3, queue="notices")
        await until(daemon, lambda: len(rung(bell)) == 1)
        assert Counter(site.quarantined()) == Counter(robots)
        assert unseen(dovecot, user) == 0
        daemon.kill()  # what is owed outlives us
    with site.run(by=HASTY) as daemon:
        humans += fill(dovecot, user, "human", 5, start=5)
        await all_settled(daemon, site, 15)
        async with Relay(port=port) as relay:
            await until(daemon, lambda: len(relay.received) == 5)
            await alert_and_recovery(daemon, bell)
        assert await stopped(daemon) == 0
    assert site.subjects() == humans
    assert Counter(original_in(mail.octets) for mail in relay.received) == Counter(robots)
    assert len({message_id_of(mail.octets) for mail in relay.received}) == 5
    assert Counter(site.quarantined()) == Counter(robots)


@pytest.mark.parametrize(
    ("when", "step"), [("before", "ledger.settle"), ("after", "ledger.settle"), ("before", "session.settle")]
)
async def test_killed_around_the_settlement_a_quarantined_message_is_held_once_and_told_of_once(
    site: Site, dovecot: Dovecot, user: str, when: str, step: str
) -> None:
    async with Relay() as relay:
        outgoing(site, "relay", relay.port)
        site.settings["quarantine"] = {"type": "smtp", "outgoing": "relay", "to": "quarantine@example.com"}
        robot = auto_reply()
        dovecot.deliver(user, robot)
        assert await asyncio.to_thread(site.once, kill=(when, step, 1)) < 0
        assert site.quarantined() == [robot], "it was held before the ledger was told"
        assert await asyncio.to_thread(site.once) == 0
    assert site.quarantined() == [robot]
    assert len({message_id_of(mail.octets) for mail in relay.received}) == 1
    assert unseen(dovecot, user) == 0


async def test_a_message_that_the_relay_refuses_for_good_is_in_quarantine_bit_for_bit(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    async with Relay(refuse={"END": "550 5.7.1 we do not want this"}) as relay:
        outgoing(site, "relay", relay.port)
        site.settings["quarantine"] = {"type": "smtp", "outgoing": "relay", "to": "quarantine@example.com"}
        robot = auto_reply(text="\ufffd\x7f bits\n.\n..\nFrom me\n")
        dovecot.deliver(user, robot)
        humans = fill(dovecot, user, "human", 3)
        assert await asyncio.to_thread(site.once) == 0
        humans += fill(dovecot, user, "later", 3)
        assert await asyncio.to_thread(site.once) == 0
    assert site.subjects() == humans
    assert site.quarantined() == [robot]
    assert unseen(dovecot, user) == 0
    assert relay.received == []


# --- disks -----------------------------------------------------------------------------------------------------------
async def test_a_full_disk_under_one_queue_stops_that_queue_alone(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, wire: FaultProxy, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "2m") as disk:
        small = sqlite_queue(site, "small", disk / "small.db", min_free="0MB", payload="raw")
        rule(site, "small", "small")
        first = fill(dovecot, user, "small", 1)
        with site.run(by=HASTY) as daemon:
            await until(daemon, lambda: site.subjects(small) == first)
            with full(disk):
                waiting = fill(dovecot, user, "small", 30, start=1, size=10_000)
                others = fill(dovecot, user, "other", 30)
                await until(daemon, lambda: site.subjects() == others)
                await until(daemon, lambda: len(rung(bell)) == 1)
                await said(daemon, "queue.failed", 4, queue="small")
                await until(daemon, lambda: unseen(dovecot, user) == 30)
                more = fill(dovecot, user, "other", 5, start=30)
                await until(daemon, lambda: site.subjects() == others + more)
            await until(daemon, lambda: site.subjects(small) == first + waiting)
            await all_settled(daemon, site, 66)
            await alert_and_recovery(daemon, bell)
            assert wire.down < 2.5 * mail_size(dovecot, user) + 60_000
            assert await stopped(daemon) == 0
        assert site.subjects(small) == first + waiting


async def test_a_disk_with_room_for_its_check_and_none_for_mail_is_not_filled_by_downloads(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, wire: FaultProxy, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "2m") as disk:
        small = sqlite_queue(site, "support", disk / "small.db", min_free="0MB", payload="raw")
        first = fill(dovecot, user, "small", 1)
        with site.run(by=HASTY) as daemon:
            await until(daemon, lambda: site.subjects(small) == first)
            with full(disk, left=12_288):
                waiting = fill(dovecot, user, "small", 60, start=1, size=20_000)
                await said(daemon, "queue.failed", 5, queue="support")
                assert site.subjects(small).total() < 3
            await until(daemon, lambda: site.subjects(small) == first + waiting)
            await all_settled(daemon, site, 61)
            await alert_and_recovery(daemon, bell)
            assert wire.down < 2.5 * mail_size(dovecot, user) + 60_000
            assert await stopped(daemon) == 0


async def test_a_read_only_queue_is_waited_for(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", "2m") as disk:
        small = sqlite_queue(site, "small", disk / "small.db", min_free="0MB")
        rule(site, "small", "small")
        first = fill(dovecot, user, "small", 1)
        assert await asyncio.to_thread(site.once) == 0
        remount(disk, "ro")
        waiting = fill(dovecot, user, "small", 5, start=1)
        others = fill(dovecot, user, "other", 5)
        with site.run(by=HASTY) as daemon:
            await until(daemon, lambda: site.subjects() == others)
            await until(daemon, lambda: len(rung(bell)) == 1)
            await until(daemon, lambda: unseen(dovecot, user) == 5)
            remount(disk, "rw")
            await until(daemon, lambda: site.subjects(small) == first + waiting)
            await alert_and_recovery(daemon, bell)
            await all_settled(daemon, site, 11)
            assert await stopped(daemon) == 0


# --- locks -----------------------------------------------------------------------------------------------------------
async def test_a_queue_that_another_process_keeps_locked_is_waited_for(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, tmp_path: Path
) -> None:
    path = sqlite_queue(site, "busy", tmp_path / "queue" / "busy.db", busy_timeout="50ms")
    rule(site, "busy", "busy")
    first = fill(dovecot, user, "busy", 1)
    with site.run(by=HASTY) as daemon:
        await until(daemon, lambda: site.subjects(path) == first)
        with locked(path):
            waiting = fill(dovecot, user, "busy", 10, start=1)
            others = fill(dovecot, user, "other", 10)
            await until(daemon, lambda: site.subjects() == others)
            await until(daemon, lambda: len(rung(bell)) == 1)
            await until(daemon, lambda: unseen(dovecot, user) == 10)
        await until(daemon, lambda: site.subjects(path) == first + waiting)
        await alert_and_recovery(daemon, bell)
        assert await stopped(daemon) == 0


async def test_one_of_two_queues_down_for_longer_than_a_backlog_costs_the_other_nothing(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, wire: FaultProxy, tmp_path: Path
) -> None:
    archive = sqlite_queue(site, "archive", tmp_path / "queue" / "archive.db", busy_timeout="50ms")
    rule(site, "both", "support", "archive")
    first = fill(dovecot, user, "both", 1)
    with site.run(by=HASTY) as daemon:
        await until(daemon, lambda: site.subjects(archive) == first)
        with locked(archive):
            both = fill(dovecot, user, "both", 200, start=1, size=4_000)
            others = fill(dovecot, user, "other", 200, size=4_000)
            await until(daemon, lambda: site.subjects() == first + both + others)
            await until(daemon, lambda: site.ledger_counts("support")["deferred"] == 200)
            await until(daemon, lambda: len(rung(bell)) == 1)
            await until(daemon, lambda: unseen(dovecot, user) == 200)
        await until(daemon, lambda: site.subjects(archive) == first + both)
        await all_settled(daemon, site, 401)
        await alert_and_recovery(daemon, bell)
        assert await stopped(daemon) == 0
    assert site.subjects() == first + both + others
    assert wire.down < 2.5 * mail_size(dovecot, user)
    assert unseen(dovecot, user) == 0


async def test_a_crash_loop_in_the_middle_of_an_outage_is_one_alert(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, tmp_path: Path
) -> None:
    path = sqlite_queue(site, "support", tmp_path / "queue" / "busy.db", busy_timeout="50ms")
    assert await asyncio.to_thread(site.once) == 0
    waiting = fill(dovecot, user, "busy", 1)
    with site.run() as daemon:
        await until(daemon, lambda: site.subjects(path) == waiting)
    with locked(path):
        waiting += fill(dovecot, user, "busy", 3, start=1)
        for _ in range(5):
            with site.run(by=HASTY) as daemon:
                await said(daemon, "queue.failed", 2)
                await until(daemon, lambda: rung(bell))
                daemon.kill()
        assert len(rung(bell)) == 1, rung(bell)
    with site.run(by=HASTY) as daemon:
        await until(daemon, lambda: site.subjects(path) == waiting)
        await alert_and_recovery(daemon, bell)
        assert await stopped(daemon) == 0
    assert len(rung(bell)) == 2, rung(bell)


# --- the ledger ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("left", [0, 32_768])
async def test_nothing_is_downloaded_while_the_disk_of_the_ledger_is_full(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, wire: FaultProxy, tmp_path: Path, left: int
) -> None:
    with small_disk(tmp_path / "small", "1m") as disk:
        site.settings["ledger"]["path"] = str(disk / "ledger.db")
        first = fill(dovecot, user, "message", 1)
        with site.run(by=HASTY) as daemon:
            await until(daemon, lambda: site.subjects() == first)
            with full(disk, left=left):
                waiting = fill(dovecot, user, "message", 150, start=1, size=20_000)
                await said(daemon, "mailbox.failed", 3, kind="ledger-unwritable")
                before = wire.down
                await said(daemon, "mailbox.failed", 7, kind="ledger-unwritable")
                await until(daemon, lambda: len(rung(bell)) == 1)
                assert wire.down - before < 100_000, "lists may be asked for, bodies may not"
            await until(daemon, lambda: site.subjects() == first + waiting)
            await alert_and_recovery(daemon, bell)
            assert await stopped(daemon) == 0
        assert wire.down < 2.5 * mail_size(dovecot, user)
        assert unseen(dovecot, user) == 0
    assert site.quarantined() == []


async def test_a_ledger_that_another_process_keeps_locked_stops_fetching_and_strikes_nobody(
    site: Site, dovecot: Dovecot, user: str, wire: FaultProxy
) -> None:
    first = fill(dovecot, user, "message", 1)
    with site.run(by=HASTY) as daemon:
        await until(daemon, lambda: site.subjects() == first)
        with locked(site.directory / "ledger.db"):
            waiting = fill(dovecot, user, "message", 20, start=1, size=20_000)
            await said(daemon, "mailbox.failed", kind="ledger-unwritable")
            assert wire.down < 100_000
        await until(daemon, lambda: site.subjects() == first + waiting)
        await all_settled(daemon, site, 21)
        assert strikes(site) == (0, 0)
        assert await stopped(daemon) == 0


async def test_a_ledger_that_is_moved_away_stops_fetching_until_it_is_back(
    site: Site, dovecot: Dovecot, user: str, bell: Relay, wire: FaultProxy
) -> None:
    first = fill(dovecot, user, "message", 1)
    path = site.directory / "ledger.db"
    with site.run(by=HASTY) as daemon:
        await until(daemon, lambda: site.subjects() == first)
        path.rename(path.with_name("elsewhere.db"))
        waiting = fill(dovecot, user, "message", 20, start=1, size=20_000)
        await said(daemon, "mailbox.failed", 3, kind="ledger-unwritable")
        await until(daemon, lambda: len(rung(bell)) == 1)
        assert not path.exists(), "a new ledger would deliver everything once more"
        assert wire.down < 100_000
        path.with_name("elsewhere.db").rename(path)
        await until(daemon, lambda: site.subjects() == first + waiting)
        await alert_and_recovery(daemon, bell)
        assert strikes(site) == (0, 0)
        assert await stopped(daemon) == 0
