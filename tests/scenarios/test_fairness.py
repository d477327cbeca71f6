"""A mailbox with much waiting mail, and its small neighbour; more mailboxes than connections."""

from __future__ import annotations

import contextlib
import sqlite3
import time

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from servers.dovecot import Dovecot

BACKLOG = 20_000


@pytest.mark.timeout(600)
def test_new_mail_is_settled_within_two_poll_intervals_while_a_neighbour_has_a_long_backlog(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    dovecot.deliver_all(user, [plain(subject="backlog", text="x" * 300)] * BACKLOG)
    small = f"{user}-small"
    dovecot.deliver(small, plain(subject="first"))
    site.imap("small", dovecot.imap_port, small, poll_interval="1s", default_queue="other")
    site.settings["queues"]["other"] = {"type": "sqlite", "path": str(site.directory / "queue" / "other.db")}
    delays: list[float] = []
    with site.run() as daemon:
        daemon.until_said("service.started")
        daemon.until(lambda: settled(site, "small") == 1)
        daemon.until(lambda: settled(site, "support"))
        while settled(site, "support") < BACKLOG * 0.9:
            dovecot.deliver(small, plain(subject=f"new {len(delays)}"))
            began, worked = time.monotonic(), daemon.processor_s
            daemon.until(lambda: settled(site, "small") == len(delays) + 2)
            # Other work of the machine stretches the time, and not what the daemon itself does meanwhile.
            delays.append(min(time.monotonic() - began, daemon.processor_s - worked))
        daemon.until(lambda: settled(site, "support") == BACKLOG, 240)
        assert daemon.stop() == 0
    assert len(delays) >= 3
    assert max(delays) < 2.0, delays


def settled(site: Site, mailbox: str) -> int:
    """How many messages of a mailbox are settled now."""
    ledger = f"file:{site.directory / 'ledger.db'}?mode=ro"
    with contextlib.closing(sqlite3.connect(ledger, uri=True, timeout=10)) as database:
        (count,) = database.execute(
            "SELECT count(*) FROM message JOIN folder ON folder.id = message.folder "
            "WHERE mailbox = ? AND state = 'settled'",
            (mailbox,),
        ).fetchone()
    return int(count)


def test_twelve_mailboxes_over_three_connections_are_all_carried_and_never_more_are_open(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    site.settings["mailboxes"].clear()
    site.settings["service"] |= {"max_connections": 3}
    names = [f"box-{number}" for number in range(12)]
    for name in names:
        dovecot.deliver_all(f"{user}-{name}", [plain(subject=f"early {name}")] * 2)
        site.imap(name, dovecot.imap_port, f"{user}-{name}")
    with site.run("--log-level", "debug") as daemon:
        daemon.until(lambda: daemon.count("message.delivered") == 24)
        for name in names:
            dovecot.deliver(f"{user}-{name}", plain(subject=f"late {name}"))
        daemon.until(lambda: daemon.count("message.delivered") == 36)
        assert daemon.stop() == 0
    assert len(site.events()) == 36
    open_now = most = 0
    for line in daemon.log:
        open_now += {"session.opened": 1, "session.closed": -1}.get(line["event"], 0)
        most = max(most, open_now)
    assert most == 3
    assert open_now == 0
    assert daemon.count("session.yielded") >= 12
    assert daemon.count("mailbox.failed") == 0
