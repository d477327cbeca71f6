"""What the blocks of IMAP, POP3 and SMTP have in common: where the server is, whom to trust, who logs in, how long it
is waited for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mailpoller.core.authentication import Trust
from mailpoller.core.component import Component, Finding, Runtime
from mailpoller.core.host_limit import HostLimit
from mailpoller.core.literals import FilePath
from mailpoller.core.message import Account
from mailpoller.core.source_config import SourceConfig
from mailpoller.wire import doubtful
from mailpoller.wire.auth import AnyAuth, Credentials, lacking_beside
from mailpoller.wire.literals import HostName, Wait
from mailpoller.wire.oauth.providers import provider_of, trust_of
from mailpoller.wire.password import WrittenPassword
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.tls import Fingerprint, TlsMode, TlsPolicy, check_trust
from mailpoller.wire.usual_limits import usual_limit


class MailServer(Component):
    """A block that is about a mail server. Its keys stand before those of the block itself, which says anew what it
    means otherwise."""

    usual_ports: ClassVar[Mapping[TlsMode, int]]
    """Where such servers are, by TLS mode."""

    type: Literal["imap", "pop3", "smtp"]
    host: HostName
    """The server's name, against which its certificate is checked."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """The usual one, which follows ``tls``, if it is not given."""
    tls: TlsMode = "tls"
    """``tls`` (from the first octet), ``starttls-required``, ``starttls`` (only if the server offers it: an attacker
    can prevent it; see ``auth`` for the password then) or ``none``. Also understood: ``ssl-tls``,
    ``start-tls-required``, ``start-tls``."""
    ca_file: FilePath | None = None
    """Trust the certificates in this PEM file instead of the system's."""
    pin: Fingerprint | None = None
    """Trust exactly the certificate with this SHA-256, whoever signed it: ``openssl x509 -noout -fingerprint
    -sha256``."""
    client_certificate: FilePath | None = None
    """Our own certificate (PEM), for a server that asks for one."""
    client_key: FilePath | None = None
    """Its private key (PEM, not encrypted), if it is not in the same file."""
    proxy: Proxy | None = None
    """Connect by way of a proxy."""
    username: str | None = None
    """Whom to log in as."""
    password: WrittenPassword | None = None
    """``env:NAME``, ``file:/path`` or ``credential:name``, or ``{command: [PROGRAM, …]}``, which is run when the
    password is first needed, and again when a login is refused. Left out with OAuth 2.0 and ``external``."""

    @model_validator(mode="after")
    def _check_trust(self) -> Self:
        check_trust(self.policy)
        return self

    @property
    def effective_port(self) -> int:
        """The port to connect to."""
        return self.port or self.usual_ports[self.tls]

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file, self.pin, self.client_certificate, self.client_key)

    @property
    def known_as(self) -> str:
        """The server's name, written as all who mean the same server would."""
        return self.host.casefold().rstrip(".")

    def findings(self) -> Iterator[Finding]:
        """Port, TLS and password, against each other and against what is known of the server."""
        yield from super().findings()
        yield from doubtful.line(self.type, self.known_as, self.port or 0, self.tls)
        way = getattr(getattr(self, "auth", None), "type", "password")
        if self.password is not None and way == "password" and (reason := self.password_refused()):
            yield Finding("password", reason)

    def password_refused(self) -> str:
        """Why this server is known to take no password, or none of this kind; empty if it is not."""
        if provider_of(self.known_as) == "google":
            return (
                "Google refuses the account's own password: this login can only work with an app password; "
                "else it needs OAuth 2.0"
            )
        return ""

    def login(self, username: str, auth: AnyAuth, runtime: Runtime) -> Credentials:
        """How ``username`` logs in to this server."""
        return Credentials(
            auth,
            service=self.type,
            username=username,
            password=self.password,
            host=self.host,
            port=self.effective_port,
            state_directory=runtime.state_directory,
            clock=runtime.clock,
        )


class KeptServer(MailServer):
    """A server where one connection is kept."""

    port: int = Field(default=0, ge=0, le=65535)
    """0: the usual one, which follows ``tls``."""
    username: str
    """Whom to log in as; with OAuth 2.0 it may be a shared mailbox that the token's owner may use."""
    connect_timeout: Wait = timedelta(seconds=30)
    """How long connecting may take, up to the server's greeting and through TLS."""
    command_timeout: Wait = timedelta(seconds=60)
    """How long the server may be silent while we wait for an answer."""

    @classmethod
    def lacking(cls, written: Mapping[str, Any]) -> Mapping[str, str]:
        """A password, or what else the way of logging in needs."""
        return lacking_beside(written.get("auth"), written)

    @property
    def account(self) -> Account:
        """Whose mail it is. A server's usual ports lead to the same mail; another port may be another server."""
        usual = not self.port or self.port in self.usual_ports.values()
        return Account(self.type, self.known_as + ("" if usual else f":{self.port}"), self.username)


class MailboxServer(KeptServer, SourceConfig):
    """A mailbox on such a server."""

    def findings(self) -> Iterator[Finding]:
        """Those of every server, unless it is disabled: then nobody connects."""
        if self.enabled:
            yield from super().findings()

    def password_refused(self) -> str:
        """Microsoft takes none for mailboxes."""
        if provider_of(self.known_as) == "microsoft":
            return "Microsoft 365 takes no passwords any more: this login cannot work; it needs OAuth 2.0"
        return super().password_refused()

    def usual_trust(self) -> Trust | None:
        """That of Google or Microsoft, if the mailbox is with them."""
        return trust_of(self.known_as)

    def usual_limit(self) -> tuple[str, HostLimit] | None:
        """That of its provider, if that is a large one."""
        host = self.host.lower()
        limit = usual_limit(host)
        return None if limit is None else (host, limit)

    def polled_account(self) -> Account:
        """See the parent's."""
        return self.account
