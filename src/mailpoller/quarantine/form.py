"""The file of a held message: one line of JSON that says what it is and why it is held, then its octets as they came.

One file, so that octets and reason become durable together, by one rename, and go together.
"""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import datetime
from typing import Any

from mailpoller.core.delivery import QUARANTINE, Delivery
from mailpoller.core.errors import MailpollerError
from mailpoller.core.quarantined import Quarantined
from mailpoller.core.removal import ATTACHMENTS
from mailpoller.mail.parser import UNPARSED

LONGEST_LINE = 1 << 20
"""Octets of the first line that are read."""

_VERSION = 1
_KEPT = 1000
"""Characters of a text that the line keeps: the whole is in the octets."""
_FIELDS = frozenset(field.name for field in fields(Quarantined))
_INSTANTS = ("held_at", "received")
_TEXTS = ("delivery_id", "mid", "mailbox", "folder", "epoch", "uid", "reason")


class Damaged(MailpollerError):
    """What lies in the place of a held message is not what was held."""


def described(delivery: Delivery, now: datetime) -> Quarantined:
    """What there is to say of a delivery to the quarantine."""
    raw, said = delivery.raw, delivery.attributes
    folder, facts = raw.claim.ref.folder, _facts(delivery)
    return Quarantined(
        delivery_id=delivery.delivery_id,
        mid=delivery.mid,
        mailbox=folder.mailbox,
        folder=folder.name,
        epoch=folder.epoch,
        uid=raw.claim.ref.uid,
        reason=said.reason,
        detail=_bounded(said.detail),
        rules=tuple(str(rule) for rule in _list(facts.get("rules"))),
        held_at=now,
        size=raw.octets.size,
        digest=raw.octets.digest,
        sender=_bounded(_first_address(facts.get("from"))),
        message_id=_bounded(facts.get("message_id")),
        subject=_bounded(facts.get("subject")),
        received=raw.received,
        listed=raw.claim.ref.size,
        announced=raw.announced,
        truncated=raw.truncated,
        doubt=_bounded(raw.doubt),
        parsed=UNPARSED not in _list(facts.get("defects")),
        generation=raw.claim.generation,
        repeat_of=facts.get("repeat_of"),
        flags=raw.flags[:100],
        # A notice by mail of our own mail would come back as the next one; and a message that its queues have is no
        # trouble that anybody has to be told of.
        notice_owed=not facts.get("looped") and said.reason != ATTACHMENTS,
    )


def line(held: Quarantined) -> bytes:
    """The first line, with its line feed."""
    told: dict[str, Any] = {"version": _VERSION, "queue": QUARANTINE}
    for name in sorted(_FIELDS - {"notice_owed", "notice_tries", "notice_trouble"}):
        value = getattr(held, name)
        told[name] = value.isoformat() if isinstance(value, datetime) else value
    told["digest"] = held.digest.hex()
    return json.dumps(told).encode("ascii") + b"\n"  # escaped: a lone surrogate of a folder's name is no trouble


def understood(octets: bytes) -> Quarantined:
    """The inverse of :func:`line`, without its line feed. Raises :class:`Damaged`."""
    try:
        told = json.loads(octets)
        if told.pop("version") != _VERSION:
            raise ValueError("another version")
        known = {name: value for name, value in told.items() if name in _FIELDS}
        for name in _INSTANTS:
            if known.get(name) is not None:
                known[name] = datetime.fromisoformat(known[name])
        for name in ("rules", "flags"):
            known[name] = tuple(map(str, known[name]))
        known["digest"] = bytes.fromhex(known["digest"])
        held = Quarantined(**known)
        if held.size < 0 or held.held_at.tzinfo is None or not all(isinstance(known[name], str) for name in _TEXTS):
            raise ValueError("not ours")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(f"its first line cannot be read ({type(error).__name__})") from None
    return held


def _facts(delivery: Delivery) -> dict[str, Any]:
    found = json.loads(delivery.event.data())
    return found if isinstance(found, dict) else {}


def _bounded(value: Any) -> str:
    return value[:_KEPT] if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _first_address(value: Any) -> str:
    first = next(iter(_list(value)), None)
    return str(first.get("address", "")) if isinstance(first, dict) else ""
