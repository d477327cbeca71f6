"""One folder of a mailbox turns bad while the daemon polls it: the others go on, somebody is told, and it comes back
by itself."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from scenarios.outage import command, fill, said, stopped, until
from servers.dovecot import Dovecot


@pytest.mark.parametrize("fault", ["renamed", "no right"])
async def test_a_folder_that_turns_bad_costs_the_others_nothing_and_comes_back_by_itself(
    site: Site, dovecot: Dovecot, user: str, fault: str
) -> None:
    site.settings["mailboxes"]["support"]["folders"] = ["INBOX", "Orders"]
    dovecot.create(user, "Orders")
    directory = dovecot.maildir(user, "Orders")

    def order(subject: str) -> Counter[str]:
        dovecot.deliver(user, plain(subject=subject, text="x"), "Orders")
        return Counter([subject])

    expected = fill(dovecot, user, "inbox", 2) + order("first order")
    with site.run() as daemon:
        await until(daemon, lambda: site.subjects() == expected)
        waiting = order("second order") if fault == "no right" else Counter()
        if fault == "no right":
            directory.chmod(0)
        else:
            with dovecot.client(user) as client:
                client.rename("Orders", "Aside")
        await said(daemon, "folder.failed", mailbox="support", folder="Orders")
        late = fill(dovecot, user, "inbox", 2, start=2)
        await until(daemon, lambda: site.subjects() >= expected + late)
        status = json.loads((await command(site, "status", "--json")).stdout)
        (box,) = status["mailboxes"]
        assert list(box["failing_folders"]) == ["Orders"]
        assert "Orders" in (await command(site, "status")).stdout
        assert [alarm["key"] for alarm in status["alarms"]] == ["folder-failing:support/Orders"]
        if fault == "no right":
            directory.chmod(0o700)
        else:
            with dovecot.client(user) as client:
                client.rename("Aside", "Orders")
        await said(daemon, "folder.recovered", mailbox="support", folder="Orders")
        expected += late + waiting + order("third order")
        await until(daemon, lambda: site.subjects() == expected)
        assert daemon.count("mailbox.failed") == 0
        assert daemon.count("session.opened") == 1, "the session was good all the time"
        assert daemon.count("folder.failed") == 1
        assert await stopped(daemon) == 0
