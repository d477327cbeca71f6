"""What start left out is taken after all: by the real command, beside a daemon that goes on, and through kills."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scenarios.harness import Daemon, Site
from servers.command import Said, mailpoller
from servers.dovecot import Dovecot

OLD = ["old 1", "old 2", "old 3", "old 4"]


def mail(subject: str) -> bytes:
    text = f"From: ada@customer.example\r\nSubject: {subject}\r\nMessage-ID: <{subject[-1]}@x>\r\n\r\n{subject}\r\n"
    return text.encode()


@pytest.fixture
def site(tmp_path: Path, dovecot: Dovecot, user: str) -> Site:
    """A mailbox of which ``start: now`` leaves four of five days ago and one of two months ago."""
    site = Site(tmp_path)
    now = datetime.now(UTC)
    dovecot.deliver_all(user, [mail(subject) for subject in OLD], date=now - timedelta(days=5))
    dovecot.deliver(user, mail("ancient 9"), date=now - timedelta(days=60))
    site.imap("support", dovecot.imap_port, user, start="now")
    assert backfill(site).code == 75, "there is no ledger yet"
    assert site.once() == 0
    return site


def ask(site: Site, *words: str) -> Said:
    return mailpoller(*words, "--config", str(site.config))


def backfill(site: Site, *words: str) -> Said:
    return ask(site, "backfill", "support", "--since", "30d", *words)


def begun(daemon: Daemon, site: Site, dovecot: Dovecot, user: str) -> None:
    dovecot.deliver(user, mail("new 5"))
    daemon.until(lambda: site.subjects()["new 5"] == 1)


def test_backfill_takes_once_what_start_left_out_since_then_and_nothing_else(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    with site.run() as daemon:
        begun(daemon, site, dovecot, user)
        said = backfill(site, "--json")
        assert said.code == 0, said.err
        assert said.json["folders"] == [
            {"folder": "INBOX", "held": 6, "wanted": 4, "elsewhere": 0, "undated": 0, "taken": 4}
        ]
        daemon.until(lambda: len(site.events()) == 5)
        daemon.until(lambda: site.ledger_counts("support")["undisposed"] == 0)
        again = backfill(site)
        assert (again.code, again.out.splitlines()[-1]) == (0, "0 messages taken")
        dovecot.deliver(user, mail("new 6"))
        daemon.until(lambda: site.subjects()["new 6"] == 1)
        assert "backfill" in ask(site, "changes").out
        assert daemon.stop() == 0
    assert site.subjects() == dict.fromkeys([*OLD, "new 5", "new 6"], 1)
    assert not any("redelivery" in event for event in site.events()), "it was never delivered before"
    unseen = [uid for uid, flags in dovecot.flags(user).items() if "\\Seen" not in flags]
    assert unseen == [5], "the ancient one is left alone"
    assert backfill(site, "--since", "90d").code == 75, "no daemon takes it"


def test_a_dry_run_says_what_would_be_taken_and_where_it_would_go_and_changes_nothing(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    with site.run() as daemon:
        begun(daemon, site, dovecot, user)
        flags = dovecot.flags(user)
        said = backfill(site, "--dry-run")
        assert said.code == 0, said.err
        lines = said.out.splitlines()
        told = [line for line in lines if "→ support" in line and "then seen" in line]
        assert [line.split()[1] for line in told] == ["1", "2", "3", "4"]
        assert lines[-1] == "4 messages would be taken; nothing was changed"
        assert ask(site, "poll", "support").code == 0
        dovecot.deliver(user, mail("new 6"))
        daemon.until(lambda: site.subjects()["new 6"] == 1)
        assert daemon.stop() == 0
    assert site.subjects() == {"new 5": 1, "new 6": 1}
    assert {uid: found for uid, found in dovecot.flags(user).items() if uid < 6} == {
        uid: found for uid, found in flags.items() if uid < 6
    }


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_in_the_middle_it_goes_on_and_repeats_nothing(
    site: Site, dovecot: Dovecot, user: str, when: str
) -> None:
    with site.run(kill=(when, "operator.take_up", 1)) as daemon:
        begun(daemon, site, dovecot, user)
        said = backfill(site)
        assert said.code == 75
        assert "of 0 of 4 messages it is known that they were taken; the same command takes the rest" in said.err
        daemon.wait()
    with site.run() as daemon:
        daemon.until_said("session.opened")
        said = backfill(site, "--json")
        assert said.json["folders"][0]["wanted"] == {"before": 4, "after": 0}[when], "what is due is not taken again"
        daemon.until(lambda: len(site.events()) == 5)
        assert daemon.stop() == 0
    assert site.subjects() == dict.fromkeys([*OLD, "new 5"], 1)


def test_a_server_that_tells_no_dates_is_refused_and_nothing_is_taken(tmp_path: Path, user: str) -> None:
    with Dovecot(pop3=True) as server:
        site = Site(tmp_path)
        server.deliver(user, mail("old 1"))
        site.settings["mailboxes"]["support"] = {
            "type": "pop3", "host": "127.0.0.1", "port": server.pop3_port, "tls": "none", "username": user,
            "password": "secret", "default_queue": "support", "start": "now",
        }  # fmt: skip
        assert site.once() == 0
        said = backfill(site, "--dry-run")
        assert said.code == 65, said
        assert "1 message of support have no date of arrival" in said.err
    assert site.ledger_counts("support")["settled"] == 1
