"""The real command on an Exchange mailbox: killed at any step, cut, stalled and throttled, nothing is lost and nothing is twice."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from servers.exchange import Exchange, Upset, exchange
from servers.proxy import Fault, FaultProxy

COUNT = 25
STEPS = [
    ("after", "ledger.claim", 2),
    ("after", "ledger.advance", 1),
    ("during", "session.fetch", 2),
    ("after", "sink.deliver", 1),
    ("before", "session.settle", 1),
    ("after", "session.settle", 2),
]


@pytest.fixture
def server() -> Iterator[Exchange]:
    with exchange(password="hush-hush") as server:
        server.page_size = 7
        yield server


@pytest.fixture
def site(tmp_path: Path, server: Exchange) -> Site:
    """A site with one mailbox, ``support``, whose messages are marked and moved."""
    site = Site(tmp_path)
    site.settings["service"]["batch_messages"] = 10
    site.settings["mailboxes"]["support"] = {
        "type": "ews",
        "url": server.url,
        "username": "EXAMPLE\\svc",
        "password": "hush-hush",
        "default_queue": "support",
        "start": "all",
        "disposition": {"seen": True, "move": "Processed"},
        "poll_interval": "1s",
        "reconnect_interval": "1s",
        "notice_interval": "200ms",
    }
    return site


def fill(server: Exchange, count: int = COUNT) -> Counter[str]:
    for number in range(count):
        server.deliver(plain(subject=f"message {number}"))
    return Counter(f"message {number}" for number in range(count))


def assert_all_is_well(site: Site, server: Exchange, expected: Counter[str]) -> None:
    assert site.subjects() == expected
    assert server.mails() == []
    moved = server.mails("Processed")
    assert len(moved) == expected.total()
    assert all(mail.seen for mail in moved)
    counts = site.ledger_counts("support")
    assert counts == {"claimed": 0, "deferred": 0, "settled": expected.total(), "undisposed": 0}
    assert not any((site.directory / "state" / "quarantine").glob("new/*"))


@pytest.mark.parametrize(("when", "step", "number"), STEPS, ids=lambda value: str(value))
def test_killed_at_any_step_nothing_is_lost_and_nothing_is_twice(
    site: Site, server: Exchange, when: str, step: str, number: int
) -> None:
    expected = fill(server)
    assert site.once(kill=(when, step, number)) == -signal.SIGKILL
    assert site.once() == 0
    assert_all_is_well(site, server, expected)


def test_killed_and_then_told_that_the_sync_state_is_unknown_nothing_is_twice(site: Site, server: Exchange) -> None:
    site.settings["mailboxes"]["support"]["disposition"] = "seen"
    expected = fill(server)
    assert site.once(kill=("after", "session.settle", 1)) == -signal.SIGKILL
    server.forget_states()
    assert site.once() == 0
    server.forget_states()
    assert site.once() == 0
    assert site.subjects() == expected
    assert all(mail.seen for mail in server.mails())


def faults(seed: int) -> list[Fault]:
    dice = random.Random(seed)
    plan = []
    for _ in range(16):
        direction = dice.choice(("down", "down", "up"))
        reach = 6_000 if direction == "up" else dice.choice((1_500, 10_000, 60_000))
        plan.append(Fault(dice.choice(("cut", "close", "stall")), dice.randrange(reach), direction))  # type: ignore[arg-type]
    return plan


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [1, 3])
async def test_cut_stalled_throttled_and_refused_at_random(site: Site, server: Exchange, seed: int) -> None:
    dice = random.Random(seed)
    expected: Counter[str] = Counter()
    for number in range(80):
        padding = "x" * 70 + "\r\n"
        server.deliver(
            plain(subject=f"message {number}", text=padding * (1500 if number % 20 == 7 else dice.randrange(1, 200)))
        )
        expected[f"message {number}"] += 1
    async with FaultProxy(server.port, plan=faults(seed)) as proxy:
        site.settings["mailboxes"]["support"] |= {
            "url": f"http://localhost:{proxy.port}/EWS/Exchange.asmx",
            "reconnect_interval": "50ms",
            "connect_timeout": "1s",
            "command_timeout": "1s",
        }
        with site.run() as daemon:
            for turn in range(4):
                await asyncio.sleep(1)
                server.upset(None, Upset.busy(milliseconds=200), times=2)
                if turn == 2:
                    server.forget_states()
                await proxy.refuse()
                await asyncio.sleep(0.2)
                await proxy.accept()
            proxy.plan = []
            proxy.cut()
            await asyncio.to_thread(daemon.until, lambda: site.subjects().total() >= expected.total(), 90)
            await asyncio.to_thread(daemon.until, lambda: not site.ledger_counts("support")["undisposed"], 60)
            assert await asyncio.to_thread(daemon.stop) == 0
            assert daemon.count("mailbox.failed") >= 4
    assert_all_is_well(site, server, expected)


def test_news_is_fetched_long_before_the_next_poll(site: Site, server: Exchange) -> None:
    site.settings["mailboxes"]["support"]["poll_interval"] = "1h"
    with site.run() as daemon:
        daemon.until_said("session.opened")
        daemon.until(lambda: "SyncFolderItems" in server.requests)
        server.deliver(plain(subject="news"))
        daemon.until(lambda: site.subjects() == Counter(["news"]), 10)
        assert daemon.stop() == 0
    assert "hush-hush" not in daemon.said
