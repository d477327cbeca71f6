"""What SQS and SNS are handed: text of XML's characters alone, beside it a few attributes, all of it counted.

Ten of them go in one call, which has one limit for all, and of which each gets an answer of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from mailpoller.core.delivery import Delivery, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.record import record
from mailpoller.wire.redaction import spoken

AT_ONCE = 10
"""Entries of one call."""
_UNSENT = ("\ufffe", "\uffff")
"""XML knows neither of them (XML 1.0, section 2.2), nor the control characters, which JSON escapes anyway."""
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_GROUP = re.compile(r"[^!-~]")
_LONGEST_GROUP = 128
_LONGEST_ATTRIBUTE = 256
_TOO_LARGE = re.compile(r"shorter than|too long|size limit|length limit", re.IGNORECASE)
_ABOUT_A_MESSAGE = frozenset(("InvalidMessageContents", "MessageTooLong", "BatchRequestTooLong", "InvalidBatchEntryId"))
"""Codes that are about what is in a message, or about how much of it there is."""
_ABOUT_US = re.compile(r"Access|Auth|Kms|KMS|Throttl|Token|Signature")


@record
class Entry:
    """A delivery as it is sent. The body is mail and is not shown. ``size``: octets that count against the limit."""

    delivery: Delivery
    body: str = field(repr=False)
    attributes: Mapping[str, str]
    size: int

    def typed(self) -> dict[str, dict[str, str]]:
        """The attributes as the library wants them."""
        return {name: {"DataType": "String", "StringValue": value} for name, value in self.attributes.items()}


def entry_of(delivery: Delivery) -> Entry:
    """The event as JSON. What XML does not know stands only inside of strings there, and is escaped: nothing of it is
    lost, and nothing has to be refused for it."""
    body = delivery.event.structured().decode()
    for one in _UNSENT:
        if one in body:
            body = body.replace(one, f"\\u{ord(one):04x}")
    attributes = attributes_of(delivery)
    return Entry(delivery, body, attributes, len(body.encode()) + attributes_size(attributes))


def attributes_of(delivery: Delivery) -> dict[str, str]:
    """What consumers and subscriptions may filter by, without reading the event."""
    said = {
        "deliveryid": delivery.delivery_id,
        "mailbox": delivery.raw.claim.ref.folder.mailbox,
        "topic": delivery.attributes.topic,
        "priority": delivery.attributes.priority,
    }
    return {name: _NO_XML.sub("_", value)[:_LONGEST_ATTRIBUTE] for name, value in said.items() if value}


def attributes_size(attributes: Mapping[str, str]) -> int:
    """Octets of attributes that count: names, types and values."""
    return sum(len(name) + len("String") + len(value.encode()) for name, value in attributes.items())


def least_size(delivery: Delivery) -> int:
    """Octets that an entry has at least; nothing is rendered for it."""
    return delivery.event.size + attributes_size(attributes_of(delivery))


def group_of(delivery: Delivery, pattern: str) -> str:
    """The group of a FIFO queue or topic: ``{topic}``, ``{mailbox}`` and ``{deliveryid}`` stand for the message's."""
    told = attributes_of(delivery)
    found = pattern
    for name in ("topic", "mailbox", "deliveryid"):
        found = found.replace(f"{{{name}}}", told.get(name, "_"))
    return _NO_GROUP.sub("_", found)[:_LONGEST_GROUP] or "_"


def about_a_message(code: str, words: str) -> bool:
    """Whether an error is about a message, and not about the queue or us."""
    return code in _ABOUT_A_MESSAGE or bool(_TOO_LARGE.search(words))


def outcomes(
    part: Sequence[Entry], answer: Mapping[str, Any], place: str
) -> list[Mapping[str, Any] | Refusal | TransientError]:
    """What became of each entry, in order: what is said of one that was taken, else whose trouble it is. They were sent
    under the names ``0``, ``1`` …; one of which nothing is said is the queue's trouble."""
    taken = {str(one.get("Id")): one for one in answer.get("Successful") or ()}
    failed = {str(one.get("Id")): one for one in answer.get("Failed") or ()}
    found: list[Mapping[str, Any] | Refusal | TransientError] = []
    for number, entry in enumerate(part):
        name = str(number)
        if name in failed:
            found.append(_failure(entry.delivery.delivery_id, failed[name], place))
        elif name in taken:
            found.append(taken[name])
        else:
            found.append(TransientError(f"{place}: an answer that does not say what became of the message"))
    return found


def _failure(delivery_id: str, said: Mapping[str, Any], place: str) -> Refusal | TransientError:
    code, words = str(said.get("Code") or "").rpartition(".")[2], str(said.get("Message") or "")
    told = f"{place}: {spoken(code)}: {spoken(words)}"
    if about_a_message(code, words):
        return Refusal(delivery_id, told, permanent=True)
    if not said.get("SenderFault") or _ABOUT_US.search(code):
        return TransientError(told)
    return Refusal(delivery_id, told)  # it may be the message, and it may be the block: others tell
