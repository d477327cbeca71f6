"""The YAML block of a login by OAuth 2.0, the same for every protocol."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from mailpoller.core.component import Block, Component
from mailpoller.core.errors import KeysMissing
from mailpoller.core.extras import Extra
from mailpoller.core.literals import Duration, FilePath, Secret
from mailpoller.core.record import record
from mailpoller.wire.dial import confidential
from mailpoller.wire.oauth.providers import (
    GOOGLE,
    CloudName,
    Endpoints,
    GrantName,
    ProviderName,
    ServiceName,
    microsoft,
    scopes_of,
)
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.sasl.choice import TokenMechanism
from mailpoller.wire.tls import TlsPolicy

OAUTH = "mailpoller[oauth]"
"""What pip installs for it."""
DELEGATED = ("refresh_token", "device_code", "authorization_code")
"""Grants in which a person has said yes, and of which a refresh token is what lasts."""


class OAuthAuth(Block):
    """Log in with a token (OAuth 2.0, RFC 6749) instead of a password. ``provider`` fills in URLs and scopes."""

    type: Literal["oauth2"]
    provider: ProviderName | None = None
    """``microsoft`` or ``google``; without it say at least ``token_url``."""
    grant: GrantName
    """``client_credentials`` (the service itself, with a secret or a certificate), ``device_code`` or
    ``authorization_code`` (a person says yes once, at ``mailpoller oauth login``), ``refresh_token`` (somebody did
    that elsewhere), or ``service_account`` (Google, with domain-wide delegation)."""
    tenant: str | None = None
    """Microsoft: the tenant's id or domain. Needed for ``client_credentials``; a person's own tenant is found
    without."""
    cloud: CloudName = "global"
    """Microsoft's national cloud."""
    client_id: str | None = None
    """The application's id."""
    client_secret: Secret | None = None
    """The application's secret: its value, not its id."""
    client_authentication: Literal["body", "basic"] = "body"
    """How the secret is told: in the request's body, or as HTTP Basic. Microsoft and Google take both."""
    certificate: FilePath | None = None
    """Instead of a secret: the application's certificate (PEM), with which requests are signed (RFC 7523)."""
    certificate_key: FilePath | None = None
    """The certificate's private key (PEM, not encrypted), if it is not in the same file."""
    scopes: list[str] = Field(default_factory=list)
    """What the token is for. The provider's usual ones if nothing is said."""
    token_url: str | None = None
    """Where tokens are asked for."""
    authorization_url: str | None = None
    """Where a browser is sent for ``authorization_code``."""
    device_url: str | None = None
    """Where a code is asked for with ``device_code``."""
    owner: str | None = None
    """Who says yes, if that is not ``username``: a person who may use the shared mailbox. Mailboxes with one owner
    share one token."""
    refresh_token: Secret | None = None
    """For ``refresh_token``: the first one. Later ones are kept below ``state_directory``, never here."""
    service_account: FilePath | None = None
    """For ``service_account``: the key file (JSON) as Google gives it."""
    expires: date | None = None
    """When the secret, or the refresh token, ends: an alert says so 30, 14 and 3 days before."""
    mechanism: TokenMechanism = "auto"
    """``oauthbearer`` (RFC 7628) or ``xoauth2``; ``auto`` takes the first that the mail server offers."""
    ca_file: FilePath | None = None
    """Trust the certificates of this PEM file at ``token_url``, instead of the system's."""
    proxy: Proxy | None = None
    """Ask for tokens through this proxy."""
    timeout: Duration = timedelta(seconds=20)
    """How long the provider may be silent."""

    @field_validator("token_url", "authorization_url", "device_url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is not None and confidential(url) is None:
            raise ValueError("a URL is https://HOST/PATH: secrets and tokens never go over http")
        return url

    @field_validator("tenant")
    @classmethod
    def _check_tenant(cls, tenant: str | None) -> str | None:
        if tenant is not None and not re.fullmatch(r"[A-Za-z0-9._-]+", tenant):
            raise ValueError("a tenant is an id or a domain")
        return tenant

    @field_validator("scopes")
    @classmethod
    def _check_scopes(cls, scopes: list[str]) -> list[str]:
        if any(not re.fullmatch(r"[!#-\[\]-~]+", scope) for scope in scopes):
            raise ValueError("a scope is one word; write a list of them")
        return scopes

    @model_validator(mode="after")
    def _check_grant(self) -> Self:
        grant, provider = self.grant, self.provider
        if provider == "google" and grant == "client_credentials":
            raise ValueError(
                "Google has no client_credentials for mail: use service_account, with domain-wide delegation"
            )
        if provider == "google" and grant == "device_code":
            raise ValueError("Google gives no token for mail to a device_code: use authorization_code")
        if provider == "microsoft" and grant == "service_account":
            raise ValueError("Microsoft has no service_account: use client_credentials")
        if self.client_secret is not None and self.certificate is not None:
            raise ValueError("client_secret and certificate exclude each other")
        if lacking := self._lacking():
            raise KeysMissing(lacking)
        if provider == "microsoft" and grant == "client_credentials" and self.tenant in ("common", "organizations"):
            raise ValueError("client_credentials wants the tenant: its id, or a domain of it")
        return self

    def extras(self) -> Iterator[Extra]:
        """What asks for tokens, and what signs where that is done with a key."""
        yield Extra("type", "httpcore", OAUTH)
        for key in ("certificate", "service_account"):
            if getattr(self, key) is not None:
                yield Extra(key, "jwt", OAUTH)
                yield Extra(key, "cryptography", OAUTH)

    def _lacking(self) -> dict[str, str]:
        """The keys that are missing, each with what it is wanted for."""
        grant, provider = self.grant, self.provider
        found: dict[str, str] = {}
        if provider is None and self.token_url is None and grant != "service_account":
            found |= {"provider": "say microsoft or google, or token_url"}
        if grant == "service_account" and self.service_account is None:
            found |= {"service_account": "it wants the key file, /path/key.json"}
        if grant != "service_account" and self.client_id is None:
            found |= {"client_id": f"{grant} wants a client_id"}
        if grant == "client_credentials" and self.client_secret is None and self.certificate is None:
            found |= {"client_secret": "client_credentials wants a client_secret, or a certificate"}
        if self.certificate_key is not None and self.certificate is None:
            found |= {"certificate": "certificate_key wants a certificate"}
        if provider == "microsoft" and grant == "client_credentials" and self.tenant is None:
            found |= {"tenant": "client_credentials wants the tenant: its id, or a domain of it"}
        if grant == "refresh_token" and self.refresh_token is None:
            found |= {
                "refresh_token": "refresh_token wants a refresh_token; without one, use authorization_code or "
                "device_code"
            }
        if grant == "authorization_code" and provider is None and self.authorization_url is None:
            found |= {"authorization_url": "authorization_code wants an authorization_url"}
        if grant == "device_code" and provider is None and self.device_url is None:
            found |= {"device_url": "device_code wants a device_url"}
        return found

    def terms(self, service: ServiceName, username: str) -> Terms:
        """All of it, with what the provider fills in. ``username``: whose mailbox it is."""
        known = Endpoints("")
        if self.provider == "microsoft":
            known = microsoft(self.cloud, self.tenant or "common")
        elif self.provider == "google" or self.grant == "service_account":
            known = GOOGLE
        personal = self.grant in DELEGATED or self.grant == "service_account"
        return Terms(
            grant=self.grant,
            provider=self.provider,
            endpoints=Endpoints(
                self.token_url or known.token,
                self.authorization_url or known.authorization,
                self.device_url or known.device,
                known.extra,
            ),
            client_id=self.client_id or "",
            client_secret=self.client_secret,
            basic=self.client_authentication == "basic",
            certificate=self.certificate,
            certificate_key=self.certificate_key,
            scopes=tuple(self.scopes) or scopes_of(self.provider, service, self.grant, self.cloud),
            owner=(self.owner or username) if personal else "",
            refresh_token=self.refresh_token if self.grant == "refresh_token" else None,
            service_account=self.service_account,
            expires=self.expires,
            policy=TlsPolicy(ca_file=self.ca_file),
            proxy=self.proxy,
            timeout=self.timeout,
        )


def terms_of(block: Component) -> Terms | None:
    """What a mailbox, or an outgoing, of whatever type asks for tokens with; None if it does not."""
    auth = getattr(block, "auth", None)
    if not isinstance(auth, OAuthAuth):
        return None
    services: dict[str, ServiceName] = {one: one for one in get_args(ServiceName)}
    service = services.get(str(getattr(block, "scopes_for", block.type)), "imap")
    return auth.terms(service, str(getattr(block, "username", None) or getattr(block, "user", None) or ""))


@record
class Terms:
    """What a token is asked for with. Equal terms are answered by one token, whoever asks.

    ``owner`` is whose token it is, and empty where it is the application's own.
    """

    grant: GrantName
    provider: ProviderName | None
    endpoints: Endpoints
    client_id: str
    client_secret: Secret | None
    basic: bool
    certificate: Path | None
    certificate_key: Path | None
    scopes: tuple[str, ...]
    owner: str
    refresh_token: Secret | None
    service_account: Path | None
    expires: date | None
    policy: TlsPolicy
    proxy: Proxy | None
    timeout: timedelta
