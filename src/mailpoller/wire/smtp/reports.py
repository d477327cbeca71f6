"""Asking a relay for reports that name our mail and its recipients as we do (RFC 3461)."""

from __future__ import annotations

from collections.abc import Sequence

MISREAD = frozenset((501, 504, 555))
"""Answers of a relay that offers reports and does not know their parameters (RFC 5321 section 4.1.1.11)."""


def of_mail(envelope_id: str) -> list[bytes]:
    """The parameters of MAIL: a report has the header alone, and this id."""
    return [b"RET=HDRS", b"ENVID=" + _xtext(envelope_id)]


def of_recipient(address: str, options: Sequence[bytes]) -> list[bytes]:
    """The parameters of RCPT, where MAIL had ``options``: whoever forwards the mail reports the address that we
    wrote to."""
    return [b"ORCPT=rfc822;" + _xtext(address)] if address.isascii() and any(map(asks, options)) else []


def asks(option: bytes) -> bool:
    """True for a parameter of MAIL that is about reports."""
    return option.startswith((b"RET=", b"ENVID="))


def _xtext(text: str) -> bytes:
    """RFC 3461 section 4."""
    return b"".join(b"%c" % one if 33 <= one <= 126 and one not in b"+=" else b"+%02X" % one for one in text.encode())
