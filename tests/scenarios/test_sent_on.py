"""Rules that send mail on to an address: a delivery like any other, whatever the relay and the kill."""

from __future__ import annotations

from email import message_from_bytes
from pathlib import Path

import pytest

from scenarios.harness import Daemon, Site
from servers.command import mailpoller
from servers.ports import free_port
from servers.smtp import Received, original_in, relay_in_a_thread

PARCEL = (
    b"From: ada@customer.example\r\nTo: support@x.example\r\nSubject: parcel\r\nMessage-ID: <1@c>\r\n\r\n"
    b"Gr\xc3\xbc\xc3\x9fe\r\n"
)
PRESS = PARCEL.replace(b"parcel", b"press")
ROBOT = PARCEL.replace(b"Subject: ", b"Auto-Submitted: auto-generated\r\nSubject: ")
BOUNCE = (
    b"Return-Path: <>\r\nFrom: MAILER-DAEMON@relay.example\r\nTo: support@x.example\r\n"
    b"Subject: Undelivered Mail Returned to Sender\r\n\r\nparcel\r\n"
)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    for folder in ("new", "cur", "tmp"):
        (tmp_path / "box" / folder).mkdir(parents=True)
    site.settings["queues"]["support"]["retry_interval"] = "1s"
    site.settings["rules"] = [
        {"name": "parcels", "when": {"subject": "parcel"}, "then": {"redirect": "depot@partner.example"}},
        {"name": "press", "when": {"subject": "press"}, "then": {"forward": ["boss@x.example", "cto@x.example"]}},
        {"name": "returned", "when": {"class": "bounce"}, "then": {"redirect": "lists@partner.example"}},
    ]
    site.settings["mailboxes"]["support"] = {
        "type": "maildir", "path": str(tmp_path / "box"), "start": "all", "default_queue": "support",
        "poll_interval": "1s", "disposition": "delete", "rules": ["parcels", "press", "returned"],
    }  # fmt: skip
    return site


def by(site: Site, port: int) -> None:
    site.settings["outgoing"] = {
        "relay": {"type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none", "sender": "support@x.example"}
    }


def bring(site: Site, *mails: bytes) -> None:
    for number, mail in enumerate(mails):
        draft = site.directory / "box" / "tmp" / f"{number}.{len(mail)}.host"
        draft.write_bytes(mail)
        draft.rename(site.directory / "box" / "new" / draft.name)


def carried(site: Site, daemon: Daemon) -> None:
    daemon.until(lambda: not list((site.directory / "box" / "new").iterdir()))
    daemon.until(lambda: site.ledger_counts("support")["undisposed"] == 0)


def got(received: list[Received], address: str) -> list[Received]:
    return [one for one in received if address in one.recipients]


def test_what_a_rule_redirects_and_forwards_is_held_by_the_relay_before_the_mailbox_is_told(site: Site) -> None:
    with relay_in_a_thread() as relay:
        by(site, relay.port)
        bring(site, PARCEL, PRESS, ROBOT, BOUNCE)
        with site.run() as daemon:
            carried(site, daemon)
    (parcel,) = got(relay.received, "depot@partner.example")
    ours, theirs = parcel.octets.split(b"X-Mailpoller-Loop: 1\r\n")
    assert theirs == PARCEL
    assert parcel.sender == "support@x.example"
    fields = message_from_bytes(ours + b"\r\n")
    assert [*fields] == ["Resent-From", "Resent-To", "Resent-Date", "Resent-Message-ID"]
    assert (fields["Resent-From"], fields["Resent-To"]) == ("support@x.example", "depot@partner.example")
    (note,) = got(relay.received, "boss@x.example")
    assert note.recipients == ("boss@x.example", "cto@x.example")
    assert original_in(note.octets) == PRESS
    assert message_from_bytes(note.octets)["Subject"] == "Fwd: press"
    # Automatic mail is sent on by the rule alone that asks for its class.
    assert len(got(relay.received, "lists@partner.example")) == 1
    assert len(relay.received) == 3
    # A redirected message is nowhere else, a forwarded one is, and the automatic one stayed.
    assert site.subjects() == {"press": 1, "parcel": 1}
    assert {one["data"]["auto"] for one in site.events() if one["data"]["subject"] == "parcel"} == {"auto-submitted"}


def test_mail_waits_for_a_relay_that_is_down_and_goes_once(site: Site) -> None:
    port = free_port()
    by(site, port)
    bring(site, PARCEL, PRESS)
    with site.run() as daemon:
        daemon.until_said("queue.failed", queue="redirect:depot@partner.example")
        daemon.until(lambda: site.ledger_counts("support")["deferred"] == 2)
        assert len(list((site.directory / "box").glob("*/*.host*"))) == 2  # nobody has told the mailbox anything
        daemon.kill()
    with relay_in_a_thread(port=port) as relay, site.run() as daemon:
        carried(site, daemon)
        daemon.stop()
    assert len(relay.received) == 2
    assert site.subjects() == {"press": 1}


def test_what_comes_back_to_us_is_kept_and_goes_round_no_more(site: Site) -> None:
    with relay_in_a_thread() as relay:
        by(site, relay.port)
        bring(site, PARCEL)
        with site.run() as daemon:
            carried(site, daemon)
            bring(site, relay.received[0].octets)
            carried(site, daemon)
            held = mailpoller("quarantine", "list", "--config", str(site.config), "--json").json["messages"]
    assert [one["reason"] for one in held] == ["own-mail"]
    assert len(relay.received) == 1


def test_what_the_relay_refuses_for_good_is_in_quarantine_with_its_words(site: Site) -> None:
    with relay_in_a_thread(eight_bit=False) as relay:
        by(site, relay.port)
        bring(site, PARCEL)
        with site.run() as daemon:
            carried(site, daemon)
            held = mailpoller("quarantine", "list", "--config", str(site.config), "--json").json["messages"]
    assert [one["reason"] for one in held] == ["refused"]
    assert relay.received == []


def test_a_reload_sends_to_the_new_address_without_a_restart(site: Site) -> None:
    with relay_in_a_thread() as relay:
        by(site, relay.port)
        with site.run() as daemon:
            bring(site, PARCEL)
            carried(site, daemon)
            site.settings["rules"][0]["then"]["redirect"] = "other@partner.example"
            said = mailpoller("reload", "--config", str(site.config))
            assert said.code == 0, said.err
            bring(site, PARCEL + b"again\r\n")
            carried(site, daemon)
            told = mailpoller("status", "--config", str(site.config), "--json").json["queues"]
            assert {one["queue"] for one in told if one["queue"].startswith("redirect:")} == {
                "redirect:other@partner.example",
                "redirect:lists@partner.example",
            }
    assert [one.recipients[0] for one in relay.received] == ["depot@partner.example", "other@partner.example"]
