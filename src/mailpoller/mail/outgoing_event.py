"""The event of a mail that was handed in: what became of it, as the queue of its intake receives it (CloudEvents 1.0).

``outgoing-event.schema.json`` beside this file is its schema.
"""

from __future__ import annotations

import orjson

from mailpoller.core.delivery import Event
from mailpoller.core.ports import OutboxEvent, OutboxRefusal

TYPE = "org.mailpoller.outgoing."
"""What every CloudEvents ``type`` of theirs begins with; ``sent``, ``deferred``, ``failed``, ``bounced`` or ``refused``
follows."""
OUTGOING_SCHEMA = "urn:mailpoller:schema:outgoing:1"
"""Their ``dataschema``. Additions keep the number."""

_OPTIONS = orjson.OPT_UTC_Z


def outgoing_event(one: OutboxEvent, *, queue: str, delivery_id: str) -> Event:
    """The event for one queue."""
    mail = one.mail
    envelope = {
        "specversion": "1.0",
        "id": f"{mail.id}-{one.number}-{int(one.at.timestamp() * 1e6)}",  # a ledger put back gives numbers again
        "source": f"mailpoller/outgoing/{mail.identity}",
        "type": TYPE + one.kind,
        "subject": mail.id,
        "time": one.at,
        "datacontenttype": "application/json",
        "dataschema": OUTGOING_SCHEMA,
        "deliveryid": delivery_id,
        "queue": queue,
        "priority": "normal",
    }
    data = {
        "id": mail.id,
        "intake": mail.intake,
        "key": mail.key or None,
        "identity": mail.identity,
        "mailbox": mail.mailbox or None,
        "mid": mail.mid or None,
        "message_id": mail.message_id,
        "attempt": one.attempt,
        "recipients": [{"address": address, "words": words} for address, words in one.said.items()],
    }
    return Event(orjson.dumps(envelope, option=_OPTIONS), (orjson.dumps(data),))


def refusal_event(one: OutboxRefusal, *, queue: str, delivery_id: str) -> Event:
    """The event of an entry that was refused, for one queue."""
    envelope = {
        "specversion": "1.0",
        "id": one.id,
        "source": f"mailpoller/intakes/{one.intake}",
        "type": TYPE + "refused",
        "subject": one.id,
        "time": one.at,
        "datacontenttype": "application/json",
        "dataschema": OUTGOING_SCHEMA,
        "deliveryid": delivery_id,
        "queue": queue,
        "priority": "normal",
    }
    data = {
        "intake": one.intake,
        "key": one.key or None,
        "entry": one.entry,
        "mid": one.mid or None,
        "reason": one.reason,
    }
    return Event(orjson.dumps(envelope, option=_OPTIONS), (orjson.dumps(data),))
