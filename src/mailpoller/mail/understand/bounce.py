"""What a bounce tells: which recipients, why, and of which message (RFC 3464, and what is older than it)."""

from __future__ import annotations

import re
from dataclasses import replace

from mailpoller.core.classification import Bounce, BouncedRecipient
from mailpoller.core.message import Message
from mailpoller.core.spool import Block
from mailpoller.mail.address import parse_addresses
from mailpoller.mail.charset import decode
from mailpoller.mail.header import read_header
from mailpoller.mail.structure import Part
from mailpoller.mail.transfer import decoded
from mailpoller.mail.understand import nonstandard
from mailpoller.mail.understand.delivery_status import envelope_id, read_delivery_status
from mailpoller.mail.words import readable

_CONSIDERED = 1 << 16
_MESSAGE_ID = re.compile(r"<[^<>\s]{1,990}>")
_STATUSES = frozenset(("message/delivery-status", "message/global-delivery-status"))
_ORIGINALS = frozenset(("message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers",
                        "message/rfc822-headers", "text/rfc822-header"))  # fmt: skip
_DONE = frozenset(("delivered", "relayed", "expanded"))
_LATER = re.compile(
    r"will (?:be re|re|continue|keep)tr|try(?:ing)? again|will continue|still trying|do not need to (?:re)?send|"
    r"not yet been delivered|has not been delivered yet|warning message only|no action is required|delayed|"
    r"weitere zustellversuche|wird (?:erneut|weiter)|nouvelle tentative|se seguirá intentando|wordt opnieuw",
    re.IGNORECASE,
)
_SENT = re.compile(
    r"successfully (?:delivered|relayed)|was delivered to|has been delivered|confirmation of delivery", re.IGNORECASE
)


def read_bounce(message: Message, octets: Block, parts: list[Part]) -> tuple[Bounce, str]:
    """What ``message`` tells as a bounce, and ``hard``, ``soft``, ``delayed`` or ``success``; "" if nothing says so.

    ``parts``: those in the first of its ``octets``. Bounded: 64 KiB of each part, 100 recipients. Never raises.
    """
    status = next((part for part in parts if part.content_type in _STATUSES), None)
    original = next((part for part in parts if part.content_type in _ORIGINALS), None)
    text, copy, subject, named = "", b"", "", ""
    recipients: tuple[BouncedRecipient, ...] = ()
    if status is not None:
        told = first_octets(octets, status)
        recipients, named = read_delivery_status(told), envelope_id(told)
    if original is not None:
        copy = first_octets(octets, original)
    if not recipients or not copy:
        own = next((part for part in parts if part.content_type == "text/plain"), None)
        own = own or next((part for part in parts if part.content_type == "text/html"), None)
        if own is not None:
            text, _ = decode(first_octets(octets, own), own.charset)
            if own.content_type == "text/html":
                text = _TAGS.sub(" ", text).replace("&lt;", "<").replace("&gt;", ">")
            words, copied = nonstandard.split(text.replace("\r\n", "\n"))
            recipients = recipients or _named(message, words)
            subject = nonstandard.read_subject(words)
            copy = copy or "\n".join(copied).encode("utf-8", "replace")
    values = _values(copy)
    identified = _MESSAGE_ID.search(values.get("message-id", ""))
    if identified is not None:
        message_id = identified[0]
    else:
        message_id = next(iter((*message.in_reply_to, *reversed(message.references))), "")
    bounce = Bounce(
        recipients,
        message_id=message_id,
        recipient=_recipient(values, recipients),
        subject=readable(values.get("subject", "") or subject)[:1000],
        envelope_id=named,
    )
    return bounce, _subclass(recipients, text)


_TAGS = re.compile(r"<(?:/?[a-zA-Z!][^<>]{0,500}+)>")


def first_octets(octets: Block, part: Part) -> bytes:
    """The first 64 KiB of a part, decoded."""
    held: list[bytes] = []
    size = 0
    end = min(part.end, part.start + _CONSIDERED)
    for piece in decoded(octets, part.start, end, part.encoding, []):
        held.append(piece)
        size += len(piece)
        if size > _CONSIDERED:
            break
    return b"".join(held)[:_CONSIDERED]


def _values(copy: bytes) -> dict[str, str]:
    """The fields of the message that was returned, the first of each name."""
    if not copy:
        return {}
    header = read_header(copy, 0, len(copy), kept=500, top=True)
    values: dict[str, str] = {}
    for name, value in header.fields:
        values.setdefault(name.lower(), value)
    return values


def _named(message: Message, words: list[str]) -> tuple[BouncedRecipient, ...]:
    """The recipients that a header field names, or else the text."""
    told = [
        address
        for value in message.header("x-failed-recipients")[:100]
        for address in parse_addresses(value[:10_000])[0]
    ]
    own = {address.address.lower() for address in (*message.to, *message.cc, *message.from_)}
    found = nonstandard.read_recipients(words, frozenset(own))
    if not told:
        return found
    by_address = {recipient.final_recipient.lower(): recipient for recipient in found}
    return tuple(
        replace(by_address.get(address.address.lower(), BouncedRecipient("")), final_recipient=address.address)
        for address in told[: nonstandard.RECIPIENTS_KEPT]
    )


def _recipient(values: dict[str, str], recipients: tuple[BouncedRecipient, ...]) -> str:
    """To whom the message was sent: as it says itself, or else as its servers do."""
    addressed = [address.address for address in parse_addresses(values.get("to", "")[:2000])[0] if address.address]
    told = [recipient.original_recipient or recipient.final_recipient for recipient in recipients]
    if len(addressed) == 1 or not told:
        return addressed[0] if addressed else (told[0] if told else "")
    lower = {address.lower() for address in addressed}
    return next((address for address in told if address.lower() in lower), told[0])


def _subclass(recipients: tuple[BouncedRecipient, ...], text: str) -> str:
    """The worst of what became of the recipients."""
    actions = {recipient.action for recipient in recipients}
    statuses = [recipient.status[:1] for recipient in recipients if recipient.action in ("failed", "")]
    if "failed" in actions or (not actions - {""} and "5" in statuses):
        return "soft" if statuses and all(status == "4" for status in statuses) else "hard"
    if "delayed" in actions:
        return "delayed"
    if actions & _DONE:
        return "success"
    if text and _LATER.search(text):
        return "delayed"
    if text and "5" not in statuses and _SENT.search(text) and "not" not in text[:200]:
        return "success"
    return "soft" if statuses and set(statuses) == {"4"} else ""
