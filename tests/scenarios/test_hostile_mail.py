"""All the odd and hostile mail we know, in one mailbox, among innocents."""

from __future__ import annotations

import asyncio
import itertools
from datetime import datetime
from hashlib import sha256

import odd_mail
from mailpoller.testing.builders import plain
from scenarios.harness import Daemon, Site
from scenarios.outage import until
from servers.dovecot import Dovecot

SLOWEST_S = 30.0
"""Elapsed, on a machine that does other things too; the processor's second is held by the parser's own tests."""


async def test_hostile_mail_ends_delivered_or_quarantined_and_the_innocents_never_notice(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    # One message a batch, so that the log tells the time of each.
    site.settings["service"] |= {"batch_messages": 1, "memory": "128MB", "memory_per_mailbox": "64MB"}
    site.settings["queues"]["support"]["payload"] = "parsed"
    hostile = odd_mail.every()
    innocents = []

    def deliver() -> None:
        for number, octets in enumerate(hostile.values()):
            dovecot.deliver(user, octets)
            innocents.append(f"innocent {number}")
            dovecot.deliver(user, plain(subject=innocents[-1]))

    await asyncio.to_thread(deliver)
    with site.run() as daemon:
        await until(daemon, lambda: site.ledger_counts("support")["settled"] == 2 * len(hostile), 240)
        assert await asyncio.to_thread(daemon.stop) == 0
        told = [line for line in daemon.log if line["event"] in ("message.delivered", "message.quarantined")]
        assert len(told) == 2 * len(hostile)
        assert not {"watcher.crashed", "watcher.stalled", "message.unprocessable", "queue.crashed", "rule.failed"} & {
            line["event"] for line in daemon.log
        }
        assert longest(daemon) < SLOWEST_S
    subjects = site.subjects()
    assert all(subjects[innocent] == 1 for innocent in innocents)
    assert all("\\Seen" in flags for flags in dovecot.flags(user).values())
    quarantined = {sha256(octets).digest() for octets in site.quarantined()}
    as_the_server_has_them = {sha256(octets).digest() for octets in dovecot.octets(user).values()}
    assert quarantined <= as_the_server_has_them
    assert sum(subjects.values()) + len(quarantined) >= 2 * len(hostile) - 2


def longest(daemon: Daemon) -> float:
    """The longest time, in seconds, between two messages that were settled one after the other."""
    at = sorted(datetime.fromisoformat(line["at"]) for line in daemon.log if str(line["event"]).startswith("message."))
    return max((later - earlier).total_seconds() for earlier, later in itertools.pairwise(at))
