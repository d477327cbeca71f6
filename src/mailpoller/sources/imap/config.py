"""The YAML block of an IMAP mailbox."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from mailpoller.core.component import Runtime, SourceConfig
from mailpoller.core.delivery import Disposition
from mailpoller.core.literals import Duration, Secret
from mailpoller.core.ports import Source
from mailpoller.transport.auth import Auth, Credentials, PasswordAuth, check_auth
from mailpoller.transport.proxy import Proxy
from mailpoller.transport.tls import Fingerprint, TlsMode, TlsPolicy

_SYSTEM_FLAGS = {"\\seen", "\\answered", "\\flagged", "\\deleted", "\\draft"}
_KEYWORD = r"[!#$&'+,./0-9:;<=>?@A-Z^_`a-z|~\[-]+"
"""An atom (RFC 3501 section 9): what is left of ASCII without (){ %*\"]\\ and controls."""


class ImapConfig(SourceConfig):
    """A mailbox on an IMAP server (RFC 3501, RFC 9051)."""

    type: Literal["imap"]
    host: str
    """The server's name, against which its certificate is checked."""
    port: int = Field(default=0, ge=0, le=65535)
    """0: 993 with ``tls: tls``, else 143."""
    tls: TlsMode = "tls"
    """``tls`` (from the first octet), ``starttls-required``, ``starttls`` (only if the server offers it: an attacker can
    prevent it; see ``auth`` for the password then) or ``none``. Also understood: ``ssl-tls``, ``start-tls-required``, ``start-tls``."""
    ca_file: Path | None = None
    """Trust the certificates in this PEM file instead of the system's."""
    pin: Fingerprint | None = None
    """Trust exactly the certificate with this SHA-256, whoever signed it: ``openssl x509 -noout -fingerprint -sha256``."""
    client_certificate: Path | None = None
    """Our own certificate (PEM), for a server that asks for one."""
    client_key: Path | None = None
    """Its private key (PEM, not encrypted), if it is not in the same file."""
    proxy: Proxy | None = None
    """Connect by way of a proxy."""
    username: str
    """Whom to log in as; with OAuth 2.0 it may be a shared mailbox that the token's owner may use."""
    password: Secret | None = None
    """``env:NAME``, ``file:/path`` or ``credential:name``. Left out with OAuth 2.0 and ``external``."""
    auth: Auth = PasswordAuth()
    """How to log in: ``type: password`` if nothing is said, ``oauth2`` or ``external``."""
    folders: list[str] = Field(default_factory=lambda: ["INBOX"], min_length=1)
    """The folders to poll, named as people see them (``Größe/Alt``); IDLE watches the first. A namespace prefix such as
    ``INBOX.`` may be left out, and ``/`` written for whatever separates levels."""
    idle: bool = True
    """Let the server push news where it can (RFC 2177)."""
    connect_timeout: Duration = timedelta(seconds=30)
    """How long connecting may take, up to the server's greeting and through TLS."""
    command_timeout: Duration = timedelta(seconds=60)
    """How long the server may be silent while we wait for an answer."""

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        bare = host.removeprefix("[").removesuffix("]")
        try:
            ip_address(bare)
        except ValueError:
            if not bare or any(one.isspace() or one in "/:@[]" for one in bare):
                raise ValueError("a host is a name or an address, without port, scheme or user") from None
        return bare

    @field_validator("folders")
    @classmethod
    def _check_folders(cls, folders: list[str]) -> list[str]:
        if any(not name or any(one in name for one in "\r\n\0") for name in folders):
            raise ValueError("a folder's name is not empty and has no line ends")
        if len({name.upper() if name.upper() == "INBOX" else name for name in folders}) < len(folders):
            raise ValueError("a folder is named twice")
        return folders

    @field_validator("disposition", "on_quarantine", "on_discard")
    @classmethod
    def _check_flags(cls, disposition: Disposition | None) -> Disposition | None:
        for flag in () if disposition is None else disposition.flags:
            if flag.lower() not in _SYSTEM_FLAGS and not re.fullmatch(_KEYWORD, flag):
                raise ValueError(
                    f"{flag!r} is no IMAP flag: a keyword such as $Done has no spaces and only ASCII, "
                    "a system flag is \\Seen, \\Answered, \\Flagged, \\Deleted or \\Draft"
                )
        return disposition

    @field_validator("connect_timeout", "command_timeout")
    @classmethod
    def _check_timeout(cls, value: timedelta) -> timedelta:
        if value < timedelta(milliseconds=100):
            raise ValueError("a time-out is at least 100ms")
        return value

    @model_validator(mode="after")
    def _check_trust(self) -> Self:
        if self.ca_file is not None and self.pin is not None:
            raise ValueError("ca_file and pin exclude each other: a pinned certificate is trusted whoever signed it")
        if self.client_key is not None and self.client_certificate is None:
            raise ValueError("client_key wants a client_certificate")
        return self

    @model_validator(mode="after")
    def _check_auth(self) -> Self:
        check_auth(self.auth, password=self.password, tls=self.tls, client_certificate=self.client_certificate)
        return self

    @property
    def effective_port(self) -> int:
        """The port to connect to."""
        return self.port or (993 if self.tls == "tls" else 143)

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file, self.pin, self.client_certificate, self.client_key)

    def credentials(self, runtime: Runtime) -> Credentials:
        """Who logs in, and how."""
        return Credentials(
            self.auth,
            service="imap",
            username=self.username,
            password=self.password,
            host=self.host,
            port=self.effective_port,
            state_directory=runtime.state_directory,
            clock=runtime.clock,
        )

    def build(self, name: str, runtime: Runtime) -> Source:
        """The source of the mailbox ``name``. Opens nothing; raises :class:`ConfigError` for a CA file of no use."""
        from mailpoller.sources.imap.source import ImapSource

        return ImapSource(name, self, runtime)
