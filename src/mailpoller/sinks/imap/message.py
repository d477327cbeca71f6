"""A message as it goes into another mailbox: one field of ours, then its octets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from mailpoller.core.delivery import Delivery

FIELD = "X-Mailpoller-Delivery"
"""What a repeat is known by; the same as for a delivery agent (LMTP)."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def unfit(delivery: Delivery, most: int) -> str:
    """Why the message is not put there, whatever the server would say; empty if it may be."""
    size = delivery.raw.octets.size
    return f"the message has {size:,} octets, and max_size is {most:,}" if size > most else ""


def framed(delivery: Delivery) -> bytes:
    """The octets below our field. Lines that end with LF alone, all of them, get CRLF (RFC 5322 section 2.3)."""
    cut = "; truncated" if delivery.raw.truncated else ""
    octets = bytes(delivery.raw.octets.view())
    if b"\r\n" not in octets:
        octets = octets.replace(b"\n", b"\r\n")
    return f"{FIELD}: {delivery.delivery_id}{cut}\r\n".encode() + octets


def arguments(delivery: Delivery, flags: Sequence[str], octets: bytes) -> list[str]:
    """What APPEND is told behind the folder's name: flags, the date when it arrived, the literal (RFC 3501 section
    6.3.11; RFC 3516 section 4.4 for one with a NUL)."""
    words = [f"({' '.join(flags)})"] if flags else []
    if delivery.raw.received is not None and delivery.raw.received.year > 1900:
        at = delivery.raw.received.astimezone(UTC)
        words.append(f'"{at.day:2d}-{_MONTHS[at.month - 1]}-{at.year:04d} {at:%H:%M:%S} +0000"')
    binary = "~" if b"\0" in octets else ""
    words.append(f"{binary}{{{len(octets)}}}")
    return words
