"""Killed at random moments: nothing is lost, nothing is twice, no innocent is quarantined."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from mailpoller.testing.builders import auto_reply, plain
from scenarios.harness import Site
from servers.dovecot import Dovecot
from servers.ports import free_port
from servers.smtp import Relay


def use_relay(site: Site, port: int) -> None:
    """Quarantine by mail through a relay on ``port``."""
    site.settings["outgoing"] = {
        "relay": {"type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none", "sender": "mailpoller@example.com"}
    }
    site.settings["quarantine"] = {"type": "smtp", "outgoing": "relay", "to": "quarantine@example.com"}


@pytest.mark.timeout(600)
async def test_killed_fifty_times_in_a_row_with_a_dead_relay(site: Site, dovecot: Dovecot, user: str) -> None:
    port = free_port()
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
        assert await asyncio.to_thread(site.once) == 0
    assert site.subjects() == humans
    quarantined = Counter(
        name for mail in relay.received for name in (*robots, *humans) if f"Subject: {name}\r\n".encode() in mail.octets
    )
    assert set(quarantined) == set(robots)
    assert sorted(b"robot" in octets for octets in site.quarantined()) == [True] * robots.total()
    flags = dovecot.flags(user, "INBOX")
    assert len(flags) == humans.total() + robots.total()
    assert all("\\Seen" in of_one for of_one in flags.values())
    counts = site.ledger_counts("support")
    assert counts == {"claimed": 0, "deferred": 0, "settled": len(flags), "undisposed": 0}
