"""Whose mailbox at Gmail, and how it is reached: the keys that a source and a queue have in common."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

from pydantic import field_validator

from mailpoller.core.component import Block
from mailpoller.core.errors import KeysMissing
from mailpoller.core.extras import Extra
from mailpoller.core.literals import FilePath
from mailpoller.core.message import Account
from mailpoller.wire.dial import confidential
from mailpoller.wire.literals import Wait
from mailpoller.wire.oauth import OAuthAuth
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.tls import Fingerprint, TlsPolicy, check_trust

SERVICE = "https://gmail.googleapis.com"
ME = "me"
"""The user whose token it is."""
_LONGEST_NAME = 225


class GmailAccount(Block):
    """A mailbox at the service. Whoever extends it calls :meth:`check_login` in its validator."""

    user: str = ME
    """Whose mailbox: an address, or ``me`` for whoever has said yes. With a service account the address of the
    person, for whom it acts by domain-wide delegation."""
    auth: OAuthAuth
    """How to log in: ``auth: {type: oauth2, provider: google, grant: service_account, service_account:
    /path/key.json}``, or ``grant: authorization_code`` with a client of the type Desktop app."""
    url: str = SERVICE
    """Where the service is, without a path."""
    ca_file: FilePath | None = None
    """Trust the certificates in this PEM file instead of the system's."""
    pin: Fingerprint | None = None
    """Trust exactly the certificate with this SHA-256, whoever signed it."""
    proxy: Proxy | None = None
    """Reach the service through a proxy. For tokens, say it in ``auth`` too."""
    timeout: Wait = timedelta(seconds=60)
    """How long connecting may take, and how long the service may be silent."""

    def extras(self) -> Iterator[Extra]:
        """What speaks HTTP."""
        yield Extra("type", "httpcore", "mailpoller[gmail]")

    @field_validator("user")
    @classmethod
    def _check_user(cls, user: str) -> str:
        local, at, domain = user.rpartition("@")
        odd = any(one.isspace() or not one.isprintable() or one in "/?#\\%" for one in user)
        if user != ME and (odd or not (local and at and domain)):
            raise ValueError("a user is a mail address, or me")
        return user

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = confidential(url)
        if parts is None or parts.query or parts.path.strip("/"):
            raise ValueError(f"the URL of the service is {SERVICE}: a token never goes over http")
        return url.rstrip("/")

    def check_login(self) -> None:
        """Raise ValueError, or :class:`KeysMissing`, for a login that can never work."""
        auth = self.auth
        check_trust(self.policy)
        if auth.provider == "microsoft":
            raise ValueError("Gmail takes Google's tokens: provider: google")
        if auth.provider is None and auth.grant == "service_account" and not auth.scopes:
            raise ValueError("say provider: google, which knows the scope that is wanted, or say scopes")
        if auth.grant == "service_account" and self.user == ME and auth.owner is None:
            raise KeysMissing({"user": "a service account has no mailbox of its own: say whose it is"})

    @property
    def host(self) -> str:
        """The service's name, in lower case."""
        return (urlsplit(self.url).hostname or "").lower()

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file, self.pin)

    def account_of(self, type_: str) -> Account:
        """The user's, at this service. Who is meant by ``me``, only the token tells: all of these count as one."""
        return Account(type_, self.host, "" if self.user == ME else self.user.casefold())


def check_label(name: str) -> str:
    """``name`` if it can be that of a label. Raises ValueError."""
    if not all(part.strip() for part in name.split("/")) or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"a label is a name such as Done, or a path such as Support/Done without empty parts, of at most "
            f"{_LONGEST_NAME} characters"
        )
    return name
