"""One mailbox lacks its secret: all others run, and it comes up when the secret is there."""

from __future__ import annotations

import asyncio

from scenarios.harness import Site
from scenarios.outage import fill, said, stopped, until
from servers.dovecot import Dovecot


async def test_a_mailbox_without_its_secret_keeps_no_other_down_and_comes_up_without_a_restart(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    secret = site.directory / "secret"
    site.imap("later", dovecot.imap_port, f"{user}-later", password=f"file:{secret}")
    first = await asyncio.to_thread(fill, dovecot, user, "first", 3)
    second = await asyncio.to_thread(fill, dovecot, f"{user}-later", "second", 3)
    with site.run(by="scenarios.hasty") as daemon:
        await said(daemon, "mailbox.refused", mailbox="later", kind="mailbox-lacking")
        await until(daemon, lambda: site.subjects() == first)
        assert any(
            str(secret) in line["reason"] and line["line"] > 1
            for line in daemon.log
            if line["event"] == "config.doubtful"
        )
        secret.write_text("")  # whoever makes it has not written it yet: no login is tried with nothing
        await asyncio.sleep(1)
        assert not daemon.count("session.opened", mailbox="later")
        secret.write_text("secret\n")
        await until(daemon, lambda: site.subjects() == first + second)
        assert await stopped(daemon) == 0
    assert {line["kind"] for line in daemon.log if line["event"] == "mailbox.refused"} == {"mailbox-lacking"}
