"""How the mail tests read octets: as if a mailbox had just given them."""

from __future__ import annotations

from datetime import UTC, datetime

from mailpoller.core.message import Claim, Folder, Message, MessageRef, RawMessage
from mailpoller.core.spool import Octets
from mailpoller.mail.parser import parse

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)


def raw(octets: bytes | Octets) -> RawMessage:
    """The octets as fetched from the mailbox ``support``."""
    held = octets if isinstance(octets, Octets) else Octets.of(octets)
    return RawMessage(Claim(MessageRef(Folder("support", "INBOX", "1"), "17"), "mid"), held, received=NOW)


def read(octets: bytes | Octets) -> Message:
    """The octets, parsed."""
    return parse(raw(octets))


def field(name: str, value: str | bytes) -> Message:
    """A message with this one header field."""
    octets = value if isinstance(value, bytes) else value.encode()
    return read(name.encode() + b": " + octets + b"\r\n\r\n")
