"""What APPEND is told of a message that goes into another mailbox."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC

from mailpoller.core.delivery import Delivery

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


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
