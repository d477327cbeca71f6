"""Whatever a server says while we log in, and however often: no secret gets into an error or a log, and every
exchange ends."""

from __future__ import annotations

import asyncio
import traceback
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mailpoller.core.component import Runtime
from mailpoller.core.errors import MailpollerError
from mailpoller.core.literals import Secret
from mailpoller.core.ports import Mail, Start
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.outgoings.smtp import SmtpConfig
from mailpoller.sources.ews.authentication import Attempt
from mailpoller.wire.oauth.endpoint import Grant
from mailpoller.wire.oauth.store import Kept
from mailpoller.wire.oauth.tokens import Token
from mailpoller.wire.proxy import Proxy
from servers.mailboxes import imap_source
from servers.pop3_mailboxes import pop3_source
from servers.scripted import Conversation, ScriptedImap
from servers.scripted_pop3 import Conversation as Pop3Conversation
from servers.scripted_pop3 import ScriptedPop3
from servers.smtp import Scripted

SECRET = "password-that-nobody-may-see"
CODED = b64encode(f"\0joe\0{SECRET}".encode()).decode()


def shown(error: BaseException, logs: object) -> str:
    """All that anybody would see of it."""
    return f"{error!r} {''.join(traceback.format_exception(error))} {logs}"


@pytest.mark.parametrize(
    "words",
    [
        "* BYE what is %E supposed to mean?",
        "* OK [ALERT] do not say %E\r\n%T NO go away",
        "* NO %E",
        "%T NO Suggested Backoff Time: 5000 milliseconds, for %E",
        "X7 OK %E",
        "%T %E",
        "%E",
        "+ %E",
    ],
)
@pytest.mark.parametrize("capabilities", ["IMAP4rev1 SASL-IR AUTH=PLAIN", "IMAP4rev1 AUTH=PLAIN", "IMAP4rev1"])
async def test_imap_server_that_repeats_what_it_heard_wherever_it_likes_makes_no_secret_visible(
    tmp_path: Path, words: str, capabilities: str
) -> None:
    async def repeat(conversation: Conversation, tag: str, arguments: str) -> bytes | None:
        said = conversation.lines[-1]
        if not arguments.endswith((CODED, f'"{SECRET}"')):
            conversation.say(b"+ \r\n")
            said = (await conversation.reader.readline()).decode().strip()
        conversation.say((words.replace("%E", said).replace("%T", tag) + "\r\n").encode())
        await asyncio.sleep(0.01)
        conversation.hang_up()
        return None

    async with ScriptedImap({"AUTHENTICATE": repeat, "LOGIN": repeat}, capabilities=capabilities) as server:
        with capture_logs() as logs, pytest.raises(MailpollerError) as caught:
            async with asyncio.timeout(5):
                await imap_source(tmp_path, server.port, "joe", password=SECRET, command_timeout="2s").connect()
    assert SECRET[:12] not in shown(caught.value, logs) and CODED[:12] not in shown(caught.value, logs)


@pytest.mark.parametrize("words", ["%E", "-ERR %E", "+ %E", "-ERR [SYS/TEMP] %E", "* %E"])
@pytest.mark.parametrize("capabilities", ["UIDL;SASL PLAIN", "UIDL;USER"])
async def test_pop3_server_that_repeats_what_it_heard_wherever_it_likes_makes_no_secret_visible(
    tmp_path: Path, words: str, capabilities: str
) -> None:
    def repeat(conversation: Pop3Conversation, arguments: str) -> bytes:
        said = server.lines[-1]
        return (words.replace("%E", said) + "\r\n").encode()

    async with ScriptedPop3({"AUTH": repeat, "PASS": repeat}, capabilities=capabilities) as server:
        with capture_logs() as logs, pytest.raises(MailpollerError) as caught:
            async with asyncio.timeout(5):
                await pop3_source(tmp_path, server.port, "joe", password=SECRET, command_timeout="1s").connect()
    assert SECRET[:12] not in shown(caught.value, logs) and CODED[:12] not in shown(caught.value, logs)


@pytest.mark.parametrize(
    "words", ["%E", "500 %E", "535 %E", "421 %E", "454-%E\r\n454 %E", "334 !%E", "235-%E\r\n535 no"]
)
async def test_relay_that_repeats_what_it_heard_wherever_it_likes_makes_no_secret_visible(
    tmp_path: Path, words: str
) -> None:
    answer = words.replace("%E", f"AUTH PLAIN {CODED} {SECRET}") + "\r\n"
    config = SmtpConfig(
        type="smtp", host="localhost", tls="none", sender="m@example.com", username="joe", password=Secret(SECRET),
        timeout=timedelta(seconds=2), port=1,
    )  # fmt: skip
    async with Scripted({"AUTH": answer.encode()}, ("AUTH PLAIN",)) as relay:
        config = config.model_copy(update={"port": relay.port})
        outgoing = config.build("relay", Runtime(SystemClock(), Spool(tmp_path), tmp_path))
        with capture_logs() as logs, pytest.raises(MailpollerError) as caught:
            async with asyncio.timeout(5):
                await outgoing.send(Mail("", ("a@example.com",), b"Subject: x\r\n\r\nHello.\r\n"))
        await outgoing.close()
    assert SECRET[:12] not in shown(caught.value, logs) and CODED[:12] not in shown(caught.value, logs)


@pytest.mark.parametrize("words", ["A", "EH? what is that", "OK [PERMANENTFLAGS " + "(" * 100 + "] x"])
async def test_imap_server_that_answers_in_words_that_imap_has_not_keeps_nobody_waiting(
    tmp_path: Path, words: str
) -> None:
    async with ScriptedImap({"LOGIN": f"%T {words}\r\n".encode()}, capabilities="IMAP4rev1") as server:
        async with asyncio.timeout(5):
            try:
                session = await imap_source(tmp_path, server.port, "joe", password=SECRET).connect()
            except MailpollerError:
                return
            await session.close()


async def test_server_that_repeats_late_what_it_heard_makes_no_secret_visible(tmp_path: Path) -> None:
    def imap(conversation: Conversation, tag: str, arguments: str) -> bytes:
        heard = next(line for line in conversation.lines if "LOGIN" in line)
        return f"{heard}\r\n".encode()

    def pop3(conversation: Pop3Conversation, arguments: str) -> bytes:
        heard = next(line for line in pop3_server.lines if "PASS" in line)
        return f"{heard}\r\n".encode()

    async with (
        ScriptedImap({"SELECT": imap, "EXAMINE": imap}, capabilities="IMAP4rev1") as imap_server,
        ScriptedPop3({"UIDL": pop3, "STAT": pop3}, capabilities="UIDL;USER") as pop3_server,
    ):
        for source in (
            imap_source(tmp_path, imap_server.port, "joe", password=SECRET),
            pop3_source(tmp_path, pop3_server.port, "joe", password=SECRET),
        ):
            session = await source.connect()
            with capture_logs() as logs, pytest.raises(MailpollerError) as caught:
                async with asyncio.timeout(5):
                    folder = await session.open("INBOX")
                    async for _ in session.pending(folder, None, Start("all")):
                        pass
            assert "octets" in str(caught.value) and SECRET[:12] not in shown(caught.value, logs)


async def test_server_that_alerts_and_refuses_late_with_what_it_heard_makes_no_secret_visible(tmp_path: Path) -> None:
    words = f"* OK [ALERT] {SECRET} will expire\r\n%T NO [ALERT] not with {SECRET} or {CODED}\r\n".encode()
    async with ScriptedImap({"SELECT": words, "EXAMINE": words}, capabilities="IMAP4rev1 SASL-IR AUTH=PLAIN") as server:
        with capture_logs() as logs:
            session = await imap_source(tmp_path, server.port, "joe", password=SECRET).connect()
            with pytest.raises(MailpollerError) as caught:
                await session.open("INBOX")
            await session.close()
    assert "server.alerted" in [entry["event"] for entry in logs]
    assert SECRET[:12] not in shown(caught.value, logs) and CODED[:12] not in shown(caught.value, logs)


def test_what_holds_a_secret_shows_it_in_no_repr() -> None:
    now = datetime.now(UTC)
    for one in (
        Attempt(f"Basic {CODED}"),
        Kept(SECRET, now),
        Grant(SECRET, timedelta(hours=1), SECRET),
        Token(SECRET, 0, 1, now),
        Secret(SECRET),
        Proxy(type="http", host="localhost", port=1, username="joe", password=Secret(SECRET)),
    ):
        assert SECRET not in repr(one) and CODED not in repr(one)
