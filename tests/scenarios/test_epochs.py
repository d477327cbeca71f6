"""Numbering that changes, hosts that change, equal octets, messages that move away and come back."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections import Counter

from mailpoller.testing.builders import plain
from scenarios.harness import PATIENCE_S, Site
from servers.dovecot import Dovecot

OLD = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def mailpoller(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A short command of the same site."""
    command = [sys.executable, "-m", "mailpoller", *arguments, "--config", str(site.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def numbered(*numbers: int) -> Counter[str]:
    return Counter(f"message {number}" for number in numbers)


def put(dovecot: Dovecot, user: str, *numbers: int, date: datetime.datetime | None = None) -> None:
    for number in numbers:
        dovecot.deliver(user, plain(subject=f"message {number}"), date=date)


def test_a_new_uidvalidity_brings_nothing_twice_and_nothing_is_missed(site: Site, dovecot: Dovecot, user: str) -> None:
    put(dovecot, user, *range(20))
    assert site.once() == 0
    put(dovecot, user, 20, 21)
    dovecot.renumber(user)
    put(dovecot, user, 22)
    assert site.once() == 0
    assert site.subjects() == numbered(*range(23))
    put(dovecot, user, 23)
    assert site.once() == 0
    assert site.subjects() == numbered(*range(24))


def test_mail_older_than_the_first_run_is_skipped_after_a_new_uidvalidity(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    site.settings["mailboxes"]["support"]["start"] = "now"
    put(dovecot, user, *range(10), date=OLD)
    assert site.once() == 0
    put(dovecot, user, 10)
    assert site.once() == 0
    dovecot.renumber(user)
    put(dovecot, user, 11)
    assert site.once() == 0
    assert site.subjects() == numbered(10, 11)


def test_much_unknown_mail_after_a_new_uidvalidity_holds_the_mailbox_until_it_is_replayed(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    site.settings["mailboxes"]["support"]["hold_above"] = 5
    put(dovecot, user, 0)
    assert site.once() == 0
    dovecot.renumber(user)
    for number in range(1, 11):
        dovecot.deliver(user, plain(subject=f"message {number}", text="x" * (50 + number)))
    with site.run() as daemon:
        daemon.until_said("mailbox.held", mailbox="support")
        daemon.until_said("alarm.raised", kind="mailbox-held")
        assert site.subjects() == numbered(0)
        answer = mailpoller(site, "accept", "support", "--replay")
        assert answer.returncode == 0, answer.stderr
        daemon.until(lambda: site.subjects() == numbered(*range(11)))
        daemon.until_said("alarm.ended", kind="mailbox-held")
        assert daemon.stop() == 0


def test_a_held_mailbox_that_is_baselined_takes_only_what_comes_later(site: Site, dovecot: Dovecot, user: str) -> None:
    site.settings["mailboxes"]["support"]["hold_above"] = 5
    put(dovecot, user, 0)
    assert site.once() == 0
    dovecot.renumber(user)
    for number in range(1, 11):
        dovecot.deliver(user, plain(subject=f"message {number}", text="x" * (50 + number)))
    assert site.once() == 75
    answer = mailpoller(site, "accept", "support", "--baseline")
    assert answer.returncode == 0, answer.stderr
    assert site.once() == 0
    put(dovecot, user, 11)
    assert site.once() == 0
    assert site.subjects() == numbered(0, 11)


def test_another_host_under_the_same_name_is_a_new_epoch_and_nothing_is_missed(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    put(dovecot, user, *range(5))
    assert site.once() == 0
    # The other host numbers its messages from 1 too, so that only the host tells them apart.
    with Dovecot() as other:
        put(other, user, *range(100, 105))
        site.settings["mailboxes"]["support"]["port"] = other.imap_port
        assert site.once() == 0
    assert site.subjects() == numbered(*range(5), *range(100, 105))


def test_two_mails_with_equal_octets_stay_two_and_the_second_says_so(site: Site, dovecot: Dovecot, user: str) -> None:
    same = plain(subject="message 1")
    dovecot.deliver_all(user, [same, same])
    assert site.once() == 0
    dovecot.deliver(user, same)
    assert site.once() == 0
    first, second, third = site.events()
    assert len({event["id"] for event in (first, second, third)}) == 3
    assert first["data"]["repeat_of"] is None
    assert second["data"]["repeat_of"] == first["id"]
    assert third["data"]["repeat_of"] in {first["id"], second["id"]}


def test_two_new_mails_with_equal_octets_stay_two_after_a_new_uidvalidity_too(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    put(dovecot, user, 1)
    assert site.once() == 0
    dovecot.renumber(user)
    dovecot.deliver_all(user, [plain(subject="message 2")] * 2)
    assert site.once() == 0
    assert site.subjects() == Counter({"message 1": 1, "message 2": 2})


def test_a_message_that_moves_away_and_back_is_a_new_message_that_says_what_it_repeats(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    put(dovecot, user, 1)
    assert site.once() == 0
    dovecot.create(user, "Elsewhere")
    dovecot.move(user, "1", "INBOX", "Elsewhere")
    assert site.once() == 0
    dovecot.move(user, "1", "Elsewhere", "INBOX")
    assert site.once() == 0
    first, second = site.events()
    assert second["data"]["repeat_of"] == first["id"]


def test_a_renamed_mailbox_keeps_its_memory(site: Site, dovecot: Dovecot, user: str) -> None:
    put(dovecot, user, *range(3))
    assert site.once() == 0
    boxes = site.settings["mailboxes"]
    boxes["helpdesk"] = {**boxes.pop("support"), "formerly": "support"}
    put(dovecot, user, 3)
    assert site.once() == 0
    assert site.subjects() == numbered(*range(4))


def test_first_run_takes_only_the_unseen_and_later_ones_are_taken_seen_or_not(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    del site.settings["mailboxes"]["support"]["start"]
    dovecot.deliver(user, plain(subject="message 0"), seen=True)
    put(dovecot, user, 1)
    assert site.once() == 0
    dovecot.deliver(user, plain(subject="message 2"), seen=True)
    assert site.once() == 0
    assert site.subjects() == numbered(1, 2)
