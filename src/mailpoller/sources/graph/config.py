"""The YAML block of a mailbox that is reached by Microsoft Graph."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from mailpoller.core.authentication import EXCHANGE_ONLINE, Trust
from mailpoller.core.component import Finding
from mailpoller.core.extras import Extra
from mailpoller.core.literals import Duration, FilePath
from mailpoller.core.message import Account
from mailpoller.core.source_config import SourceConfig
from mailpoller.remote.exchange import Deletion, FolderNames, check_disposition
from mailpoller.remote.graph.address import check_url, check_user, service_url
from mailpoller.wire import doubtful
from mailpoller.wire.literals import Wait
from mailpoller.wire.oauth import OAuthAuth
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.tls import Fingerprint, TlsPolicy, check_trust


class GraphSettings(SourceConfig):
    """What a mailbox of this type is told; see :class:`mailpoller.sources.graph.GraphConfig`."""

    type: Literal["graph"]
    user: str
    """Whose mailbox: the user principal name (``support@example.com``) or object id, also of a shared mailbox."""
    auth: OAuthAuth
    """How to log in: ``auth: {type: oauth2, provider: microsoft, grant: client_credentials, tenant: …, client_id:
    …}``. ``cloud`` there says which of Microsoft's clouds it is, for Graph too."""
    url: str | None = None
    """Where Graph is, with its version, if ``cloud`` does not say it: ``https://graph.microsoft.com/v1.0``."""
    folders: FolderNames = Field(default_factory=lambda: ["inbox"])
    """The folders to poll: ``inbox`` and the other names that are the same in every language (``junkemail``,
    ``archive``), or a path of display names below the mailbox's root or below such a folder: ``Support/Germany``,
    ``inbox/Done``."""
    deletion: Deletion = "deleted-items"
    """What ``disposition: delete`` does: move to Deleted Items; DELETE, after which it can be recovered (the
    dumpster); or permanentDelete, which only the global cloud has."""
    notice_interval: Wait = timedelta(seconds=15)
    """How often the service is asked for news between polls; only the first folder, and one small request each time."""
    sweep_interval: Wait = timedelta(hours=1)
    """How often what has come lately is listed anew by its date: a message that is moved away and back keeps its id,
    and a delta query does not always tell of it."""
    sweep_reach: Duration = timedelta(days=3)
    """How long before the last such listing a message may have been received to be looked at again."""
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
        yield Extra("type", "httpcore", "mailpoller[graph]")

    _check_user = field_validator("user")(check_user)
    _check_url = field_validator("url")(check_url)

    _check_disposition = field_validator("disposition", "on_quarantine", "on_discard")(check_disposition)

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        check_trust(self.policy)
        if self.deletion == "permanent" and self.auth.cloud != "global":
            raise ValueError("deletion: permanent is not to be had in a national cloud: use recoverable")
        service_url(self.url, self.auth)
        return self

    def findings(self) -> Iterator[Finding]:
        """That asking for news makes haste needless."""
        yield from super().findings()
        yield from doubtful.hasty(self.poll_interval, "news is asked for every notice_interval anyway")

    def usual_trust(self) -> Trust | None:
        """Every mailbox of the service receives through it."""
        return EXCHANGE_ONLINE

    def polled_account(self) -> Account:
        """The user's, at this service."""
        return Account(self.type, self.host, self.user)

    @property
    def username(self) -> str:
        """Whose mailbox, under the name that it has in other blocks."""
        return self.user

    @property
    def service(self) -> str:
        """The URL of the service, with its version."""
        return service_url(self.url, self.auth)

    @property
    def host(self) -> str:
        """The service's name, in lower case."""
        return (urlsplit(self.service).hostname or "").lower()

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file, self.pin)
