"""Logging in by POP3: which way is chosen, what travels in clear, what a refusal means, and that nothing survives
STLS."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.errors import ConfigError, CredentialsRefused, TransientError
from mailpoller.sources.pop3.authentication import authenticate
from mailpoller.sources.pop3.protocol import Pop3Protocol
from mailpoller.wire.sasl.mechanisms import OAuthBearer, XOAuth2
from servers.dovecot import self_signed
from servers.mailboxes import session_of
from servers.pop3_mailboxes import pop3_source
from servers.scripted_pop3 import Conversation, Reply, ScriptedPop3

STAMP = "<1896.697170952@dbc.mtview.ca.us>"


async def log_in(directory: Path, server: ScriptedPop3, **settings: Any) -> list[str]:
    """Log in and out; what the client has said before QUIT, but for CAPA."""
    async with session_of(pop3_source(directory, server.port, "joe", **settings)):
        pass
    return [line for line in server.lines if line not in ("CAPA", "QUIT")]


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_user_and_pass_where_the_server_has_nothing_better(tmp_path: Path) -> None:
    async with ScriptedPop3() as server:
        assert await log_in(tmp_path, server, password="two words") == ["USER joe", "PASS two words"]


async def test_plain_goes_in_one_line_and_a_long_password_in_two(tmp_path: Path) -> None:
    def auth(conversation: Conversation, arguments: str) -> bytes:
        if arguments == "PLAIN":
            conversation.conversing = lambda line: b"+OK\r\n"
            return b"+ \r\n"
        return b"+OK\r\n"

    for password, two in (("secret", False), ("p" * 200, True)):
        async with ScriptedPop3({"AUTH": auth}, capabilities="UIDL;SASL PLAIN LOGIN") as server:
            message = coded(f"\0joe\0{password}")
            expected = ["AUTH PLAIN", message] if two else [f"AUTH PLAIN {message}"]
            assert await log_in(tmp_path, server, password=password) == expected


async def test_apop_hides_the_password_on_a_line_without_tls(tmp_path: Path) -> None:
    digest = hashlib.md5(f"{STAMP}tanstaaf".encode()).hexdigest()
    assert digest == "c4c9334bac560ecc979e58001b3e22fb", "the example of RFC 1939"
    async with ScriptedPop3(greeting=f"+OK POP3 server ready {STAMP}\r\n".encode()) as server:
        assert await log_in(tmp_path, server, password="tanstaaf") == [f"APOP joe {digest}"]
        assert await log_in(tmp_path, server, password="x", auth={"mechanism": "user"}) != []
        assert server.lines[-3:-1] == ["USER joe", "PASS x"]


async def test_stamp_that_is_no_message_id_is_not_hashed(tmp_path: Path) -> None:
    async with ScriptedPop3(greeting=b"+OK <\x01\xff@x> <a b@c> <nothing>\r\n") as server:
        with pytest.raises(TransientError, match="no APOP"):
            await log_in(tmp_path, server, auth={"mechanism": "apop"})
        assert not server.asked("APOP")


async def test_password_is_not_sent_in_clear_unless_the_configuration_says_so_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.wire.auth.is_loopback", lambda host: False)
    for capabilities in ("UIDL;SASL PLAIN LOGIN", "UIDL;USER", None):
        async with ScriptedPop3(capabilities=capabilities) as server:
            for tls in ("none", "starttls"):
                script = {"STLS": b"-ERR what?\r\n"}
                server.script.update(script)
                with pytest.raises(TransientError, match="no password is sent in clear"):
                    await log_in(tmp_path, server, tls=tls)
            assert "secret" not in " ".join(server.lines)
            assert not (server.asked("PASS") or server.asked("AUTH"))
            await log_in(tmp_path, server, auth={"mechanism": "user"})
            assert server.asked("PASS") == ["PASS secret"]


# --- refusals ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("[AUTH] Authentication failed.", CredentialsRefused),
        ("[AUTH] try again with another password", CredentialsRefused),
        ("[SYS/PERM] account closed, see https://mail.example.com", CredentialsRefused),
        ("invalid user name or password", CredentialsRefused),
        ("", CredentialsRefused),
        ("[SYS/TEMP] internal failure", TransientError),
        ("[IN-USE] maildrop is locked", TransientError),
        ("maildrop already locked by another session", TransientError),
        ("too many simultaneous connections", TransientError),
        ("Server Unavailable. 21", TransientError),
    ],
)
async def test_refusal_is_sorted_by_its_code_then_by_its_words_and_quoted(
    tmp_path: Path, words: str, error: type
) -> None:
    async with ScriptedPop3({"PASS": f"-ERR {words}\r\n".encode()}) as server:
        with pytest.raises(error) as caught:
            await log_in(tmp_path, server)
        assert words in str(caught.value)


async def test_refusal_that_quotes_the_password_is_masked(tmp_path: Path) -> None:
    words = f"-ERR no: secret {coded(chr(0) + 'joe' + chr(0) + 'secret')}\r\n".encode()
    for script in ({"PASS": words}, {"AUTH": words}):
        async with ScriptedPop3(script, capabilities="UIDL;SASL PLAIN" if "AUTH" in script else None) as server:
            with pytest.raises(CredentialsRefused) as caught:
                await log_in(tmp_path, server)
            assert "secret" not in str(caught.value)
            assert coded("\0joe\0secret") not in str(caught.value)


async def test_password_with_a_line_end_is_not_sent_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("se\ncret\n")
    async with ScriptedPop3() as server:
        with pytest.raises(ConfigError, match="line ends"):
            await log_in(tmp_path, server, password=f"file:{tmp_path}/password")
        assert not server.asked("CRET")


# --- tokens --------------------------------------------------------------------------------------------------------
async def spoken_to(server: ScriptedPop3) -> Pop3Protocol:
    """A connection that is past the greeting."""
    loop = asyncio.get_running_loop()
    protocol = Pop3Protocol(loop, 5)
    await loop.create_connection(lambda: protocol, "127.0.0.1", server.port)
    await protocol.greeting.answer(protocol)
    return protocol


async def test_token_goes_in_two_lines_as_microsoft_wants_it(tmp_path: Path) -> None:
    def auth(conversation: Conversation, arguments: str) -> bytes:
        if " " in arguments:
            return b"-ERR Protocol error. 14\r\n"
        conversation.conversing = lambda line: b"+OK User successfully authenticated\r\n"
        return b"+ \r\n"

    async with ScriptedPop3({"AUTH": auth}) as server:
        protocol = await spoken_to(server)
        await authenticate(protocol, XOAuth2("joe@example.com", "t" * 1500))
        assert server.lines == ["AUTH XOAUTH2", coded(f"user=joe@example.com\1auth=Bearer {'t' * 1500}\1\1")]
        protocol.lose("done")


@pytest.mark.parametrize(
    ("exchange", "farewell"), [(XOAuth2, ""), (OAuthBearer, coded("\1"))], ids=["xoauth2", "oauthbearer"]
)
async def test_refused_token_is_answered_and_its_reason_shown(exchange: Callable[..., Any], farewell: str) -> None:
    reason = coded('{"status": "401", "schemes": "bearer", "scope": "mail"}')

    def auth(conversation: Conversation, arguments: str) -> bytes:
        conversation.conversing = lambda line: b"-ERR [AUTH] no\r\n" if line == farewell else b"-ERR confused\r\n"
        return f"+ {reason}\r\n".encode()

    made = exchange("joe", "short") if exchange is XOAuth2 else exchange("joe", "short", "h", 1)
    async with ScriptedPop3({"AUTH": auth}) as server:
        protocol = await spoken_to(server)
        with pytest.raises(CredentialsRefused, match=r"\[AUTH\] no \(.*401.*mail"):
            await authenticate(protocol, made)
        protocol.lose("done")


async def test_challenge_that_is_none_ends_the_exchange(tmp_path: Path) -> None:
    def auth(conversation: Conversation, arguments: str) -> bytes:
        conversation.conversing = lambda line: b"-ERR cancelled\r\n" if line == "*" else b"+OK\r\n"
        return b"+ !!!not base64!!!\r\n"

    async with ScriptedPop3({"AUTH": auth}, capabilities="UIDL;SASL CRAM-MD5") as server:
        with pytest.raises(TransientError, match="no base64"):
            await log_in(tmp_path, server)


# --- STLS ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def pem(tmp_path: Path) -> Iterator[Path]:
    certificate, key = self_signed()
    (tmp_path / "both.pem").write_bytes(certificate + key)
    yield tmp_path / "both.pem"


def upgrade(pem: Path, before: bytes = b"") -> Reply:
    """Say +OK, then ``before`` in clear, then speak TLS."""

    async def stls(conversation: Conversation, arguments: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        conversation.say(b"+OK begin\r\n" + before)
        writer = conversation.writer
        clear = writer.transport
        try:
            await writer.start_tls(context)
        finally:
            if writer.transport is None:  # asyncio leaves it so when the other side hangs up in the middle
                writer._transport = clear  # type: ignore[attr-defined]

    return stls


async def test_capabilities_are_asked_anew_after_stls(tmp_path: Path, pem: Path) -> None:
    def capa(conversation: Conversation, arguments: str) -> bytes:
        safe = "STLS" in conversation.lines
        return b"+OK\r\nUIDL\r\n" + (b"SASL PLAIN\r\n" if safe else b"STLS\r\nSASL X-EVIL\r\n") + b".\r\n"

    async with ScriptedPop3({"CAPA": capa, "STLS": upgrade(pem)}) as server:
        said = await log_in(tmp_path, server, tls="starttls-required", ca_file=str(pem))
        assert said == ["STLS", f"AUTH PLAIN {coded(chr(0) + 'joe' + chr(0) + 'secret')}"]
        assert server.lines.count("CAPA") == 2


@pytest.mark.parametrize("injected", [b"+OK injected\r\n", b"+OK inj"], ids=["line", "piece"])
async def test_what_is_said_in_clear_after_stls_ends_the_session(tmp_path: Path, pem: Path, injected: bytes) -> None:
    async with ScriptedPop3({"STLS": upgrade(pem, injected)}, capabilities="UIDL STLS") as server:
        with pytest.raises(TransientError, match=r"in clear after STLS|without having been asked"):
            await log_in(tmp_path, server, tls="starttls-required", ca_file=str(pem))
        assert not server.asked("PASS")


@pytest.mark.parametrize("capabilities", ["UIDL", "UIDL STLS", None], ids=["not-offered", "refused", "no-capa"])
async def test_required_tls_that_the_server_does_not_give_ends_the_attempt(
    tmp_path: Path, capabilities: str | None
) -> None:
    async with ScriptedPop3({"STLS": b"-ERR not today\r\n"}, capabilities=capabilities) as server:
        with pytest.raises(TransientError, match=r"TLS: the server (does not offer|refuses) STLS"):
            await log_in(tmp_path, server, tls="starttls-required")
        assert not server.asked("USER")
