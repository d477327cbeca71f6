"""Mailboxes that are not polled: of another environment, or removed from the file."""

from __future__ import annotations

import asyncio
import json

from scenarios.harness import Site
from scenarios.outage import command, fill, said, stopped, until
from servers.dovecot import Dovecot


async def test_a_mailbox_of_another_environment_is_not_polled_and_says_so_as_an_error(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    site.imap("rehearsal", dovecot.imap_port, f"{user}-test", environment="test")
    fill(dovecot, user, "real", 3)
    expected = fill(dovecot, f"{user}-test", "rehearsed", 3)
    with site.run("--environment", "test") as daemon:
        await until(daemon, lambda: site.subjects() == expected)
        (line,) = [line for line in daemon.log if line["event"] == "mailbox.not_polled"]
        assert (line["mailbox"], line["level"]) == ("support", "error")
        assert "production" in line["reason"]
        status = await command(site, "status", "--json")
        boxes = {box["mailbox"]: box for box in json.loads(status.stdout)["mailboxes"]}
        assert boxes["support"]["condition"] == "not polled"
        assert boxes["support"]["reason"] == line["reason"]
        assert boxes["rehearsal"]["condition"] != "not polled"
        assert await stopped(daemon) == 0
    assert site.subjects() == expected
    assert not any("\\Seen" in flags for flags in dovecot.flags(user).values())


async def test_a_mailbox_that_left_the_file_is_warned_about_until_it_is_forgotten(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    site.imap("old", dovecot.imap_port, f"{user}-old")
    expected = fill(dovecot, user, "message", 2) + fill(dovecot, f"{user}-old", "old", 3)
    assert await asyncio.to_thread(site.once) == 0
    assert site.subjects() == expected
    del site.settings["mailboxes"]["old"]
    with site.run() as daemon:
        await said(daemon, "mailbox.removed", mailbox="old", advice="mailpoller forget old")
        assert site.ledger_counts("old")["settled"] == 3, "what was removed by mistake can come back"
        done = await command(site, "forget", "old", "--yes")
        assert done.returncode == 0, done.stderr
        assert site.ledger_counts("old")["settled"] == 0
        refused = await command(site, "forget", "support", "--yes")
        assert refused.returncode != 0
        assert site.ledger_counts("support")["settled"] == 2
        assert await stopped(daemon) == 0
    with site.run() as daemon:
        await said(daemon, "service.started")
        await said(daemon, "session.opened")
        assert daemon.count("mailbox.removed") == 0
        assert await stopped(daemon) == 0
