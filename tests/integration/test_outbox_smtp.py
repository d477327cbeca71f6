"""Replies through real relays: what each recipient's relay said, and what it gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Mail, Outgoing, Posting
from mailpoller.core.sender import Sender
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.mail.letter import letter_of
from mailpoller.mail.letter_form import letter_octets
from mailpoller.mail.letter_given import given_mail
from mailpoller.outgoings.smtp import SmtpConfig
from servers.smtp import CLOSE, Relay, Scripted

AT = datetime(2026, 11, 30, tzinfo=UTC)
SENDER = Sender("support@x.example")


def letter(*to: str) -> Mail:
    made = letter_of({"to": list(to), "subject": "Größe", "text": "Grüße"})
    octets = letter_octets(made, SENDER, message_id="<m@x.example>", at=AT)
    return Mail(SENDER.address, made.recipients, octets)


@asynccontextmanager
async def outgoing(port: int) -> AsyncIterator[Outgoing]:
    block = SmtpConfig.model_validate(
        {"type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none", "sender": "system@x.example"}
    )
    made = block.build("relay", Runtime(SystemClock(), Spool(Path("unused")), Path("unused")))
    try:
        yield made
    finally:
        await made.close()


async def said(port: int, mail: Mail) -> dict[str, str]:
    async with outgoing(port) as one:
        assert isinstance(one, Posting)
        return {address: answer.state for address, answer in (await one.post(mail)).items()}


async def test_the_envelope_sender_is_who_it_is_from() -> None:
    async with Relay() as relay:
        assert await said(relay.port, letter("ada@x.example")) == {"ada@x.example": "accepted"}
    (got,) = relay.received
    assert (got.sender, got.recipients) == ("support@x.example", ("ada@x.example",))


async def test_each_recipient_has_the_relays_own_word() -> None:
    refuse = {"RCPT bob@x.example": "451 4.7.1 greylisted", "RCPT eve@x.example": "550 5.1.1 no such user"}
    async with Relay(refuse=refuse) as relay:
        mail = letter("ada@x.example", "bob@x.example", "eve@x.example")
        assert await said(relay.port, mail) == {
            "ada@x.example": "accepted",
            "bob@x.example": "deferred",
            "eve@x.example": "refused",
        }
        # And if nobody is taken, too: he who is refused for good is not tried again.
        assert await said(relay.port, letter("bob@x.example", "eve@x.example")) == {
            "bob@x.example": "deferred",
            "eve@x.example": "refused",
        }
        assert await said(relay.port, letter("eve@x.example")) == {"eve@x.example": "refused"}


@pytest.mark.parametrize(
    ("stage", "answer", "expected"),
    [("END", "451 4.3.0 later", "deferred"), ("END", "554 5.6.0 spam", "refused"), ("END", "552 5.3.4 big", "refused")],
)
async def test_what_is_said_to_the_mail_itself_is_said_to_all(stage: str, answer: str, expected: str) -> None:
    async with Relay(refuse={stage: answer}) as relay:
        assert set((await said(relay.port, letter("ada@x.example", "bob@x.example"))).values()) == {expected}


@pytest.mark.parametrize("answer", ["451 4.3.0 not now", "550 5.7.60 not your address"])
async def test_a_refused_sender_is_the_identitys_trouble(answer: str) -> None:
    async with Relay(refuse={"MAIL": answer}) as relay:
        with pytest.raises(TransientError):
            await said(relay.port, letter("ada@x.example"))


async def test_a_relay_that_is_down_is_the_identitys_trouble() -> None:
    async with Relay() as relay:
        pass
    with pytest.raises(TransientError):
        await said(relay.port, letter("ada@x.example"))


async def test_a_relay_that_is_lost_after_the_mail_puts_it_off() -> None:
    async with Scripted({"END": CLOSE}) as relay:
        assert await said(relay.port, letter("ada@x.example")) == {"ada@x.example": "deferred"}


async def test_octets_above_127_go_as_they_are_or_in_another_encoding() -> None:
    head = "To: ada@x.example\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
    given = given_mail(f"{head}\nGrüße\n".encode())
    mail = Mail(SENDER.address, given.letter.recipients, given.octets(SENDER, message_id="<m@x.example>", at=AT))
    for eight_bit in (True, False):
        async with Relay(eight_bit=eight_bit) as relay:
            assert await said(relay.port, mail) == {"ada@x.example": "accepted"}
        (got,) = relay.received
        assert got.octets.isascii() is not eight_bit
        read = message_from_bytes(got.octets, policy=policy.default)
        assert (read.get_content().strip(), read["Message-ID"]) == ("Grüße", "<m@x.example>")


@pytest.mark.parametrize(("utf8", "expected"), [(True, "accepted"), (False, "refused")])
async def test_a_local_part_outside_ascii_needs_smtputf8(utf8: bool, expected: str) -> None:
    async with Relay(utf8=utf8) as relay:
        assert await said(relay.port, letter("bücher@x.example")) == {"bücher@x.example": expected}
    assert len(relay.received) == utf8


async def test_the_size_is_asked_before_the_mail() -> None:
    async with Relay(size_limit=100) as relay:
        assert await said(relay.port, letter("ada@x.example")) == {"ada@x.example": "refused"}


# --- reports -------------------------------------------------------------------------------------------------------
async def test_a_relay_that_offers_reports_is_told_what_we_call_the_mail_and_its_recipients() -> None:
    async with Relay(reports="offered") as relay:
        mail = replace(letter("ada+orders=1@x.example", "bob@x.example"), envelope_id="a1b2")
        assert set((await said(relay.port, mail)).values()) == {"accepted"}
        assert relay.parameters == [
            "RET=HDRS",
            "ENVID=a1b2",
            "ORCPT=rfc822;ada+2Borders+3D1@x.example",
            "ORCPT=rfc822;bob@x.example",
        ]
        await said(relay.port, letter("ada@x.example"))
    assert len(relay.parameters) == 4
    assert len(relay.received) == 2


@pytest.mark.parametrize("reports", ["", "claimed"])
async def test_a_relay_that_knows_no_reports_gets_the_mail_all_the_same(reports: Any) -> None:
    async with Relay(reports=reports) as relay, outgoing(relay.port) as one:
        assert isinstance(one, Posting)
        for number in range(2):
            mail = replace(letter("ada@x.example"), envelope_id=f"a{number}")
            assert [answer.state for answer in (await one.post(mail)).values()] == ["accepted"]
    assert (len(relay.received), relay.connections, relay.parameters) == (2, 1, [])


async def test_a_recipient_is_not_refused_for_a_report_that_a_relay_misreads_for_him_alone() -> None:
    async with Relay(reports="offered", reports_misread="bob@x.example") as relay:
        mail = replace(letter("ada@x.example", "bob@x.example"), envelope_id="a1b2")
        assert set((await said(relay.port, mail)).values()) == {"accepted"}
        only = replace(letter("bob@x.example"), envelope_id="a1b3")
        assert set((await said(relay.port, only)).values()) == {"accepted"}
    assert [one.recipients for one in relay.received] == [("ada@x.example", "bob@x.example"), ("bob@x.example",)]
    assert "ENVID=a1b3" in relay.parameters


async def test_a_refused_sender_is_no_trouble_of_reports() -> None:
    async with Relay(reports="offered", refuse={"MAIL": "501 5.1.7 no such sender"}) as relay:
        with pytest.raises(TransientError, match="no such sender"):
            await said(relay.port, replace(letter("ada@x.example"), envelope_id="a1"))
