"""The YAML block of a mailbox that is reached by the Gmail API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from mailpoller.core.authentication import GMAIL, Trust
from mailpoller.core.component import Finding
from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import KeysMissing
from mailpoller.core.extras import Extra
from mailpoller.core.literals import FilePath
from mailpoller.core.message import Account
from mailpoller.core.source_config import SourceConfig
from mailpoller.wire import doubtful
from mailpoller.wire.dial import confidential
from mailpoller.wire.literals import Wait
from mailpoller.wire.oauth import OAuthAuth
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.tls import Fingerprint, TlsPolicy, check_trust

SERVICE = "https://gmail.googleapis.com"
ME = "me"
"""The user whose token it is."""

SEEN = "\\seen"
LABEL_OF = {"\\flagged": "STARRED", "$important": "IMPORTANT"}
"""Flags that are labels of the system; every other flag without a backslash is a label of that name."""

TRASH, SPAM, UNREAD = "TRASH", "SPAM", "UNREAD"
HIDDEN = frozenset((TRASH, SPAM))
"""Labels whose messages no other label's listing shows."""
_FIXED = frozenset(("SENT", "DRAFT", "CHAT", UNREAD))
"""Labels that cannot be put on a message, or that are no place."""
_LONGEST_NAME = 225


class GmailSettings(SourceConfig):
    """What a mailbox of this type is told; see :class:`mailpoller.sources.gmail.GmailConfig`."""

    type: Literal["gmail"]
    user: str = ME
    """Whose mailbox: an address, or ``me`` for whoever has said yes. With a service account the address of the
    person, for whom it acts by domain-wide delegation."""
    auth: OAuthAuth
    """How to log in: ``auth: {type: oauth2, provider: google, grant: service_account, service_account:
    /path/key.json}``, or ``grant: authorization_code`` with a client of the type Desktop app."""
    url: str = SERVICE
    """Where the service is, without a path."""
    folders: list[str] = Field(default_factory=lambda: ["INBOX"], min_length=1)
    """The labels to poll, by name as Gmail shows it (``Support/Germany``), or one of the system's: ``INBOX``,
    ``SPAM``, ``IMPORTANT``, ``STARRED``, ``CATEGORY_UPDATES``. A message with two labels that are both polled is
    taken once for each."""
    notice_interval: Wait = timedelta(seconds=15)
    """How often the service is asked for news between polls; only the first label, and one small request of 2 quota
    units each time."""
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

    @field_validator("folders")
    @classmethod
    def _check_folders(cls, folders: list[str]) -> list[str]:
        for name in folders:
            check_label(name)
        if len({name.casefold() for name in folders}) < len(folders):
            raise ValueError("a label is named twice")
        return folders

    @field_validator("disposition", "on_quarantine", "on_discard")
    @classmethod
    def _check_disposition(cls, disposition: Disposition | None) -> Disposition | None:
        for reason in [] if disposition is None else reasons_against(disposition):
            raise ValueError(reason)
        return disposition

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        auth = self.auth
        check_trust(self.policy)
        if auth.provider == "microsoft":
            raise ValueError("Gmail takes Google's tokens: provider: google")
        if auth.provider is None and auth.grant == "service_account" and not auth.scopes:
            raise ValueError("say provider: google, which knows the scope that is wanted, or say scopes")
        if auth.grant == "service_account" and self.user == ME and auth.owner is None:
            raise KeysMissing({"user": "a service account has no mailbox of its own: say whose it is"})
        wanted = (self.disposition, self.on_quarantine, self.on_discard)
        if TRASH in (name.upper() for name in self.folders) and any(one is not None and one.delete for one in wanted):
            raise ValueError("delete moves to the trash, which is polled here: let it be emptied by Gmail, or move")
        return self

    def findings(self) -> Iterator[Finding]:
        """That asking for news makes haste needless."""
        yield from super().findings()
        yield from doubtful.hasty(self.poll_interval, "news is asked for every notice_interval anyway")

    def usual_trust(self) -> Trust | None:
        """Every mailbox of the service receives through it."""
        return GMAIL

    def polled_account(self) -> Account:
        """The user's, at this service. Who is meant by ``me``, only the token tells: all of these count as one."""
        return Account(self.type, self.host, "" if self.user == ME else self.user.casefold())

    @property
    def host(self) -> str:
        """The service's name, in lower case."""
        return (urlsplit(self.url).hostname or "").lower()

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file, self.pin)


def check_label(name: str) -> str:
    """``name`` if it can be that of a label. Raises ValueError."""
    if not all(part.strip() for part in name.split("/")) or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"a label is a name such as Done, or a path such as Support/Done without empty parts, of at most "
            f"{_LONGEST_NAME} characters"
        )
    return name


def reasons_against(disposition: Disposition) -> list[str]:
    """Why Gmail can never do this; empty if it can."""
    found = [
        f"Gmail has no flag {flag}; it has \\Seen, \\Flagged, $Important, and labels, which are any other name"
        for flag in disposition.flags
        if flag.startswith("\\") and flag.lower() not in (SEEN, *LABEL_OF)
    ]
    plain = [flag for flag in disposition.flags if not flag.startswith("\\") and flag.lower() not in LABEL_OF]
    for name in [*plain, *([disposition.move] if disposition.move else [])]:
        try:
            check_label(name)
        except ValueError as error:
            found.append(str(error))
        if name.upper() in _FIXED:
            found.append(f"Gmail puts the label {name.upper()} on messages itself: nobody else can")
    return found
