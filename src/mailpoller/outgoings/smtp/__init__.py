"""Outgoing mail over SMTP: a relay, or a provider's submission service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Annotated, ClassVar, Literal

import structlog
from pydantic import BeforeValidator, Field, model_validator

from mailpoller.core.component import Finding, OutgoingConfig, Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.literals import Duration, MailAddress, Size
from mailpoller.core.ports import Answer, Mail, Outgoing, Said, Stage
from mailpoller.mail.compose import ascii_address
from mailpoller.outgoings.smtp.signing import DkimKey, Signer
from mailpoller.wire.auth import Auth, Credentials, PasswordAuth, check_auth
from mailpoller.wire.oauth import provider_of
from mailpoller.wire.server import MailServer
from mailpoller.wire.smtp import Relay, RelaySettings, RelayUnavailable, posted
from mailpoller.wire.tls import TlsMode

_KEYS_ADVICE = "Let dkim.key name a private key: openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:2048"

log = structlog.get_logger(__name__)


def _listed(written: object) -> object:
    return [written] if isinstance(written, dict) else written


class SmtpConfig(MailServer, OutgoingConfig):
    """Send mail through an SMTP relay or a provider's submission service."""

    usual_ports: ClassVar = {"tls": 465, "starttls-required": 587, "starttls": 587, "none": 25}

    type: Literal["smtp"]
    port: int | None = Field(default=None, ge=1, le=65535)
    """Follows ``tls`` if it is not given: 465 for ``tls``, 587 for the STARTTLS modes, 25 for ``none``."""
    tls: TlsMode = "starttls-required"
    """``tls`` (from the first octet), ``starttls-required``, ``starttls`` (if the relay offers it; warned about when
    it does not, and never with a password in clear) or ``none`` (in clear; see ``auth`` for the password)."""
    username: str | None = None
    """Log in as this user. Without it mail is sent anonymously."""
    auth: Auth = PasswordAuth()
    """How to log in: ``type: password`` if nothing is said, ``oauth2`` or ``external``."""
    sender: MailAddress
    """The address that our mail comes from."""
    null_sender: bool = True
    """Send with the null envelope sender, so that nobody bounces or answers. false uses ``sender``: for relays that
    refuse the null sender (submission services often do)."""
    timeout: Duration = timedelta(seconds=30)
    """The deadline of every single step. The relay's answer to a complete mail gets ten times as long."""
    helo: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:\[\]-]+$")] | None = None
    """The name we greet with; this host's full name, or its address, if it is not given."""
    max_size: Size = 50_000_000
    """The largest mail in octets that is sent here, whatever the relay would take."""
    connections: int = Field(default=2, ge=1, le=10)
    """How many connections are used at once at most."""
    keep: Duration = timedelta(seconds=15)
    """How long a connection is kept open after its last mail."""

    dkim: Annotated[list[DkimKey], BeforeValidator(_listed)] = Field(default_factory=list, max_length=4)
    """Sign what leaves (DKIM): a key, or a list of them, each of which signs. Else it is left to the relay."""

    @model_validator(mode="after")
    def _whole(self) -> SmtpConfig:
        if self.auth.type == "password":
            if (self.username is None) != (self.password is None):
                raise ValueError("username and password go together; without both, mail is sent anonymously")
        elif self.username is None:
            raise ValueError(f"auth: {{type: {self.auth.type}}} wants a username")
        else:
            check_auth(self.auth, password=self.password, tls=self.tls, client_certificate=self.client_certificate)
        if self.timeout <= timedelta(0):
            raise ValueError("timeout is longer than nothing")
        return self

    def relay(self, credentials: Credentials | None = None) -> RelaySettings:
        """Where the relay is and how it is spoken to."""
        return RelaySettings(
            host=self.host,
            port=self.effective_port,
            tls=self.tls,
            policy=self.policy,
            credentials=credentials,
            timeout=self.timeout,
            helo=self.helo,
            max_size=self.max_size,
            connections=self.connections,
            keep=self.keep,
            proxy=self.proxy,
        )

    def credentials(self, runtime: Runtime) -> Credentials | None:
        """Who logs in, and how; None if nobody does."""
        if self.username is None:
            return None
        return self.login(self.username, self.auth, runtime)

    def password_refused(self) -> str:
        """Microsoft takes some for sending."""
        if self.known_as == "smtp-mail.outlook.com":
            return "outlook.com takes no passwords any more: this login cannot work; it needs OAuth 2.0"
        if provider_of(self.known_as) == "microsoft":
            return "Microsoft 365 refuses passwords for SMTP unless an administrator allows them; plan for OAuth 2.0"
        return super().password_refused()

    def findings(self) -> Iterator[Finding]:
        """Mail that no key is for."""
        yield from super().findings()
        authors = {address for address in (self.from_, self.sender) if address}
        domains = [one.domain for one in self.dkim]
        for address in sorted(authors) if domains else []:
            domain = ascii_address(address).rpartition("@")[2].lower()
            if not any(domain == one or domain.endswith(f".{one}") for one in domains):
                key = "from" if address == self.from_ else "sender"
                yield Finding(key, "no key in dkim is for its domain, so mail from this address is not signed")

    def build(self, name: str, runtime: Runtime) -> Outgoing:
        """The outgoing. Opens nothing."""
        relay = self.relay(self.credentials(runtime))
        return SmtpOutgoing(name, self.sender, relay, null_sender=self.null_sender, signer=Signer(self.dkim))


class SmtpOutgoing:
    """One identity at one relay."""

    def __init__(self, name: str, sender: str, relay: RelaySettings, *, null_sender: bool, signer: Signer) -> None:
        self.name = name
        self.host = relay.host
        self.sender = sender
        self._null_sender = null_sender
        self._signer = signer
        self._relay = Relay(relay)
        self._credentials = relay.credentials

    async def send(self, mail: Mail) -> Answer:
        """Hand the mail to the relay; see :meth:`mailpoller.wire.smtp.Relay.send`."""
        started = monotonic()
        if not mail.sender and not self._null_sender:
            mail = replace(mail, sender=self.sender)
        if self._signer.keys:
            try:
                mail = replace(mail, octets=await asyncio.to_thread(self._signer.signed, mail.octets))
            except ConfigError as error:  # of every mail, and no word about this one
                raise RelayUnavailable(f"it cannot be signed: {error}") from None
        answer = await self._relay.send(mail)
        log.info(
            "mail.sent",
            outgoing=self.name,
            recipients=len(mail.recipients),
            size_bytes=len(mail.octets),
            elapsed_s=round(monotonic() - started, 3),
            answer=answer,
        )
        return answer

    async def post(self, mail: Mail) -> Mapping[str, Said]:
        """See :class:`~mailpoller.core.ports.Posting`."""
        return await posted(self.send, mail)

    def probe(self) -> AsyncIterator[Stage]:
        """Every stage up to the login, and whether the keys can be signed with."""
        return self._with_keys(self._relay.probe())

    def inquire(self, recipients: Sequence[str]) -> AsyncIterator[Stage]:
        """Every stage up to the login, and whether our sender and these recipients are taken."""
        return self._with_keys(self._relay.inquire("" if self._null_sender else self.sender, recipients))

    async def _with_keys(self, stages: AsyncIterator[Stage]) -> AsyncIterator[Stage]:
        if self._signer.keys:
            began = monotonic()
            try:
                said, ok = " | ".join(await asyncio.to_thread(self._signer.records)), True
            except ConfigError as error:
                said, ok = str(error), False
            yield Stage("dkim", ok, timedelta(seconds=monotonic() - began), said, "" if ok else _KEYS_ADVICE)
        async for stage in stages:
            yield stage

    def expiries(self) -> Sequence[tuple[str, datetime]]:
        """What of the login ends when (aware UTC), as far as it is known."""
        return [] if self._credentials is None else self._credentials.expiries()

    async def close(self) -> None:
        """End the kept connections."""
        await self._relay.close()
