"""Envelope senders by which a bounce tells which mail it is about, whatever else it says (VERP).

The address is one of ours with a token behind a plus sign (RFC 5233): the id of the mail, signed with 80 bits of
HMAC-SHA-256, in letters and digits of one case. Nobody who has not got a mail of ours can make one.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32decode, b32encode
from collections.abc import Callable, Mapping

from mailpoller.core.message import Message

LONGEST_LOCAL = 64
"""Octets before the @ (RFC 5321 section 4.5.3.1.1)."""

_TOKEN = re.compile(r"\+mpv-([a-z0-9]{1,8})-([a-z2-7]{26})-([a-z2-7]{16})@", re.IGNORECASE)
_PURPOSE = b"mailpoller return\0"
_FIELDS = frozenset(("to", "delivered-to", "x-original-to", "envelope-to", "x-envelope-to"))
_CONSIDERED = 2000
_TRIED = 20


def return_address(address: str, id: str, key_id: str, key: bytes) -> str:
    """The address to which bounces of the mail of this id (32 hexadecimal digits) come back. Raises ValueError if what
    stands before the @ is too long then."""
    octets = bytes.fromhex(id)
    local, _, domain = address.rpartition("@")
    written = f"{local}+mpv-{key_id}-{_text(octets)}-{_signature(octets, key_id, key)}"
    if len(written.encode("utf-8")) > LONGEST_LOCAL:
        raise ValueError(f"{address} is too long: with a token there are more than {LONGEST_LOCAL} octets before the @")
    return f"{written}@{domain}"


def returned(message: Message, keys: Mapping[str, Callable[[], bytes | None]]) -> str:
    """The id of the mail that comes back to the address that ``message`` was sent to; "" if none does, or nobody of
    ours signed it. Reads the header alone; never raises."""
    tried = 0
    for name, value in message.headers:
        if name.lower() not in _FIELDS or "mpv-" not in value[:_CONSIDERED].lower():
            continue
        for found in _TOKEN.finditer(value[:_CONSIDERED]):
            if (tried := tried + 1) > _TRIED:
                return ""
            key_id, text, signature = (group.lower() for group in found.groups())
            octets = b32decode(text.upper() + "=" * (-len(text) % 8))
            reveal = keys.get(key_id)
            key = reveal() if reveal is not None else None
            if key is not None and hmac.compare_digest(signature, _signature(octets, key_id, key)):
                return octets.hex()
    return ""


def _text(octets: bytes) -> str:
    return b32encode(octets).decode("ascii").rstrip("=").lower()


def _signature(octets: bytes, key_id: str, key: bytes) -> str:
    signed = _PURPOSE + key_id.encode("ascii") + b"\0" + octets
    return _text(hmac.digest(key, signed, "sha256")[:10])
