"""SMTP by OAuth 2.0 and by SASL in one and in two lines, on a real relay that takes tokens."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import MISSING, AuthResult
from structlog.testing import capture_logs

from mailpoller.core.errors import CredentialsRefused
from mailpoller.core.ports import Mail
from mailpoller.outgoings.smtp import SmtpConfig, SmtpOutgoing
from mailpoller.wire.smtp import RelayUnavailable
from servers.mailboxes import runtime
from servers.smtp import Relay
from servers.web import Asked, Reply, Web

MAIL = Mail("", ("ops@example.com",), b"Subject: x\r\n\r\ny\r\n")
SECRET = "client-secret-that-nobody-may-see"


class TokenRelay(Relay):
    """Takes tokens by XOAUTH2; ``good`` are those it believes. Remembers how long each AUTH command was."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(users={"nobody": "nothing"}, login_in_clear=True, **settings)
        self.good: set[str] = set()
        self.tried: list[tuple[str, bool]] = []

    async def auth_XOAUTH2(self, server: Any, words: list[str]) -> AuthResult:
        along = len(words) > 1
        said = b64decode(words[1]) if along else await server.challenge_auth("")
        if said is MISSING:
            return AuthResult(success=False)
        user, token = said.decode().removesuffix("\1\1").split("\1")
        self.tried.append((token.removeprefix("auth=Bearer "), along))
        if token.removeprefix("auth=Bearer ") in self.good:
            return AuthResult(success=True, auth_data=user.removeprefix("user=").encode())
        reason = json.dumps({"status": "400", "schemes": "Bearer", "scope": "https://mail.example/"})
        assert await server.challenge_auth(reason) == b""
        return AuthResult(success=False, handled=False)


class Provider:
    def __init__(self, *tokens: str) -> None:
        self.left = list(tokens)

    def __call__(self, asked: Asked) -> Reply:
        token = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return Reply(body={"access_token": token, "token_type": "Bearer", "expires_in": 3600})


@asynccontextmanager
async def sending(relay: Relay, web: Web, state: Path) -> AsyncIterator[SmtpOutgoing]:
    auth = {
        "type": "oauth2", "grant": "client_credentials", "token_url": web.url, "client_id": "app",
        "client_secret": SECRET,
    }  # fmt: skip
    config = SmtpConfig.model_validate(
        {
            "type": "smtp",
            "host": "127.0.0.1",
            "port": relay.port,
            "tls": "none",
            "sender": "m@example.com",
            "username": "m@example.com",
            "auth": auth,
        }
    )
    outgoing = config.build("relay", runtime(state))
    assert isinstance(outgoing, SmtpOutgoing)
    try:
        yield outgoing
    finally:
        await outgoing.close()


@pytest.mark.parametrize("token", ["short", "long" * 120])
async def test_mail_is_sent_with_a_token_of_any_length(tmp_path: Path, token: str) -> None:
    async with TokenRelay() as relay, Web(Provider(token)) as web, sending(relay, web, tmp_path) as outgoing:
        relay.good = {token}
        await outgoing.send(MAIL)
        await outgoing.send(MAIL)
        assert [one.user for one in relay.received] == ["m@example.com"] * 2
        assert relay.tried == [(token, token == "short")], "a long one goes in a line of its own (RFC 4954 section 4)"
        assert len(web.asked) == 1


async def test_a_token_that_the_relay_refuses_is_replaced_once_on_the_same_connection(tmp_path: Path) -> None:
    async with TokenRelay() as relay, Web(Provider("old", "new")) as web, sending(relay, web, tmp_path) as outgoing:
        relay.good = {"new"}
        tokens = outgoing._credentials.tokens  # type: ignore[union-attr]
        assert tokens is not None
        lease = await tokens.lease()
        object.__setattr__(lease, "born", lease.born - 61)  # that was a minute ago
        await outgoing.send(MAIL)
        assert [token for token, _ in relay.tried] == ["old", "new"]
        assert relay.connections == 1


async def test_a_relay_that_takes_no_token_of_ours_says_why_and_shows_nothing(tmp_path: Path) -> None:
    token = "access-token-that-nobody-may-see"
    async with TokenRelay() as relay, Web(Provider(token)) as web, sending(relay, web, tmp_path) as outgoing:
        with capture_logs() as logs, pytest.raises(CredentialsRefused, match=r"scope https://mail\.example/") as caught:
            await outgoing.send(MAIL)
        stages = [stage async for stage in outgoing.probe()]
    assert (stages[-1].name, stages[-1].ok) == ("login", False)
    assert "check username and scopes" in stages[-1].advice
    for hidden in (token, SECRET):
        assert hidden not in f"{caught.value!r} {stages} {logs}"


async def test_a_provider_that_is_down_is_the_relays_trouble_and_not_the_mails(tmp_path: Path) -> None:
    async with (
        TokenRelay() as relay,
        Web(lambda asked: Reply(503, headers={"retry-after": "7"})) as web,
        sending(relay, web, tmp_path) as outgoing,
    ):
        with pytest.raises(RelayUnavailable, match="HTTP 503") as caught:
            await outgoing.send(MAIL)
        assert caught.value.retry_after is not None and caught.value.retry_after.total_seconds() == 7


async def test_a_relay_that_takes_no_tokens_at_all_is_told_so(tmp_path: Path) -> None:
    async with (
        Relay(users={"a": "b"}, login_in_clear=True) as relay,
        Web(Provider("t")) as web,
        sending(relay, web, tmp_path) as outgoing,
    ):
        with pytest.raises(RelayUnavailable, match="takes no tokens: it offers LOGIN, PLAIN"):
            await outgoing.send(MAIL)
