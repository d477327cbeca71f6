"""IMAP by OAuth 2.0 and the other ways to log in, on a real Dovecot that checks the tokens itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailpoller.core.errors import CredentialsRefused, TransientError
from mailpoller.core.ports import Wake
from servers.dovecot import Dovecot
from servers.mailboxes import imap_source, session_of
from servers.web import Asked, Reply, Web

SECRET = "client-secret-that-nobody-may-see"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Dovecot]:
    """Takes tokens, and passwords in every form but bare."""
    with Dovecot(oauth=True, mechanisms="plain login cram-md5 scram-sha-1 scram-sha-256") as server:
        yield server


class Provider:
    """Gives tokens that Dovecot takes, but for those that a test has spoiled."""

    def __init__(self, dovecot: Dovecot, user: str) -> None:
        self.user = user
        self.lifetime = 3600.0
        self.spoiled: list[str] = []
        self.given: list[str] = []
        self._dovecot = dovecot

    def __call__(self, asked: Asked) -> Reply:
        token = self.spoiled.pop(0) if self.spoiled else self._dovecot.token(self.user, lifetime=self.lifetime)
        self.given.append(token)
        return Reply(body={"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime})


@pytest.fixture
async def provider(guarded: Dovecot, user: str) -> AsyncIterator[tuple[Provider, Web]]:
    made = Provider(guarded, user)
    async with Web(made) as web:
        yield made, web


def settings(web: Web, **more: Any) -> dict[str, Any]:
    auth = {
        "type": "oauth2", "grant": "client_credentials", "token_url": web.url + "/token", "client_id": "app",
        "client_secret": SECRET, **more,
    }  # fmt: skip
    return {"auth": auth, "password": None}


@pytest.mark.parametrize("mechanism", ["auto", "oauthbearer", "xoauth2"])
async def test_a_token_opens_the_mailbox(
    guarded: Dovecot, provider: tuple[Provider, Web], user: str, tmp_path: Path, mechanism: str
) -> None:
    source = imap_source(tmp_path, guarded.imap_port, user, **settings(provider[1], mechanism=mechanism))
    for _ in range(2):
        async with session_of(source) as session:
            assert await session.folders() == ["INBOX"]
    assert len(provider[1].asked) == 1, "the second session had the first one's token"


@pytest.mark.parametrize("mechanism", ["oauthbearer", "xoauth2"])
async def test_a_token_that_the_server_refuses_is_replaced_once_without_a_new_connection(
    guarded: Dovecot, provider: tuple[Provider, Web], user: str, tmp_path: Path, mechanism: str
) -> None:
    given, web = provider
    given.spoiled = [guarded.token(user, lifetime=-10)]
    source = imap_source(tmp_path, guarded.imap_port, user, **settings(web, mechanism=mechanism))
    tokens = source._credentials.tokens  # type: ignore[attr-defined]
    await tokens.token()
    tokens._clock = Later(61)  # that was a minute ago
    async with session_of(source) as session:
        assert await session.folders() == ["INBOX"]
    assert len(given.given) == 2


class Later:
    """The real time, and some more."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def monotonic(self) -> float:
        return time.monotonic() + self._seconds

    def now(self) -> Any:
        from datetime import UTC, datetime

        return datetime.now(UTC) + timedelta(seconds=self._seconds)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@pytest.mark.parametrize("mechanism", ["oauthbearer", "xoauth2"])
async def test_a_mailbox_that_no_token_opens_is_a_matter_of_credentials(
    guarded: Dovecot, provider: tuple[Provider, Web], user: str, tmp_path: Path, mechanism: str
) -> None:
    given, web = provider
    source = imap_source(tmp_path, guarded.imap_port, user + "-of-another", **settings(web, mechanism=mechanism))
    with capture_logs() as logs, pytest.raises(CredentialsRefused, match="status") as caught:
        await source.connect()
    assert len(given.given) == 1, "the token was given just now: another one would be refused, too"
    stages = [stage async for stage in source.probe([])]
    assert (stages[-1].name, stages[-1].ok) == ("login", False)
    assert "check username and scopes" in stages[-1].advice
    for hidden in (given.given[0], SECRET):
        assert hidden not in f"{caught.value!r} {stages} {logs} {source.__dict__}"


async def test_the_providers_refusal_reaches_the_probe_with_what_to_do(
    guarded: Dovecot, provider: tuple[Provider, Web], user: str, tmp_path: Path
) -> None:
    _, web = provider
    words = f"AADSTS7000222: The provided client secret keys are expired: {SECRET}"
    web.answering = lambda asked: Reply(401, {"error": "invalid_client", "error_description": words})
    source = imap_source(tmp_path, guarded.imap_port, user, **settings(web))
    stage = [stage async for stage in source.probe([])][-1]
    assert (stage.name, stage.ok) == ("login", False)
    assert "AADSTS7000222" in stage.detail and "create a new one" in stage.advice
    assert SECRET not in repr(stage)


async def test_a_session_asks_to_be_renewed_before_its_token_ends(
    guarded: Dovecot, provider: tuple[Provider, Web], user: str, tmp_path: Path
) -> None:
    given, web = provider
    given.lifetime = 4.0
    source = imap_source(tmp_path, guarded.imap_port, user, **settings(web))
    began = time.monotonic()
    async with session_of(source) as session:
        await session.folders()
        assert await session.wait(timedelta(seconds=0.1)) is not Wake.RENEW
        assert await session.wait(timedelta(minutes=5)) is Wake.RENEW
    assert 2.8 < time.monotonic() - began < 4.0
    given.lifetime = 3600.0
    async with session_of(source) as session:
        await session.folders()
        assert await session.wait(timedelta(seconds=0.1)) is not Wake.RENEW
    assert len(given.given) == 2


async def test_no_token_goes_over_a_line_without_tls(tmp_path: Path, provider: tuple[Provider, Web]) -> None:
    source = imap_source(tmp_path, 143, "joe", **settings(provider[1]))
    credentials = source._credentials  # type: ignore[attr-defined]
    credentials._private = False  # as with a host that is not this machine
    with pytest.raises(TransientError, match="wants TLS"):
        await credentials.exchange({"XOAUTH2"}, encrypted=False)
    assert not provider[1].asked


# --- other ways ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mechanism", ["auto", "plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256"])
async def test_every_mechanism_logs_in_and_is_refused_with_words(
    guarded: Dovecot, user: str, tmp_path: Path, mechanism: str
) -> None:
    auth = {"auth": {"mechanism": mechanism}}
    async with session_of(imap_source(tmp_path, guarded.imap_port, user, **auth)) as session:
        assert await session.folders() == ["INBOX"]
    with pytest.raises(CredentialsRefused, match=r"AUTHENTICATIONFAILED|Authentication failed") as caught:
        await imap_source(tmp_path, guarded.imap_port, user, password="wrong-wrong", **auth).connect()
    assert "wrong-wrong" not in str(caught.value)


async def test_a_client_certificate_is_a_login_of_its_own(user: str, tmp_path: Path) -> None:
    from servers.certificates import Authority

    authority = Authority(tmp_path)
    certificate = authority.issue(user)
    extra = f"""
ssl_ca = <{authority.path}
ssl_verify_client_cert = yes
ssl_require_crl = no
auth_ssl_username_from_cert = yes
passdb {{
  driver = static
  mechanisms = external
  args = nopassword=y
}}
"""
    with Dovecot(mechanisms="plain external", extra=extra) as dovecot:
        login = {
            "auth": {"type": "external"}, "password": None, "tls": "tls", "ca_file": dovecot.ca_file,
            "client_certificate": certificate.path, "client_key": certificate.key,
        }  # fmt: skip
        async with session_of(imap_source(tmp_path, dovecot.imaps_port, user, **login)) as session:
            assert await session.folders() == ["INBOX"]
        with pytest.raises(CredentialsRefused):
            await imap_source(tmp_path, dovecot.imaps_port, "another", **login).connect()
