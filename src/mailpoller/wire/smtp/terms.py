"""Where a relay is and how it is spoken to; what can be wrong with it; and its own words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from aiosmtplib import SMTPResponse

from mailpoller.core.errors import MessageRejected, TransientError
from mailpoller.core.record import record
from mailpoller.wire.auth import Credentials
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.tls import TlsMode, TlsPolicy


@record
class RelaySettings:
    """Where the relay is and how it is spoken to; without ``credentials`` mail is sent anonymously. ``timeout`` is
    for every single step; ``max_size`` in octets."""

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
    lmtp: bool = False
    """Speak LMTP (RFC 2033): each recipient has an answer of its own."""
    socket: Path | None = None
    """The Unix socket where it is, in place of host and port."""

    @property
    def place(self) -> str:
        """Host and port, or the socket, for errors and logs."""
        if self.socket is not None:
            return str(self.socket)
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class RelayUnavailable(TransientError):
    """The relay cannot be reached or spoken to: no other mail would fare better now."""


class RelayCut(RelayUnavailable):
    """As its parent; and it failed at once, before the relay can have taken anything: a second try costs nothing."""


class RelayUncertain(RelayUnavailable):
    """As its parent; and it had the whole mail when it failed, so it may have taken it: a second try may be a
    repeat."""


class NotNow(TransientError):
    """The relay put us off (4xx) before it had seen an octet of the mail: whatever the reason is, it is not the
    mail. ``part`` and ``said`` as in :class:`EnvelopeRefused`."""

    def __init__(self, message: str, *, part: str = "sender") -> None:
        super().__init__(message)
        self.part = part
        self.said: Mapping[str, SMTPResponse] = {}


class EnvelopeRefused(MessageRejected):
    """The relay refused the mail for its sender or its recipients, or before it had seen an octet of it.

    ``part`` is ``sender``, ``recipients`` or ``mail``; ``said``: the relay's answer to each recipient, as far as it
    came to them. Where sender and recipients are the configuration's, every
    other mail would fare the same until a human has done something: then it is we who are refused, and ``advice``
    says what to do.
    """

    def __init__(self, message: str, *, part: str, advice: str = "") -> None:
        super().__init__(message)
        self.part = part
        self.advice = advice
        self.said: Mapping[str, SMTPResponse] = {}


class NotCarried(MessageRejected):
    """The relay cannot carry the mail in this form; a lesser form may pass.

    ``lacks`` is ``8BITMIME`` (the mail has octets above 127), ``SIZE`` (it is too large; ``limit`` is the most that the
    relay or the configuration allows, in octets, 0 if nobody said) or ``SMTPUTF8`` (an address is not in ASCII).
    """

    def __init__(self, message: str, *, lacks: str, limit: int = 0) -> None:
        super().__init__(message)
        self.lacks = lacks
        self.limit = limit


def status_of(answer: SMTPResponse) -> str:
    """The enhanced status code of an answer without its class (``1.7`` of ``5.1.7``; RFC 3463), or nothing if it has
    none."""
    found = re.match(r"[245]\.(\d{1,3}\.\d{1,3})\b", answer.message.strip())
    return found[1] if found else ""


def words_of(answer: SMTPResponse) -> str:
    """What the relay said, on one line and not too long."""
    text = "".join(one if one.isprintable() else " " for one in f"{answer.code} {answer.message}")
    return " ".join(text.split())[:300]
