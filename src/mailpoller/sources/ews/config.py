"""The YAML block of a mailbox on an Exchange server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from mailpoller.core.authentication import Trust
from mailpoller.core.component import Block, Finding
from mailpoller.core.errors import KeysMissing
from mailpoller.core.extras import Extra
from mailpoller.core.literals import FilePath, Secret
from mailpoller.core.message import Account
from mailpoller.core.source_config import SourceConfig
from mailpoller.remote.exchange import Deletion, FolderNames, check_disposition
from mailpoller.wire import doubtful
from mailpoller.wire.auth import kind_of, lacking_beside
from mailpoller.wire.dial import is_loopback
from mailpoller.wire.literals import Wait
from mailpoller.wire.oauth import OAuthAuth
from mailpoller.wire.oauth.providers import trust_of
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.tls import Fingerprint, TlsPolicy, check_trust

EWS = "mailpoller[ews]"
"""What pip installs for it."""

_EXCHANGE_ONLINE = (
    "office365.com", "office365.us", "office.com", "office.de", "outlook.com", "outlook.cn", "outlook.de", "apps.mil",
    "hotmail.com", "live.com",
)  # fmt: skip
"""Domains of Exchange Online, with those of the national clouds."""


class PasswordAuth(Block):
    """Logging in with user name and password."""

    type: Literal["password"] = "password"
    mechanism: Literal["auto", "ntlm", "negotiate", "basic"] = "auto"
    """``auto`` takes NTLM (by itself or by Negotiate) where the server offers it, else Basic, which shows the server
    the password, and only over https. Naming one takes that and no other."""


Auth = Annotated[
    Annotated[PasswordAuth, Tag("password")] | Annotated[OAuthAuth, Tag("oauth2")],
    Discriminator(kind_of),
]
"""``auth: {type: password | oauth2, …}``; without a type it is ``password``."""


class EwsSettings(SourceConfig):
    """What a mailbox of this type is told; see :class:`mailpoller.sources.ews.EwsConfig`."""

    type: Literal["ews"]
    url: str
    """Where EWS is: ``https://mail.example.com/EWS/Exchange.asmx``."""
    username: str
    """Whom to log in as: ``EXAMPLE\\svc-mail`` or ``svc-mail@example.com``. With OAuth 2.0, whose token it is."""
    password: Secret | None = None
    """``env:NAME``, ``file:/path`` or ``credential:name``."""
    auth: Auth = PasswordAuth()
    """How to log in: ``password`` (NTLM or Basic) or ``oauth2`` (hybrid modern authentication, AD FS)."""
    mailbox: str | None = None
    """The primary SMTP address of the mailbox, if it is another's, such as a shared one. Without it, the login's
    own."""
    access: Literal["delegate", "impersonation"] = "delegate"
    """How another's mailbox is entered: with the rights that the login was given in it, or in its owner's name (the
    management role ApplicationImpersonation)."""
    folders: FolderNames = Field(default_factory=lambda: ["inbox"])
    """The folders to poll: ``inbox`` and the other names that are the same in every language (``junkemail``,
    ``archiveinbox``), or a path of display names below the mailbox's root or below such a folder:
    ``Support/Germany``, ``inbox/Done``."""
    deletion: Deletion = "deleted-items"
    """What ``disposition: delete`` does: move to Deleted Items; remove so that it can be recovered (the dumpster);
    remove for good."""
    ca_file: FilePath | None = None
    """Trust the certificates in this PEM file instead of the system's."""
    pin: Fingerprint | None = None
    """Trust exactly the certificate with this SHA-256, whoever signed it: ``openssl x509 -noout -fingerprint
    -sha256``."""
    proxy: Proxy | None = None
    """Reach the server through a proxy."""
    notice_interval: Wait = timedelta(seconds=15)
    """How often the server is asked for news between polls; only the first folder, and one small request each time."""
    connect_timeout: Wait = timedelta(seconds=30)
    """How long connecting may take, through TLS."""
    command_timeout: Wait = timedelta(seconds=60)
    """How long the server may be silent while we wait for an answer."""

    def extras(self) -> Iterator[Extra]:
        """What speaks HTTP, and NTLM unless another way to log in is named."""
        yield Extra("type", "httpcore", EWS)
        if not isinstance(self.auth, OAuthAuth) and self.auth.mechanism != "basic":
            yield Extra("type", "spnego", EWS)
            yield Extra("type", "cryptography", EWS)

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host, parts = None, urlsplit("")
        odd = any(one <= " " or one > "~" for one in url)
        if parts.scheme not in ("https", "http") or not host or parts.username or parts.query or parts.fragment or odd:
            raise ValueError("the URL of EWS is https://HOST/EWS/Exchange.asmx, without user, query or spaces")
        name = host.lower().rstrip(".")
        if any(name == one or name.endswith(f".{one}") for one in _EXCHANGE_ONLINE):
            raise ValueError(
                "Exchange Online no longer answers EWS: it is off by default since 2026-10-01 and gone on 2027-04-01. "
                "Use type: graph; type: ews is for an Exchange server of your own"
            )
        return url if parts.path not in ("", "/") else f"{url.rstrip('/')}/EWS/Exchange.asmx"

    @field_validator("username", "mailbox")
    @classmethod
    def _check_name(cls, name: str | None) -> str | None:
        if name is not None and (not name.strip() or not name.isprintable()):
            raise ValueError("a name is not empty and has no control characters")
        return name

    @field_validator("mailbox")
    @classmethod
    def _check_mailbox(cls, mailbox: str | None) -> str | None:
        if mailbox is not None and "@" not in mailbox:
            raise ValueError("the mailbox is named by its primary SMTP address: shared@example.com")
        return mailbox

    _check_disposition = field_validator("disposition", "on_quarantine", "on_discard")(check_disposition)

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        check_trust(self.policy)
        if isinstance(self.auth, OAuthAuth):
            if self.password is not None:
                raise ValueError("auth: {type: oauth2} logs in without a password: leave password away")
            if self.auth.grant == "client_credentials" and self.access != "impersonation":
                if self.mailbox is None:
                    raise KeysMissing(
                        {"mailbox": "client_credentials has none of its own; and say access: impersonation"}
                    )
                raise ValueError("client_credentials has no mailbox of its own: say mailbox and access: impersonation")
            if not self.secure and not is_loopback(self.host):
                raise ValueError("a token goes over https only")
        if lacking := self.lacking({name: getattr(self, name) for name in ("auth", "password", "access", "mailbox")}):
            raise KeysMissing(lacking)
        return self

    @classmethod
    def lacking(cls, written: Mapping[str, Any]) -> Mapping[str, str]:
        """A password, unless there are tokens, and whose mailbox it is that we come in the name of."""
        found = lacking_beside(written.get("auth"), written)
        if written.get("access") == "impersonation" and written.get("mailbox") is None:
            found["mailbox"] = "access: impersonation comes in the name of this address"
        return found

    def findings(self) -> Iterator[Finding]:
        """That asking for news makes haste needless."""
        yield from super().findings()
        yield from doubtful.hasty(self.poll_interval, "news is asked for every notice_interval anyway")

    def usual_trust(self) -> Trust | None:
        """Microsoft's, if the mailbox is there; an Exchange server of one's own vouches for nothing."""
        return trust_of(self.host)

    def polled_account(self) -> Account:
        """The mailbox's, at this server; without a ``mailbox`` the login's own."""
        return Account(self.type, f"{self.host}:{self.port}", (self.mailbox or self.username).casefold())

    @property
    def host(self) -> str:
        """The server's name, in lower case."""
        return (urlsplit(self.url).hostname or "").lower()

    @property
    def port(self) -> int:
        """The port to connect to."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def secure(self) -> bool:
        """The URL is one of https."""
        return self.url.lower().startswith("https:")

    @property
    def owner(self) -> str:
        """Whose mailbox it is."""
        return self.mailbox or self.username

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file, self.pin)
