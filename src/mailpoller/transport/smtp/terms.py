"""Where a relay is and how it is spoken to; what can be wrong with it; and its own words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from aiosmtplib import SMTPResponse

from mailpoller.core.errors import MessageRejected, TransientError
from mailpoller.transport.auth import Credentials
from mailpoller.transport.proxy import Proxy
from mailpoller.transport.tls import TlsMode, TlsPolicy


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Where the relay is and how it is spoken to; without ``credentials`` mail is sent anonymously. ``timeout`` is for every single step; ``max_size`` in octets."""

    host: str
    port: int
    tls: TlsMode
    policy: TlsPolicy
    credentials: Credentials | None = None
    timeout: timedelta = timedelta(seconds=30)
    helo: str | None = None
    max_size: int = 50_000_000
    connections: int = 2
    keep: timedelta = timedelta(seconds=15)
    proxy: Proxy | None = None

    @property
    def place(self) -> str:
        """Host and port, for errors and logs."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class RelayUnavailable(TransientError):
    """The relay cannot be reached or spoken to: no other mail would fare better now."""


class RelayCut(RelayUnavailable):
    """As its parent; and it failed at once, before the relay can have taken anything: a second try costs nothing."""


class NotCarried(MessageRejected):
    """The relay cannot carry the mail in this form; a lesser form may pass.

    ``lacks`` is ``8BITMIME`` (the mail has octets above 127) or ``SIZE`` (it is too large; ``limit`` is the most that the
    relay or the configuration allows, in octets, 0 if nobody said).
    """

    def __init__(self, message: str, *, lacks: str, limit: int = 0) -> None:
        super().__init__(message)
        self.lacks = lacks
        self.limit = limit


def words_of(answer: SMTPResponse) -> str:
    """What the relay said, on one line and not too long."""
    text = "".join(one if one.isprintable() else " " for one in f"{answer.code} {answer.message}")
    return " ".join(text.split())[:300]
