"""A queue that is a mailbox at a delivery agent (LMTP, RFC 2033): every message goes there as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote

from pydantic import Field, model_validator

from mailpoller.core.channel import Channel
from mailpoller.core.component import Finding, Runtime, SinkConfig
from mailpoller.core.delivery import Delivery, Payload
from mailpoller.core.literals import FilePath, MailAddress, MailAddresses, Size
from mailpoller.core.ports import Answer, Clock, Mail, Sink, Stage
from mailpoller.mail.compose import Form
from mailpoller.mail.delivered import below_our_field
from mailpoller.sinks.smtp.partly import Partly
from mailpoller.sinks.smtp.sink import SmtpQueue
from mailpoller.wire.literals import HostName, Wait
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.smtp import Relay, RelaySettings
from mailpoller.wire.tls import Fingerprint, TlsMode, TlsPolicy, check_trust


class LmtpQueueConfig(SinkConfig):
    """Hand every message, as it is, to a delivery agent by LMTP: Dovecot, Cyrus, Mailman."""

    type: Literal["lmtp"]
    host: HostName | None = None
    """The server's name, against which its certificate is checked. Or ``socket``."""
    socket: Path | None = None
    """The Unix socket of a server on this machine."""
    port: int = Field(default=24, ge=1, le=65535)
    """Where it listens."""
    to: MailAddresses
    """The address, or a list of them. Each is served by itself; a message counts as held when at least one has it
    and nobody is to be tried again."""
    sender: MailAddress | None = None
    """The envelope sender; the null sender if it is not given, so that nothing is sent back to anybody."""
    tls: TlsMode | None = None
    """``tls`` (from the first octet), ``starttls-required``, ``starttls`` or ``none``. If it is not given: ``none`` to
    this machine, else ``starttls-required``."""
    ca_file: FilePath | None = None
    """Trust the certificates in this PEM file instead of the system's."""
    pin: Fingerprint | None = None
    """Trust exactly the certificate with this SHA-256."""
    client_certificate: FilePath | None = None
    """Our own certificate (PEM), for a server that asks for one."""
    client_key: FilePath | None = None
    """Its private key (PEM, not encrypted), if it is not in the same file."""
    proxy: Proxy | None = None
    """Connect by way of a proxy."""
    payload: Payload = "raw"
    """The octets are handed over and nothing else, whatever is said here."""
    timeout: Wait = timedelta(seconds=30)
    """The deadline of each step; the answers to a message get ten times as long."""
    helo: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:\[\]-]+$")] | None = None
    """The name we greet with; this host's full name, or its address, if it is not given."""
    max_size: Size = 100_000_000
    """Larger messages are refused here, whatever the server would take."""
    connections: int = Field(default=2, ge=1, le=10)
    """How many connections are used at once at most."""
    keep: Wait = timedelta(seconds=15)
    """How long a connection is kept open after its last message."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.host is None) == (self.socket is None):
            raise ValueError("say host or socket, one of them")
        if self.socket is not None and not self.socket.is_absolute():
            raise ValueError("the socket is named by its path from the root")
        if self.socket is not None and (self.proxy is not None or self.tls not in (None, "none")):
            raise ValueError("a socket is on this machine: neither TLS nor a proxy leads there")
        check_trust(self.policy)
        return self

    @property
    def policy(self) -> TlsPolicy:
        """Whom to trust."""
        return TlsPolicy(self.ca_file, self.pin, self.client_certificate, self.client_key)

    def server(self) -> RelaySettings:
        """Where the server is and how it is spoken to."""
        here = self.host is None or _on_this_machine(self.host)
        return RelaySettings(
            host=self.host or "localhost",
            port=self.port,
            tls=self.tls or ("none" if here else "starttls-required"),
            policy=self.policy,
            timeout=self.timeout,
            helo=self.helo,
            max_size=self.max_size,
            connections=self.connections,
            keep=self.keep,
            proxy=self.proxy,
            lmtp=True,
            socket=self.socket,
        )

    def channel(self, name: str) -> Channel:
        """See the parent's."""
        host = f"{self.host}:{self.port}" if self.host is not None else str(self.socket)
        return Channel("lmtp", host, ", ".join(self.to), "mail")

    def findings(self) -> Iterator[Finding]:
        """Mail that everybody on the way can read."""
        yield from super().findings()
        if self.server().tls == "none" and self.host is not None and not _on_this_machine(self.host):
            yield Finding("tls", "messages go to another machine in clear: starttls-required and tls do not let them")

    @property
    def carries_octets(self) -> bool:
        return True

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Opens nothing."""
        agent = Agent(self.server(), self.sender or "")
        file = runtime.state_directory / "recipients" / f"{quote(name, safe='')[:120]}.json"
        return LmtpQueue(name, agent, tuple(self.to), runtime.clock, Partly(file))


def _on_this_machine(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold().rstrip(".") == "localhost"


class Agent:
    """A delivery agent, as what a mail is sent through. ``sender`` is the envelope's."""

    def __init__(self, server: RelaySettings, sender: str) -> None:
        self.host = server.place
        self.sender = sender
        self._relay = Relay(server)

    async def send(self, mail: Mail) -> Answer:
        """See :meth:`mailpoller.wire.smtp.Relay.send`."""
        return await self._relay.send(replace(mail, sender=self.sender))

    def probe(self) -> AsyncIterator[Stage]:
        """Every stage up to the greeting."""
        return self._relay.probe()

    def inquire(self, recipients: Sequence[str]) -> AsyncIterator[Stage]:
        """And whether our sender and these recipients are taken."""
        return self._relay.inquire(self.sender, recipients)

    async def close(self) -> None:
        """End the kept connections."""
        await self._relay.close()


class LmtpQueue(SmtpQueue):
    """Hands over the message itself, below one field of ours. Whom the server did not serve gets it alone."""

    _lesser_forms = False

    def __init__(self, name: str, agent: Agent, recipients: tuple[str, ...], clock: Clock, partly: Partly) -> None:
        super().__init__(name, agent, recipients, clock, partly)
        self._agent = agent

    def _mail(self, delivery: Delivery, to: tuple[str, ...], form: Form) -> Mail:
        # On the wire lines end with CRLF (RFC 5321 section 2.3.8).
        return Mail("", to, below_our_field(delivery, crlf=True))

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._agent.close()
