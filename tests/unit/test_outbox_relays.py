"""The outbox at relays that are in trouble: nothing accepted is lost, and who has a mail does not get it again."""

from __future__ import annotations

import asyncio
from email import message_from_bytes
from pathlib import Path

import pytest
from test_outbox import ENTRY, Site

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Outgoing
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.outgoings.smtp import SmtpConfig
from servers.smtp import CLOSE, Answer, Scripted


def by(port: int, path: Path) -> Outgoing:
    block = SmtpConfig.model_validate(
        {"type": "smtp", "host": "127.0.0.1", "port": port, "tls": "none", "sender": "s@x.example", "timeout": "5s"}
    )
    return block.build("support", Runtime(SystemClock(), Spool(path / "spool"), path))


def use(site: Site, relay: Scripted) -> Outgoing:
    made = by(relay.port, site.path)
    site.postman._outgoings = {"support": made}
    return made


@pytest.mark.parametrize(
    ("stage", "answer", "again"),
    [
        ("GREETING", CLOSE, 0),
        ("GREETING", b"421 4.3.2 Going down\r\n", 0),
        ("MAIL", b"421 4.3.2 Going down\r\n", 0),
        ("MAIL", b"452 4.3.1 Insufficient system storage\r\n", 0),
        ("RCPT", b"421 4.3.2 Going down\r\n", 0),
        ("RCPT", CLOSE, 0),
        ("RCPT", b"451 4.7.1 Greylisted\r\n", 0),
        ("RCPT", b"452 4.2.2 Mailbox full\r\n", 0),
        ("DATA", b"421 4.3.2 Going down\r\n", 0),
        ("DATA", b"452 4.3.1 Insufficient system storage\r\n", 0),
        ("DATA", CLOSE, 0),
        ("END", b"452 4.3.1 Insufficient system storage\r\n", 1),
        ("END", b"451 4.7.1 Greylisted\r\n", 1),
        ("END", b"421 4.3.2 Going down\r\n", 1),
        ("END", CLOSE, 1),
    ],
)
async def test_a_relay_that_is_in_trouble_at_any_step_gets_the_mail_when_it_is_well(
    site: Site, stage: str, answer: Answer, again: int
) -> None:
    async with Scripted({stage: answer}) as relay:
        outgoing = use(site, relay)
        accepted = await site.hand_in()
        async with site.running():
            if stage == "END":
                await site.until(lambda: relay.mails)
            await site.until(lambda: relay.connections)
            await asyncio.sleep(0.2)
            assert (await site.mail(accepted["id"])).open == ("ada@x.example",)
            begun = len(relay.mails)
            assert (begun > 0) is bool(again)
            del relay.script[stage]
            await site.postman.retry(accepted["id"])
            async with asyncio.timeout(20):
                await site.done(accepted["id"])
        assert await site.states(accepted["id"]) == ["accepted"]
        assert len(relay.mails) - begun >= 1
        names = {message_from_bytes(one)["Message-ID"] for one in relay.mails}
        assert len(names) == 1  # what may have come twice can be recognised
        await outgoing.close()


async def test_a_relay_that_drips_has_the_time_that_it_needs_and_gets_the_mail_once(site: Site) -> None:
    async def drip(reader: asyncio.StreamReader) -> bytes:
        taken = b""
        while not taken.endswith(b"\r\n.\r\n"):
            taken += await reader.read(16)
            await asyncio.sleep(0.005)
        return taken

    async with Scripted(reader=drip) as relay:
        outgoing = use(site, relay)
        slow = await site.hand_in({**ENTRY, "text": "word " * 300})
        async with site.running():
            async with asyncio.timeout(20):
                await site.until(lambda: relay.connections)
                await site.until(lambda: not site.kept, seconds=20)
        assert await site.states(slow["id"]) == ["accepted"]
        assert len(relay.mails) == 1
        await outgoing.close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
