"""Killed at random, cut, stalled and refused at random: nothing is lost, nothing is twice, no innocent is quarantined."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from mailpoller.testing.builders import auto_reply, plain
from scenarios.harness import Site
from servers.dovecot import Dovecot, free_ports
from servers.proxy import Fault, FaultProxy
from servers.smtp import Relay


def use_relay(site: Site, port: int) -> None:
    """Quarantine by mail through a relay on ``port``."""
    site.settings["outgoing"] = {
        "relay": {"type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none", "sender": "mailpoller@example.com"}
    }
    site.settings["quarantine"] = {"type": "smtp", "outgoing": "relay", "to": "quarantine@example.com"}


@pytest.mark.timeout(300)
async def test_killed_fifty_times_in_a_row_with_a_dead_relay(site: Site, dovecot: Dovecot, user: str) -> None:
    (port,) = free_ports(1)
    use_relay(site, port)
    dice = random.Random(2026)
    humans: Counter[str] = Counter()
    robots: Counter[str] = Counter()
    for turn in range(50):
        for number in range(4):
            humans[f"human {turn}.{number}"] += 1
            dovecot.deliver(user, plain(subject=f"human {turn}.{number}"))
        if turn % 5 == 0:
            robots[f"robot {turn}"] += 1
            dovecot.deliver(user, auto_reply(subject=f"robot {turn}"))
        with site.run() as daemon:
            await asyncio.sleep(dice.uniform(0.35, 1.3))
            daemon.kill()
    async with Relay(port=port) as relay:
        assert await asyncio.to_thread(site.once, timeout=120) == 0
    assert site.subjects() == humans
    quarantined = Counter(
        name for mail in relay.received for name in (*robots, *humans) if f"Subject: {name}\r\n".encode() in mail.octets
    )
    assert set(quarantined) == set(robots)
    assert not any((site.directory / "state" / "quarantine").glob("new/*"))
    flags = dovecot.flags(user, "INBOX")
    assert len(flags) == humans.total() + robots.total()
    assert all("\\Seen" in of_one for of_one in flags.values())
    counts = site.ledger_counts("support")
    assert counts == {"claimed": 0, "deferred": 0, "settled": len(flags), "undisposed": 0}


def faults(seed: int) -> list[Fault]:
    """Two dozen connections that all fail, most of them early: that is where most steps of a conversation lie."""
    dice = random.Random(seed)
    plan = []
    for _ in range(24):
        direction = dice.choice(("down", "down", "up"))
        reach = 500 if direction == "up" else dice.choice((1_500, 30_000, 200_000))
        plan.append(Fault(dice.choice(("cut", "close", "stall")), dice.randrange(reach), direction))  # type: ignore[arg-type]
    return plan


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_cut_stalled_and_refused_at_random_points_of_the_conversation(
    site: Site, dovecot: Dovecot, user: str, seed: int
) -> None:
    dice = random.Random(seed)
    expected: Counter[str] = Counter()
    for number in range(120):
        padding = "x" * 70 + "\r\n"
        text = padding * (1500 if number % 40 == 7 else dice.randrange(1, 200))
        dovecot.deliver(user, plain(subject=f"message {number}", text=text))
        expected[f"message {number}"] += 1
    async with FaultProxy(dovecot.imap_port, plan=faults(seed)) as proxy:
        site.settings["mailboxes"]["support"] |= {
            "port": proxy.port,
            "reconnect_interval": "50ms",
            "connect_timeout": "1s",
            "command_timeout": "1s",
        }
        with site.run() as daemon:
            for _ in range(6):
                await asyncio.sleep(1)
                await proxy.refuse()
                await asyncio.sleep(0.2)
                await proxy.accept()
            proxy.plan = []
            proxy.cut()
            await asyncio.to_thread(daemon.until, lambda: site.subjects().total() >= expected.total(), 120)
            undisposed = lambda: site.ledger_counts("support")["undisposed"]  # noqa: E731
            await asyncio.to_thread(daemon.until, lambda: not undisposed(), 60)
            assert await asyncio.to_thread(daemon.stop) == 0
        assert proxy.connections > 5
    assert site.subjects() == expected
    assert not any((site.directory / "state" / "quarantine").glob("new/*"))
    assert all("\\Seen" in of_one for of_one in dovecot.flags(user, "INBOX").values())
