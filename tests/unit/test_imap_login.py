"""Logging in by IMAP when the server is odd, slow, dishonest or gone: every exchange ends, and no secret is shown."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mailpoller.core.errors import CredentialsRefused, MailpollerError, TransientError
from mailpoller.wire.sasl.mechanisms import OAuthBearer
from servers.mailboxes import imap_source, session_of
from servers.scripted import Conversation, ScriptedImap

SECRET = "password-that-nobody-may-see"


def b64(text: str) -> bytes:
    return b64encode(text.encode())


async def refused(tmp_path: Path, port: int, **settings: object) -> MailpollerError:
    with capture_logs() as logs, pytest.raises(MailpollerError) as caught:
        await imap_source(tmp_path, port, "joe", password=SECRET, **settings).connect()
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {logs}"
    return caught.value


async def test_without_sasl_ir_the_first_message_waits_to_be_asked_for(tmp_path: Path) -> None:
    said: list[bytes] = []

    async def ask(conversation: Conversation, tag: str, arguments: str) -> bytes:
        assert arguments == "PLAIN"
        conversation.say(b"+ \r\n")
        said.append(await conversation.reader.readline())
        return b"%T OK in\r\n"

    async with (
        ScriptedImap({"AUTHENTICATE": ask}, capabilities="IMAP4rev1 AUTH=PLAIN") as server,
        session_of(imap_source(tmp_path, server.port, "joe", password=SECRET)),
    ):
        assert b64decode(said[0]) == f"\0joe\0{SECRET}".encode()
        assert server.asked("CAPABILITY"), "what the server can do is asked anew after the login"


@pytest.mark.parametrize(
    ("challenge", "words"),
    [
        (b"+ this is no base64!\r\n", "no base64"),
        (b"+ " + b64("r=another,s=c2FsdA==,i=4096") + b"\r\n", "not one that we can use"),
        (b"+ " + b"A" * 7000 + b"\r\n", "larger than any"),
    ],
)
async def test_a_challenge_of_no_use_ends_the_exchange_in_order(tmp_path: Path, challenge: bytes, words: str) -> None:
    said: list[bytes] = []

    async def ask(conversation: Conversation, tag: str, arguments: str) -> bytes:
        conversation.say(challenge)
        said.append(await conversation.reader.readline())
        return b"%T BAD cancelled\r\n"

    async with ScriptedImap({"AUTHENTICATE": ask}, capabilities="IMAP4rev1 SASL-IR AUTH=SCRAM-SHA-256") as server:
        error = await refused(tmp_path, server.port)
    assert isinstance(error, TransientError) and words in str(error)
    assert said == [b"*\r\n"]


async def test_a_server_that_lets_us_in_without_knowing_the_password_is_left(tmp_path: Path) -> None:
    async with ScriptedImap(
        {"AUTHENTICATE": b"%T OK come in\r\n"}, capabilities="IMAP4rev1 SASL-IR AUTH=SCRAM-SHA-256"
    ) as server:
        error = await refused(tmp_path, server.port)
        assert isinstance(error, TransientError) and "without a proof" in str(error)
        assert not server.asked("SELECT") and not server.asked("LIST")


async def test_endless_challenges_end(tmp_path: Path) -> None:
    async def ask(conversation: Conversation, tag: str, arguments: str) -> bytes | None:
        for _ in range(50):
            conversation.say(b"+ \r\n")
            if (await conversation.reader.readline()) == b"*\r\n":
                return b"%T NO then not\r\n"
        return None

    async with ScriptedImap({"AUTHENTICATE": ask}, capabilities="IMAP4rev1 AUTH=LOGIN") as server:
        assert "asks for more" in str(await refused(tmp_path, server.port))


async def test_a_server_that_falls_silent_or_goes_away_during_the_exchange_is_given_up(tmp_path: Path) -> None:
    async def silent(conversation: Conversation, tag: str, arguments: str) -> bytes | None:
        conversation.say(b"+ \r\n")
        await asyncio.Event().wait()
        return None

    async def gone(conversation: Conversation, tag: str, arguments: str) -> bytes | None:
        conversation.say(b"+ \r\n")
        conversation.hang_up()
        return None

    for script in (silent, gone):
        async with ScriptedImap({"AUTHENTICATE": script}, capabilities="IMAP4rev1 AUTH=PLAIN") as server:
            async with asyncio.timeout(60):
                assert isinstance(await refused(tmp_path, server.port, command_timeout="1s"), TransientError)


@pytest.mark.parametrize("form", [SECRET, b64(f"\0joe\0{SECRET}").decode()])
async def test_a_server_that_repeats_the_password_does_not_bring_it_into_the_error(tmp_path: Path, form: str) -> None:
    answer = f"%T NO [AUTHENTICATIONFAILED] wrong: {form}\r\n".encode()
    for capabilities in ("IMAP4rev1 SASL-IR AUTH=PLAIN", "IMAP4rev1"):
        async with ScriptedImap({"AUTHENTICATE": answer, "LOGIN": answer}, capabilities=capabilities) as server:
            error = await refused(tmp_path, server.port)
        assert isinstance(error, CredentialsRefused)
        assert form not in str(error) and "wrong: ********" in str(error)


async def test_only_the_strongest_mechanism_is_tried_for_every_try_is_a_step_towards_a_locked_account(
    tmp_path: Path,
) -> None:
    capabilities = "IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=LOGIN AUTH=CRAM-MD5 AUTH=SCRAM-SHA-1"
    async with ScriptedImap({"AUTHENTICATE": b"%T NO wrong\r\n"}, capabilities=capabilities) as server:
        await refused(tmp_path, server.port)
        tried = [
            line for one in server.conversations for line in one.lines if "AUTHENTICATE" in line or "LOGIN" in line
        ]
        assert len(tried) == 1 and "SCRAM-SHA-1" in tried[0]


def test_where_a_token_is_sent_to_is_part_of_the_message() -> None:
    first = OAuthBearer("a,b=c", "t", "imap.example.com", 993).first()
    assert first == b"n,a=a=2Cb=3Dc,\1host=imap.example.com\1port=993\1auth=Bearer t\1\1"
