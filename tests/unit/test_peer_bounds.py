"""What POP3 servers and relays can cost us is bounded, and whatever what they say makes our readers raise is named at
one place."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Mail
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.outgoings.smtp import SmtpConfig
from mailpoller.sources.pop3 import protocol as pop3
from mailpoller.wire import unasked
from mailpoller.wire.sasl.exchange import answered
from mailpoller.wire.sasl.mechanisms import Plain
from servers.smtp import Scripted
from waiting import until

MAIL = Mail("", ("a@example.com",), b"Subject: x\r\n\r\nHello.\r\n")
ERRORS = [KeyError("a secret"), struct.error("a secret"), OverflowError("a secret"), RecursionError("a secret")]


@pytest.mark.parametrize("error", ERRORS)
async def test_whatever_a_sasl_challenge_raises_is_passing_trouble_with_a_name(error: Exception) -> None:
    class Stumbling(Plain):
        async def answer(self, challenge: bytes) -> bytes:
            raise error

    with pytest.raises(TransientError, match=type(error).__name__) as caught:
        await answered(Stumbling("joe", "hush"), b"QUFB")
    assert "secret" not in str(caught.value) and caught.value.__cause__ is None


class Wire(asyncio.Transport):
    cut = False

    def abort(self) -> None:
        self.cut = True


@pytest.mark.parametrize("error", ERRORS)
async def test_whatever_a_pop3_reader_raises_ends_the_connection_with_a_name(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stumbling:
        @staticmethod
        def read(line: bytes) -> Any:
            raise error

    protocol, wire = pop3.Pop3Protocol(asyncio.get_running_loop(), 30.0), Wire()
    protocol.connection_made(wire)
    monkeypatch.setattr(pop3, "Reply", Stumbling)
    protocol.data_received(b"+OK ready\r\n")
    assert wire.cut and protocol.broken
    assert type(error).__name__ in (protocol.lost or "") and "secret" not in (protocol.lost or "")


@pytest.mark.parametrize("octets", [b"+OK and\r\n", b"x" * 9000, b"\r\n"])
async def test_pop3_server_that_speaks_unasked_is_left(octets: bytes) -> None:
    protocol, wire = pop3.Pop3Protocol(asyncio.get_running_loop(), 30.0), Wire()
    protocol.connection_made(wire)
    protocol.data_received(b"+OK ready\r\n" + octets)
    assert wire.cut


async def test_relay_that_goes_on_talking_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked, "EARLY", 10_000)

    class Talkative(Scripted):
        async def _answer(self, stage: str, usual: bytes, writer: asyncio.StreamWriter) -> bool:
            going_on = await super()._answer(stage, usual, writer)
            if stage == "END" and self.connections == 1:
                await asyncio.sleep(0.05)
                writer.write(b"250 and another thing\r\n" * 10_000)
            return going_on

    async with Talkative() as relay:
        block = {"host": "localhost", "port": relay.port, "tls": "none", "sender": "us@example.com", "keep": "10m"}
        config = SmtpConfig.model_validate({"type": "smtp", **block})
        sender = config.build("relay", Runtime(SystemClock(), Spool(Path("unused")), Path("unused")))
        try:
            await sender.send(MAIL)
            await until(lambda: not relay._conversations)  # though the line is kept
            await sender.send(MAIL)
            assert relay.connections == 2
        finally:
            await sender.close()
