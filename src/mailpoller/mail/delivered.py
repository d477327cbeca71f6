"""A message as it goes to whoever keeps mail: one field of ours, then its octets."""

from __future__ import annotations

from mailpoller.core.delivery import Delivery

FIELD = "X-Mailpoller-Delivery"
"""What a repeat is known by, in a mailbox of any kind."""


def below_our_field(delivery: Delivery, *, crlf: bool) -> bytes:
    """The octets below :data:`FIELD`. ``crlf``: lines that end with LF alone, all of them, get CRLF (RFC 5322 section
    2.3); else the field's line ends as those of the message."""
    cut = "; truncated" if delivery.raw.truncated else ""
    octets = bytes(delivery.raw.octets.view())
    if crlf and b"\r\n" not in octets:
        octets = octets.replace(b"\n", b"\r\n")
    end = "\r\n" if crlf or b"\r\n" in octets[:1000] or b"\n" not in octets[:1000] else "\n"
    return f"{FIELD}: {delivery.delivery_id}{cut}{end}".encode() + octets
