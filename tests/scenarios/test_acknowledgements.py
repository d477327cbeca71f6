"""Acknowledgements by the real command: a mailbox on Dovecot, a real relay, and kills around every step."""

from __future__ import annotations

import time
from email import message_from_bytes
from email.utils import formatdate
from pathlib import Path

import pytest

from scenarios.harness import Site
from scenarios.test_outbox import ask, desk, until
from servers.dovecot import Dovecot
from servers.smtp import relay_in_a_thread


def mail(number: int, *lines: str) -> bytes:
    head = (
        f"Return-Path: <ada{number}@customer.example>",
        f"Received: from mx.customer.example by mx.x.example; {formatdate()}",
        *lines,
        "From: Ada <ada@customer.example>",
        "To: support@x.example",
        "Subject: order",
        f"Message-ID: <{number}@customer.example>",
    )
    return "\r\n".join([*head, "", f"text {number}", ""]).encode()


def acknowledging(tmp_path: Path, port: int, dovecot: Dovecot, user: str) -> Site:
    site = desk(tmp_path, port)
    site.imap(
        "support", dovecot.imap_port, user, address="support@x.example", acknowledge={"text": "We have {subject}."}
    )
    return site


def test_what_comes_is_acknowledged_and_what_was_there_or_answers_is_not(
    tmp_path: Path, dovecot: Dovecot, user: str
) -> None:
    with relay_in_a_thread() as relay:
        site = acknowledging(tmp_path, relay.port, dovecot, user)
        dovecot.deliver_all(user, [mail(1)])
        with site.run() as daemon:
            daemon.until(lambda: len(site.events()) == 1)
            time.sleep(1.1)  # a server tells the second of receipt, not more
            dovecot.deliver_all(user, [mail(2), mail(3, "Auto-Submitted: auto-replied"), mail(4, "List-Id: <l.x>")])
            until(lambda: relay.received)
            # A peer that answers automatically answers our acknowledgement, as Sieve's vacation would: to nobody.
            answer = relay.received[0].octets.replace(b"auto-replied", b"auto-replied (vacation)")
            dovecot.deliver_all(user, [b"Return-Path: <>\r\n" + answer])
            dovecot.deliver_all(user, [mail(2).replace(b"text", b"again"), mail(5)])
            until(lambda: len(relay.received) == 2)
            until(lambda: ask(site, "outbox", "list", "--json").json == [])
    assert [(one.sender, one.recipients) for one in relay.received] == [
        ("<>", ("ada2@customer.example",)),
        ("<>", ("ada5@customer.example",)),
    ]
    message = message_from_bytes(relay.received[0].octets)
    assert (message["Auto-Submitted"], message["In-Reply-To"]) == ("auto-replied", "<2@customer.example>")
    assert message.get_payload() == "We have order.\r\n"


@pytest.mark.parametrize(("when", "step"), [("after", "ledger.settle"), ("after", "acknowledgements.acknowledge")])
def test_killed_at_any_step_a_sender_is_told_once(
    tmp_path: Path, dovecot: Dovecot, user: str, when: str, step: str
) -> None:
    with relay_in_a_thread() as relay:
        site = acknowledging(tmp_path, relay.port, dovecot, user)
        assert site.once() == 0  # it is switched on, and the folder known
        time.sleep(1.1)
        with site.run(kill=(when, step, 1)) as daemon:
            dovecot.deliver_all(user, [mail(1)])
            daemon.wait()
        with site.run() as daemon:
            until(lambda: relay.received)
            until(lambda: ask(site, "outbox", "list", "--json").json == [])
            daemon.until_said("service.started")
    assert {one.recipients for one in relay.received} == {("ada1@customer.example",)}
    assert len({message_from_bytes(one.octets)["Message-ID"] for one in relay.received}) == 1
    assert len(relay.received) == 1
