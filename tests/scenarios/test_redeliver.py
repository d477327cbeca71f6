"""Mail that is brought once more after it was moved on the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenarios.harness import Daemon, Site
from servers.command import Said, mailpoller
from servers.dovecot import Dovecot


def mail(subject: str, text: str = "text") -> bytes:
    return f"From: a@customer.example\r\nSubject: {subject}\r\nMessage-ID: <1@x>\r\n\r\n{text}\r\n".encode()


@pytest.fixture
def site(tmp_path: Path, dovecot: Dovecot, user: str) -> Site:
    site = Site(tmp_path)
    dovecot.create(user, "Erledigt & Grün")
    site.imap("support", dovecot.imap_port, user, disposition={"seen": True, "move": "Erledigt & Grün"})
    return site


def ask(site: Site, *words: str) -> Said:
    return mailpoller(*words, "--config", str(site.config))


def carried(site: Site, daemon: Daemon, dovecot: Dovecot, user: str, *mails: bytes) -> list[str]:
    """Their mids."""
    before = len(site.events())
    for one in mails:
        dovecot.deliver(user, one)
    daemon.until(lambda: len(site.events()) == before + len(mails))
    daemon.until(lambda: site.ledger_counts("support")["undisposed"] == 0)
    daemon.until(lambda: not dovecot.octets(user))
    return [one["id"] for one in site.events()[before:]]


def test_a_moved_message_is_brought_once_more_from_where_it_is(site: Site, dovecot: Dovecot, user: str) -> None:
    with site.run() as daemon:
        # Two of one size and one Message-ID, as a forger would have it: the octets alone tell which is meant.
        first, second = carried(site, daemon, dovecot, user, mail("parcel 1"), mail("parcel 2"))
        said = ask(site, "redeliver", first)
        assert said.code == 0, said.err
        assert "was found in Erledigt & Grün: delivered: support" in said.out
        events = site.events()
        assert [one["data"]["subject"] for one in events] == ["parcel 1", "parcel 2", "parcel 1"]
        again = events[-1]
        assert (again["id"], again["redelivery"], again["data"]["folder"]) == (first, 1, "INBOX")
        assert again["deliveryid"] != events[0]["deliveryid"]
        # Whoever wants it once more gets it once more, and the other message is itself.
        assert ask(site, "redeliver", first).code == 0
        assert ask(site, "redeliver", second).code == 0
        assert [one["data"]["subject"] for one in site.events()][3:] == ["parcel 1", "parcel 2"]
        assert len({one["deliveryid"] for one in site.events()}) == 5
    assert dovecot.flags(user, "Erledigt & Grün").keys() == {1, 2}


def test_what_today_is_not_delivered_is_not_brought_and_says_why(site: Site, dovecot: Dovecot, user: str) -> None:
    with site.run() as daemon:
        (mid,) = carried(site, daemon, dovecot, user, mail("parcel"))
        site.settings["rules"] = [{"name": "r", "when": {"subject": "parcel"}, "then": {"quarantine": "odd"}}]
        site.settings["mailboxes"]["support"]["rules"] = ["r"]
        assert ask(site, "reload").code == 0
        said = ask(site, "redeliver", mid)
        assert (said.code, "today's rules do not deliver it: odd" in said.out) == (65, True)
    assert len(site.events()) == 1


def test_what_is_not_there_any_more_or_was_changed_is_not_taken_for_it(site: Site, dovecot: Dovecot, user: str) -> None:
    with site.run() as daemon:
        (mid,) = carried(site, daemon, dovecot, user, mail("parcel", "text"))
        dovecot.expunge(user, "1", "Erledigt & Grün")
        dovecot.deliver(user, mail("parcel", "TEXT"), "Erledigt & Grün")
        said = ask(site, "redeliver", mid)
        assert "will be brought again at the next poll of support, if INBOX still has it" in said.out
    assert len(site.events()) == 1
