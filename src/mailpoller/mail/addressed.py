"""A mail for services that go by its header alone: whom it names there is whom they send it to."""

from __future__ import annotations

from email.parser import BytesHeaderParser
from email.policy import compat32
from email.utils import getaddresses

from mailpoller.core.errors import MessageRejected
from mailpoller.core.ports import Mail
from mailpoller.mail.compose import ascii_address

_FIELDS = ("to", "cc", "bcc")
_DIVERTED = frozenset((b"to", b"cc", b"bcc", b"resent-to", b"resent-cc", b"resent-bcc", b"apparently-to"))


def addressed(mail: Mail) -> bytes:
    """The mail with all its recipients in the header. Whom it does not name there becomes a Bcc, which the service
    takes off. Raises :class:`MessageRejected` if it names anybody whom it is not for.
    """
    end = mail.octets.find(b"\r\n\r\n")
    header = BytesHeaderParser(policy=compat32).parsebytes(mail.octets if end < 0 else mail.octets[: end + 4])
    fields = [_text(value) for name, value in header.raw_items() if name.strip().lower() in _FIELDS]
    named: set[str] = set()
    for field in fields:
        found = {_plain(address) for _, address in getaddresses([field]) if address}
        if "@" in field and not found:  # whom a service sees there is not known
            raise MessageRejected("the mail's header names recipients in a way that cannot be read")
        named |= found
    wanted = {_plain(address): address for address in mail.recipients}
    if named - wanted.keys():
        raise MessageRejected(
            "the mail's header names recipients whom it is not for, and the service would send it to them"
        )
    hidden = [address for lower, address in wanted.items() if lower not in named]
    if any(not _fit(address) for address in hidden):
        raise MessageRejected("a recipient cannot be written into a header")
    return b"Bcc: " + ",\r\n ".join(hidden).encode("utf-8") + b"\r\n" + mail.octets if hidden else mail.octets


def diverted(octets: bytes, to: str) -> bytes:
    """The mail with this address as the only recipient in its header. Whom it named stands beside it, under
    ``X-Diverted-To`` and the like, where neither a service nor an answer to all goes by it."""
    header, gap, body = octets.partition(b"\r\n\r\n")
    lines = header.split(b"\r\n")
    for number, one in enumerate(lines):
        name, colon, value = one.partition(b":")
        if colon and not one[:1].isspace() and name.strip().lower() in _DIVERTED:
            lines[number] = b"X-Diverted-" + name.strip() + b":" + value
    return b"To: " + to.encode("utf-8") + b"\r\n" + b"\r\n".join(lines) + gap + body


def _text(value: str) -> str:
    """A field's value as it is read at the library: octets above 127 are UTF-8 (RFC 6532)."""
    return value.encode("ascii", "surrogateescape").decode("utf-8", "replace")


def _plain(address: str) -> str:
    """As it is compared: recipients have their domain in A-labels, a header may have it as it is written."""
    return ascii_address(address).lower()


def _fit(address: str) -> bool:
    return address.isprintable() and not any(one.isspace() or one in "<>,;" for one in address)
