"""The ``auth`` block: what it refuses, what a provider fills in, and what it never shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError

from mailpoller.core.errors import ConfigError
from mailpoller.engine.clock import SystemClock
from mailpoller.outgoings.smtp import SmtpConfig
from mailpoller.sources.imap import ImapConfig
from mailpoller.wire.oauth import OAuthAuth, TokenRefused
from mailpoller.wire.oauth.advice import advice_for, code_in
from mailpoller.wire.oauth.assertion import ServiceAccount, client_assertion
from mailpoller.wire.oauth.tokens import token_source
from servers.certificates import Authority
from servers.web import Asked, Reply, Web

SECRET = "client-secret-that-nobody-may-see"


def auth(**written: Any) -> OAuthAuth:
    return OAuthAuth.model_validate({"type": "oauth2", **written})


APP = {"grant": "client_credentials", "client_id": "app", "client_secret": SECRET}
MICROSOFT = {**APP, "provider": "microsoft", "tenant": "example.com"}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({**APP}, "provider is missing: say microsoft or google, or token_url"),
        ({**APP, "provider": "google"}, "use service_account"),
        ({**APP, "provider": "microsoft"}, "wants the tenant"),
        ({**APP, "provider": "microsoft", "tenant": "common"}, "wants the tenant"),
        ({**MICROSOFT, "tenant": "a/b"}, "an id or a domain"),
        ({**MICROSOFT, "client_secret": None}, "a client_secret, or a certificate"),
        ({**MICROSOFT, "certificate": "/c"}, "exclude each other"),
        ({**MICROSOFT, "certificate_key": "/k"}, "wants a certificate"),
        ({**MICROSOFT, "client_id": None}, "wants a client_id"),
        ({**MICROSOFT, "scopes": ["a b"]}, "a scope is one word"),
        ({**MICROSOFT, "token_url": "http://login.example.com/token"}, "never go over http"),
        ({**MICROSOFT, "token_url": "https://user:pass@login.example.com/"}, "https://HOST/PATH"),
        ({**MICROSOFT, "token_url": "https:///token"}, "https://HOST/PATH"),
        ({**MICROSOFT, "token_url": "https://[/"}, "https://HOST/PATH"),
        ({"grant": "device_code", "provider": "google", "client_id": "a"}, "use authorization_code"),
        ({"grant": "service_account", "provider": "microsoft"}, "use client_credentials"),
        ({"grant": "service_account"}, "wants the key file"),
        ({"grant": "refresh_token", "provider": "google", "client_id": "a"}, "wants a refresh_token"),
        ({"grant": "authorization_code", "token_url": "https://a/", "client_id": "a"}, "wants an authorization_url"),
        ({"grant": "device_code", "token_url": "https://a/", "client_id": "a"}, "wants a device_url"),
    ],
)
def test_what_cannot_work_is_refused_with_the_way_out(written: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        auth(**written)
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("service", "cloud", "scope", "token_host"),
    [
        ("imap", "global", "https://outlook.office365.com/.default", "login.microsoftonline.com"),
        ("ews", "global", "https://outlook.office365.com/.default", "login.microsoftonline.com"),
        ("graph", "global", "https://graph.microsoft.com/.default", "login.microsoftonline.com"),
        ("graph", "us-gov", "https://graph.microsoft.us/.default", "login.microsoftonline.us"),
        ("graph", "us-dod", "https://dod-graph.microsoft.us/.default", "login.microsoftonline.us"),
        ("imap", "china", "https://partner.outlook.cn/.default", "login.partner.microsoftonline.cn"),
    ],
)
def test_microsoft_is_filled_in_for_every_service_and_cloud(
    service: Any, cloud: str, scope: str, token_host: str
) -> None:
    terms = auth(**MICROSOFT, cloud=cloud).terms(service, "support@example.com")
    assert terms.scopes == (scope,)
    assert terms.endpoints.token == f"https://{token_host}/example.com/oauth2/v2.0/token"
    assert terms.owner == "", "a token of the application's own serves every mailbox"


@pytest.mark.parametrize(
    ("service", "scope"),
    [
        ("imap", "https://outlook.office.com/IMAP.AccessAsUser.All"),
        ("pop3", "https://outlook.office.com/POP.AccessAsUser.All"),
        ("smtp", "https://outlook.office.com/SMTP.Send"),
        ("graph", "https://graph.microsoft.com/Mail.ReadWrite"),
    ],
)
def test_a_person_is_asked_for_what_the_service_needs_and_for_a_refresh_token(service: Any, scope: str) -> None:
    terms = auth(provider="microsoft", grant="device_code", client_id="app").terms(service, "ada@example.com")
    assert terms.scopes[0] == scope and terms.scopes[-1] == "offline_access"
    assert terms.endpoints.device == "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode"
    assert terms.owner == "ada@example.com"


def test_google_is_filled_in() -> None:
    person = auth(provider="google", grant="authorization_code", client_id="app", client_secret=SECRET)
    assert person.terms("imap", "a").scopes == ("https://mail.google.com/",)
    assert person.terms("gmail", "a").scopes == ("https://www.googleapis.com/auth/gmail.modify",)
    assert dict(person.terms("imap", "a").endpoints.extra) == {"access_type": "offline", "prompt": "consent"}
    delegated = auth(grant="service_account", service_account="/key.json", provider="google")
    assert delegated.terms("imap", "a").scopes == ("https://www.googleapis.com/auth/gmail.imap_admin",)
    assert delegated.terms("smtp", "a").scopes == ("https://mail.google.com/",)
    assert delegated.terms("imap", "a").endpoints.token == "https://oauth2.googleapis.com/token"


# --- in the blocks that have it --------------------------------------------------------------------------------------
IMAP = {"type": "imap", "host": "imap.example.com", "username": "u"}
SMTP = {"type": "smtp", "host": "smtp.example.com", "sender": "a@example.com", "username": "u"}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({}, "password is missing"),
        ({"auth": {"type": "oauth2", **MICROSOFT}, "password": "p"}, "leave password away"),
        ({"auth": {"type": "external"}}, "client_certificate is missing"),
        ({"auth": {"type": "external"}, "client_certificate": "/c", "tls": "none"}, "wants TLS"),
        ({"auth": {"type": "ntlm"}}, "oauth2"),
        ({"auth": {"type": ["oauth2"]}}, "oauth2"),
        ({"password": "p", "client_key": "/k"}, "wants a client_certificate"),
        ({"password": "p", "auth": {"mechanism": "xoauth2"}}, "scram-sha-256"),
    ],
)
def test_a_mailbox_whose_login_cannot_work_is_refused(written: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ImapConfig.model_validate({**IMAP, **written})
    assert words in str(caught.value)


def test_a_block_says_how_to_log_in() -> None:
    assert ImapConfig.model_validate({**IMAP, "password": "p"}).auth.type == "password"
    assert ImapConfig.model_validate({**IMAP, "password": "p", "auth": {"mechanism": "plain"}}).auth.type == "password"
    assert ImapConfig.model_validate({**IMAP, "auth": {"type": "oauth2", **MICROSOFT}}).auth.type == "oauth2"
    assert SmtpConfig.model_validate({**SMTP, "auth": {"type": "oauth2", **MICROSOFT}}).auth.type == "oauth2"
    with pytest.raises(ValidationError, match="wants a username"):
        SmtpConfig.model_validate({**SMTP, "username": None, "auth": {"type": "oauth2", **MICROSOFT}})


def test_no_block_shows_its_secrets() -> None:
    block = ImapConfig.model_validate({**IMAP, "auth": {"type": "oauth2", **MICROSOFT}})
    shown = [
        repr(block),
        str(block),
        repr(block.auth),
        repr(auth(**MICROSOFT).terms("imap", "u")),
        block.model_dump_json(),
    ]
    assert SECRET not in "\n".join(shown)


# --- keys ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def key_file(directory: Path, key: rsa.RSAPrivateKey) -> Path:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    path = directory / "key.json"
    written = {
        "type": "service_account", "client_email": "poller@project.example", "private_key_id": "k1", "private_key": pem,
    }  # fmt: skip
    path.write_bytes(orjson.dumps(written))
    return path


async def test_a_service_account_asks_in_the_name_of_the_mailbox(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    asked: list[Asked] = []

    def answer(one: Asked) -> Reply:
        asked.append(one)
        return Reply(body={"access_token": "t", "expires_in": 3599, "token_type": "Bearer"})

    async with Web(answer) as web:
        written = {"grant": "service_account", "service_account": str(key_file(tmp_path, key)), "provider": "google"}
        made = auth(**written, token_url=web.url + "/token")
        sources = [
            token_source(made.terms("imap", user), tmp_path, SystemClock())
            for user in ("ada@x.example", "bob@x.example")
        ]
        for source in sources:
            await source.token()
    assert asked[0].form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claims = [
        jwt.decode(one.form["assertion"], key.public_key(), algorithms=["RS256"], audience=web.url + "/token")
        for one in asked
    ]
    assert [one["sub"] for one in claims] == ["ada@x.example", "bob@x.example"]
    assert claims[0]["iss"] == "poller@project.example"
    assert claims[0]["scope"] == "https://www.googleapis.com/auth/gmail.imap_admin"
    assert claims[0]["exp"] - claims[0]["iat"] == 3600
    assert jwt.get_unverified_header(asked[0].form["assertion"]) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}


async def test_google_says_which_delegation_is_missing(tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    told = {"error": "unauthorized_client", "error_description": "Client is unauthorized to retrieve access tokens "
                                                                 "using this method, or client not authorized for "
                                                                 "any of the scopes requested."}  # fmt: skip
    async with Web(lambda asked: Reply(401, told)) as web:
        made = auth(grant="service_account", service_account=str(key_file(tmp_path, key)), token_url=web.url)
        with pytest.raises(TokenRefused, match="Domain-wide delegation"):
            await token_source(made.terms("imap", "a@x.example"), tmp_path, SystemClock()).token()


@pytest.mark.parametrize("written", [b"", b"{}", b"[]", b'{"type": "authorized_user"}', b'{"type": "service_account"}'])
def test_a_key_file_that_is_none_is_refused_by_its_name(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "key.json").write_bytes(written)
    with pytest.raises(ConfigError, match=r"key\.json"):
        ServiceAccount.read(tmp_path / "key.json")


@pytest.mark.parametrize(("elliptic", "algorithm"), [(False, "PS256"), (True, "ES256")])
def test_a_certificate_signs_requests_as_microsoft_wants_it(tmp_path: Path, elliptic: bool, algorithm: str) -> None:
    issued = Authority(tmp_path).issue("app", elliptic=elliptic)
    now = datetime.now(UTC)
    signed = client_assertion(issued.path, issued.key, "app", "https://login.example/token", now)
    public = serialization.load_pem_private_key(issued.key.read_bytes(), None).public_key()
    claims = jwt.decode(signed, public, algorithms=[algorithm], audience="https://login.example/token")  # type: ignore[arg-type]
    assert (claims["iss"], claims["sub"]) == ("app", "app")
    assert claims["exp"] - int(now.timestamp()) == 600
    assert len(jwt.get_unverified_header(signed)["x5t#S256"]) == 43
    again = client_assertion(issued.path, issued.key, "app", "https://login.example/token", now + timedelta(seconds=1))
    assert jwt.decode(again, options={"verify_signature": False})["jti"] != claims["jti"]


def test_a_certificate_or_key_of_no_use_is_named_and_not_quoted(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("app")
    (tmp_path / "broken.pem").write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    locked = serialization.load_pem_private_key(issued.key.read_bytes(), None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (tmp_path / "locked.pem").write_bytes(locked)
    for certificate, key_path, words in (
        (tmp_path / "none.pem", None, "No such file"),
        (tmp_path / "broken.pem", None, "no certificate"),
        (issued.path, tmp_path / "broken.pem", "no private key"),
        (issued.path, tmp_path / "locked.pem", "not encrypted"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            client_assertion(certificate, key_path, "app", "https://login.example/token", datetime.now(UTC))
        assert "c2VjcmV0" not in str(caught.value)


# --- advice ----------------------------------------------------------------------------------------------------------
def test_the_most_exact_code_is_found_in_what_microsoft_says() -> None:
    told = "AADSTS700082: The refresh token has expired due to inactivity. Trace ID: 0d9f1b52-7c1e"
    assert code_in("invalid_grant", told) == "AADSTS700082"
    assert code_in("invalid_grant", "") == "invalid_grant"


@pytest.mark.parametrize(
    ("code", "error", "grant", "words"),
    [
        ("AADSTS7000222", "invalid_client", "client_credentials", "create a new one"),
        ("AADSTS700082", "invalid_grant", "refresh_token", "mailpoller oauth login"),
        ("AADSTS65001", "invalid_grant", "device_code", "Grant admin consent"),
        ("AADSTS50034", "invalid_grant", "device_code", "check owner or username"),
        ("AADSTS99999999", "invalid_client", "client_credentials", "Check client_id and client_secret"),
        ("invalid_grant", "invalid_grant", "authorization_code", "mailpoller oauth login"),
        ("invalid_grant", "invalid_grant", "service_account", "this domain"),
        ("unheard_of", "unheard_of", "client_credentials", ""),
    ],
)
def test_a_refusal_comes_with_advice(code: str, error: str, grant: str, words: str) -> None:
    found = advice_for(code, error, grant)
    assert words in found and bool(found) == bool(words)
