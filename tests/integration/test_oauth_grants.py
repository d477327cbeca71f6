"""Every grant against a certified OAuth 2.0 server, and the walk through ``mailpoller oauth login``."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from mailpoller.core.errors import CredentialsRefused
from mailpoller.wire.oauth import OAuthAuth, TokenRefused
from mailpoller.wire.oauth.login import log_in
from mailpoller.wire.oauth.store import TokenFile
from mailpoller.wire.oauth.tokens import TokenSource, token_source
from servers import oauth as server_module
from servers.certificates import Authority, Issued
from servers.mailboxes import SystemClock
from servers.oauth import OAuthServer, Person

pytestmark = pytest.mark.skipif(bool(server_module.lacks()), reason=server_module.lacks() or "never")


class Quick(SystemClock):
    """The real time, but nobody waits longer than a moment."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.1))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return Authority(tmp_path_factory.mktemp("authority")).issue("signing", elliptic=False)


@pytest.fixture(scope="module")
def server(certificate: Issued) -> Iterator[OAuthServer]:
    key = x509.load_pem_x509_certificate(certificate.path.read_bytes()).public_key()
    assert isinstance(key, RSAPublicKey)
    numbers = key.public_numbers()
    with OAuthServer({"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}) as started:
        yield started


def _number(value: int) -> str:
    return urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


def source(settings: dict[str, Any], state: Path, user: str = "ada@example.com") -> TokenSource:
    return token_source(OAuthAuth.model_validate(settings).terms("imap", user), state, SystemClock())


# --- the application itself ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("client", ["posting", "basic", "signing"])
async def test_an_application_gets_a_token_for_itself(
    server: OAuthServer, certificate: Issued, tmp_path: Path, client: str
) -> None:
    more: dict[str, Any] = {
        "posting": {},
        "basic": {"client_authentication": "basic"},
        "signing": {"certificate": str(certificate.path), "certificate_key": str(certificate.key)},
    }[client]
    tokens = source(server.settings(client, "client_credentials", **more), tmp_path)
    lease = await tokens.lease()
    assert len(lease.value) > 20 and lease.lifetime == 600
    if client == "signing":
        (expiry,) = tokens.expiries()
        assert expiry == ("the certificate of signing at 127.0.0.1", certificate.ends_at.replace(microsecond=0))


async def test_a_wrong_secret_and_an_unknown_application_are_refused_with_what_to_do(
    server: OAuthServer, tmp_path: Path
) -> None:
    with pytest.raises(TokenRefused, match=r"invalid_client.*Check client_id and client_secret"):
        await source(server.settings("posting", "client_credentials", client_secret="wrong"), tmp_path).token()
    with pytest.raises(TokenRefused, match=r"invalid_client.*Check client_id and client_secret"):
        await source(server.settings("nobody", "client_credentials", client_secret="wrong"), tmp_path).token()


# --- a person --------------------------------------------------------------------------------------------------------
async def walk(server: OAuthServer, grant: str, state: Path, person: Person, **more: Any) -> TokenSource:
    """Log in as the command does."""
    tokens = source(server.settings("person", grant, **more), state)
    visits: list[asyncio.Task[str]] = []

    def tell(text: str) -> None:
        url = re.search(r"http://\S+", text)
        code = re.search(r"type in the code (\S+)", text)
        assert url is not None
        typed = {"user_code": code[1]} if code else {}
        visits.append(asyncio.create_task(asyncio.to_thread(person.visit, url[0].rstrip(","), **typed)))

    grant_ = await log_in(tokens.terms, Quick(), tell)
    await asyncio.gather(*visits)
    await tokens.adopt(grant_)
    return tokens


@pytest.mark.parametrize("grant", ["authorization_code", "device_code"])
async def test_a_person_says_yes_once_and_the_token_lives_on_by_refreshing(
    server: OAuthServer, tmp_path: Path, grant: str
) -> None:
    person = Person("ada@example.com")
    tokens = await walk(server, grant, tmp_path, person)
    first = await tokens.token()
    if grant == "authorization_code":
        assert "close this window" in person.pages[-1]
    file = TokenFile(tmp_path, client_id="person", token_url=f"{server.url}/token", owner="ada@example.com")
    seen = {first}
    refreshes = set()
    for _ in range(4):  # each uses the token that the one before has kept: an old one would end the login
        kept = file.read()
        assert kept is not None
        refreshes.add(kept.refresh_token)
        tokens._token = None
        seen.add(await tokens.token())
    assert (len(seen), len(refreshes)) == (5, 4)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


async def test_two_services_with_one_login_do_not_take_each_others_token(server: OAuthServer, tmp_path: Path) -> None:
    """Mail is read with some scopes and sent with others: two sources, one refresh token that rotates at each use."""
    await walk(server, "authorization_code", tmp_path, Person("ada@example.com"))
    reading = source(server.settings("person", "authorization_code"), tmp_path)
    sending = source(server.settings("person", "authorization_code", scopes=["offline_access", "mail"]), tmp_path)
    assert reading is not sending
    for _ in range(5):
        reading._token = sending._token = None
        await asyncio.gather(reading.token(), sending.token())


async def test_an_old_refresh_token_ends_the_login_and_the_error_says_how_to_go_on(
    server: OAuthServer, tmp_path: Path
) -> None:
    tokens = await walk(server, "authorization_code", tmp_path, Person("ada@example.com"))
    file = TokenFile(tmp_path, client_id="person", token_url=f"{server.url}/token", owner="ada@example.com")
    old = file.read()
    assert old is not None
    tokens._token = None
    await tokens.token()
    file.write(old)  # as after a restore
    tokens._token = None
    with pytest.raises(TokenRefused, match=r"invalid_grant.*mailpoller oauth login"):
        await tokens.token()


@pytest.mark.parametrize("grant", ["authorization_code", "device_code"])
async def test_a_person_may_say_no(server: OAuthServer, tmp_path: Path, grant: str) -> None:
    with pytest.raises(CredentialsRefused, match="access_denied"):
        await walk(server, grant, tmp_path, Person("ada@example.com", willing=False))
    assert not list(tmp_path.rglob("*.json"))


# --- the command -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("grant", ["authorization_code", "device_code"])
def test_the_command_walks_a_person_through_it_and_the_service_finds_the_token(
    server: OAuthServer, tmp_path: Path, grant: str
) -> None:
    config = {
        "service": {"state_directory": str(tmp_path / "state")},
        "queues": {"q": {"type": "jsonl", "path": str(tmp_path / "q.jsonl")}},
        "mailboxes": {
            "support": {
                "type": "imap", "host": "127.0.0.1", "username": "support@example.com", "default_queue": "q",
                "auth": server.settings("person", grant, owner="ada@example.com"),
            },
            "plain": {"type": "imap", "host": "127.0.0.1", "username": "u", "password": "p", "default_queue": "q"},
        },
    }  # fmt: skip
    (tmp_path / "mailpoller.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "mailpoller", "oauth", "login", "-c", str(tmp_path / "mailpoller.yaml")]
    refused = subprocess.run([*command, "plain"], capture_output=True, text=True, timeout=120, check=False)
    assert (refused.returncode, "does not log in by OAuth" in refused.stderr) == (64, True)
    unknown = subprocess.run([*command, "suport"], capture_output=True, text=True, timeout=120, check=False)
    assert (unknown.returncode, "support" in unknown.stderr) == (64, True)
    with subprocess.Popen(
        [*command, "support"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        killer = threading.Timer(40, process.kill)
        killer.start()
        assert process.stdout is not None
        said = ""
        while not re.search(r"http://\S+(\s|,)", said) or (grant == "device_code" and "code" not in said):
            line = process.stdout.readline()
            assert line, said
            said += line
        url, code = re.search(r"http://[^\s,]+", said), re.search(r"type in the code (\S+)", said)
        assert url is not None
        Person("ada@example.com").visit(url[0], **({"user_code": code[1]} if code else {}))
        said += process.stdout.read()
        killer.cancel()
    assert process.returncode == 0, said
    assert "support: ada@example.com is logged in" in said
    (kept,) = (tmp_path / "state" / "tokens").glob("*.json")
    assert kept.read_text().count("refresh_token") == 1
    tokens = source(
        server.settings("person", grant, owner="ada@example.com"), tmp_path / "state", "support@example.com"
    )
    assert asyncio.run(tokens.token())
    assert asyncio.run(tokens.token()) not in said
