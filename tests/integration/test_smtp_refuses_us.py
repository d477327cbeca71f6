"""A relay that refuses us is a queue that is down: nothing of a mailbox is lost, quarantined or removed for it, and
it is told."""

from __future__ import annotations

import mailbox
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scenarios.harness import Site
from servers.command import Said, mailpoller
from servers.smtp import Relay, original_in, relay_in_a_thread

NULL = "550 5.1.7 the null sender is not accepted here"
REFUSALS = [
    {"MAIL": NULL},
    {"MAIL": "501 5.1.7 Syntax error in sender"},
    {"MAIL": "501 no"},
    {"MAIL": "554 5.2.252 SendAsDenied"},
    {"MAIL": "451 4.7.1 not now"},
    {"RCPT": "550 5.1.1 user unknown"},
    {"RCPT": "550 5.1.7 the null sender is not accepted here"},
    {"RCPT": "552 5.2.2 mailbox full"},
    {"RCPT": "451 4.7.1 greylisted"},
]


@pytest.fixture
def relay() -> Iterator[Relay]:
    with relay_in_a_thread(size_limit=1_000_000) as running:
        yield running


@pytest.fixture
def box(tmp_path: Path) -> mailbox.Maildir:
    made = mailbox.Maildir(tmp_path / "mail", factory=None, create=True)
    for name in ("one", "two", "three"):
        deliver(made, name)
    return made


@pytest.fixture
def site(tmp_path: Path, relay: Relay, box: mailbox.Maildir) -> Site:
    """A Maildir with three mails, which are removed when the queue, a mail address, has them."""
    site = Site(tmp_path)
    site.settings["outgoing"] = {
        "o": {
            "type": "smtp",
            "host": "127.0.0.1",
            "port": relay.port,
            "tls": "none",
            "sender": "mailpoller@example.com",
        }
    }
    site.settings["queues"] = {
        "q": {"type": "smtp", "outgoing": "o", "to": ["queue@example.com"], "retry_interval": "1s"}
    }
    site.settings["mailboxes"]["support"] = {
        "type": "maildir", "path": str(tmp_path / "mail"), "default_queue": "q", "start": "all",
        "disposition": "delete",
        "poll_interval": "1s", "reconnect_interval": "1s",
    }  # fmt: skip
    return site


def deliver(box: mailbox.Maildir, name: str) -> None:
    box.add(f"From: a@customer.example\nMessage-ID: <{name}@x>\nSubject: mail {name}\n\ntext\n".encode())


def ask(site: Site, *words: str) -> Said:
    return mailpoller(*words, "--config", str(site.config))


def stages(site: Site, part: str) -> list[dict[str, Any]]:
    return [row for row in ask(site, "check", "--live", "--json").json["stages"] if row["part"] == part]


@pytest.mark.parametrize("refuse", REFUSALS, ids=lambda one: next(f"{at} {said[:9]}" for at, said in one.items()))
def test_mail_stays_in_its_mailbox_while_the_relay_refuses_us(
    site: Site, relay: Relay, box: mailbox.Maildir, refuse: dict[str, str]
) -> None:
    relay.refuse.update(refuse)
    assert site.once() == 75
    assert len(list(box.keys())) == 3
    assert site.quarantined() == []
    (alarm,) = ask(site, "status", "--json").json["alarms"]
    assert alarm["key"] == "queue-failing:q"
    assert next(iter(refuse.values()))[:9] in alarm["summary"]
    (stage,) = stages(site, "queue q")
    assert not stage["ok"]
    if "5.1.7" in str(refuse) or "501" in str(refuse) or "5.2.252" in str(refuse):
        assert "null_sender: false" in stage["advice"]
        assert "null_sender: false" in alarm["summary"]
    relay.refuse.clear()
    assert all(row["ok"] for row in stages(site, "queue q"))
    assert site.once() == 0
    assert len(relay.received) == 3
    assert list(box.keys()) == []


def test_a_queue_that_is_refused_is_one_alarm_and_recovers_by_itself(
    site: Site, relay: Relay, box: mailbox.Maildir
) -> None:
    relay.refuse["MAIL"] = NULL
    with site.run() as daemon:
        daemon.until(lambda: daemon.count("queue.failed", queue="q") >= 3)
        status = ask(site, "status", "--json").json
        assert [(one["queue"], one["state"]) for one in status["queues"]] == [("q", "down")]
        assert [one["key"] for one in status["alarms"]] == ["queue-failing:q"]
        assert daemon.count("alarm.raised") == 1
        assert "q" in ask(site, "status").out
        assert [one["event"] for one in ask(site, "errors", "queue:q", "--json").json] == ["queue.failed"]
        assert len(list(box.keys())) == 3
        relay.refuse.clear()
        daemon.until(lambda: list(box.keys()) == [])
        daemon.until_said("alarm.ended", kind="queue-failing", subject="q")
    assert len(relay.received) == 3


def test_a_recipient_that_is_refused_beside_another_is_one_alarm_and_the_mail_is_delivered(
    site: Site, relay: Relay, box: mailbox.Maildir
) -> None:
    site.settings["queues"]["q"]["to"] = ["queue@example.com", "gone@example.org"]
    relay.refuse["RCPT gone@example.org"] = "550 5.1.1 user unknown"
    assert site.once() == 0
    assert (len(list(box.keys())), len(relay.received)) == (0, 3)
    assert site.quarantined() == []
    (alarm,) = ask(site, "status", "--json").json["alarms"]
    assert alarm["key"] == "recipient-refused:q"
    assert "(at example.org)" in alarm["summary"]
    assert "550 5.1.1 user unknown" in alarm["summary"]
    assert [one["event"] for one in ask(site, "errors", "queue:q", "--json").json] == ["queue.unserved"]
    deliver(box, "four")
    with site.run() as daemon:
        daemon.until(lambda: list(box.keys()) == [])
        daemon.until_said("queue.unserved")
        (queue,) = ask(site, "status", "--json").json["queues"]
        assert (queue["state"], list(queue["concerns"])) == ("up", ["unserved"])
        deliver(box, "five")
        daemon.until(lambda: len(relay.received) == 5)
        assert daemon.count("alarm.raised") == 0, "it stands"
        assert daemon.count("queue.unserved") == 1
        relay.refuse.clear()
        deliver(box, "six")
        daemon.until_said("alarm.ended", kind="recipient-refused", subject="q")
    assert len(relay.received) == 6


def test_null_sender_false_is_what_helps(site: Site, relay: Relay, box: mailbox.Maildir) -> None:
    class Choosy(Relay):
        async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
            if address in ("", "<>"):
                return NULL
            return await super().handle_MAIL(server, session, envelope, address, options)

    relay.__class__ = Choosy
    assert site.once() == 75
    site.settings["outgoing"]["o"]["null_sender"] = False
    assert all(row["ok"] for row in stages(site, "queue q"))
    assert site.once() == 0
    assert {one.sender for one in relay.received} == {"mailpoller@example.com"}


@pytest.mark.parametrize(
    "refuse",
    [
        {"END": "554 5.7.1 Spam"},
        {"MAIL": "552 5.3.4 too large"},
        {"MAIL": "552 too large"},
        {"MAIL": "550 5.2.3 too large"},
        {"RCPT": "550 5.6.7 address"},
    ],
    ids=lambda one: next(f"{at} {said[:9]}" for at, said in one.items()),
)
def test_a_refusal_of_the_message_is_the_messages(
    site: Site, relay: Relay, box: mailbox.Maildir, refuse: dict[str, str]
) -> None:
    relay.refuse.update(refuse)
    assert site.once() == 0
    assert list(box.keys()) == []
    assert len(site.quarantined()) == 3
    assert ask(site, "status", "--json").json["alarms"] == []


# --- quarantine by mail ----------------------------------------------------------------------------------------------
@pytest.fixture
def by_mail(site: Site) -> Site:
    """Every mail is for the quarantine, which is a mail address."""
    site.settings["quarantine"] = {
        "type": "smtp", "outgoing": "o", "to": "quarantine@example.com", "retry_interval": "1s"
    }  # fmt: skip
    site.settings["service"]["quarantine_marker"] = "mail"
    return site


def test_notices_that_are_refused_wait_with_an_alarm_and_a_line_in_status_and_keep_no_mail_in_its_mailbox(
    by_mail: Site, relay: Relay, box: mailbox.Maildir
) -> None:
    relay.refuse["MAIL"] = NULL
    with by_mail.run() as daemon:
        daemon.until(lambda: daemon.count("queue.failed", queue="notices") >= 2)
        status = ask(by_mail, "status", "--json").json
        assert ("notices", "down") in [(one["queue"], one["state"]) for one in status["queues"]]
        assert [one["key"] for one in status["alarms"]] == ["queue-failing:notices"]
        assert "notices" in ask(by_mail, "status").out
        daemon.until(lambda: list(box.keys()) == [])
        (stage,) = stages(by_mail, "notices")
        assert not stage["ok"]
        assert "null_sender: false" in stage["advice"]
        relay.refuse.clear()
        daemon.until(lambda: len(relay.received) == 3)
        daemon.until_said("alarm.ended", kind="queue-failing", subject="notices")
    assert len(by_mail.quarantined()) == 3


def test_a_notice_that_is_refused_for_good_is_told_and_so_is_the_end_of_it(
    by_mail: Site, relay: Relay, box: mailbox.Maildir
) -> None:
    relay.refuse["END"] = "554 5.7.1 Spam"
    with by_mail.run() as daemon:
        daemon.until(lambda: list(box.keys()) == [])
        daemon.until_said("alarm.raised", kind="notice-refused", subject="support")
        daemon.until(lambda: len(ask(by_mail, "errors", "support", "--json").json) == 3)
        faults = ask(by_mail, "errors", "support", "--json").json
        assert {one["event"] for one in faults} == {"notice.refused"}
        assert "554 5.7.1 Spam" in faults[0]["detail"]
        status = ask(by_mail, "status", "--json").json
        assert [one["key"] for one in status["alarms"]] == ["notice-refused:support"]
        assert "support\tnotice-refused\t" in ask(by_mail, "status").out
        assert len(by_mail.quarantined()) == 3
        relay.refuse.clear()
        deliver(box, "four")
        daemon.until_said("alarm.ended", kind="notice-refused", subject="support")


# --- several recipients ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("restart", [False, True])
def test_recipient_that_is_put_off_gets_the_mail_alone_also_after_a_restart(
    site: Site, relay: Relay, box: mailbox.Maildir, restart: bool
) -> None:
    site.settings["queues"]["q"]["to"] = ["a@example.com", "b@example.com"]
    relay.refuse["RCPT b@example.com"] = "451 4.7.1 greylisted"
    with site.run() as daemon:
        daemon.until(lambda: daemon.count("message.deferred") >= 3)
        assert len(list(box.keys())) == 3, "not everybody has it"
        assert ask(site, "status", "--json").json["alarms"] == []
        if not restart:
            relay.refuse.clear()
            daemon.until(lambda: list(box.keys()) == [])
        else:
            daemon.kill()
            relay.refuse.clear()
    if restart:
        with site.run() as daemon:
            daemon.until(lambda: list(box.keys()) == [])
    assert sorted(one.recipients for one in relay.received) == [("a@example.com",)] * 3 + [("b@example.com",)] * 3
    whole = {
        to: {original_in(one.octets) for one in relay.received if one.recipients == (to,)}
        for to in ("a@example.com", "b@example.com")
    }
    assert whole["a@example.com"] == whole["b@example.com"]
    assert list((site.directory / "state" / "recipients").iterdir()) == []


def test_check_goes_as_far_as_rcpt_for_each_recipient_and_for_those_of_alerts(site: Site, relay: Relay) -> None:
    site.settings["queues"]["q"]["to"] = ["a@example.com", "b@example.com"]
    site.settings["alerts"] = {"outgoing": "o", "to": ["ops@example.com"]}
    relay.refuse["RCPT b@example.com"] = "550 5.1.1 user unknown"
    (stage,) = stages(site, "queue q")
    assert not stage["ok"]
    assert "b@example.com: 550 5.1.1 user unknown" in stage["detail"]
    assert [row["stage"] for row in stages(site, "outgoing o")][-2:] == ["sender", "recipient"]
    assert all(row["ok"] for row in stages(site, "outgoing o"))
    relay.refuse["RCPT ops@example.com"] = "550 5.1.1 user unknown"
    assert [row["ok"] for row in stages(site, "outgoing o")][-1] is False
    assert relay.received == []
