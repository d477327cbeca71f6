"""What a queue gets of a message: the event as it wishes it, and the octets if it wants them."""

from __future__ import annotations

from mailpoller.core.attributes import Attributes
from mailpoller.core.delivery import QUARANTINE, Delivery
from mailpoller.core.identity import redeliveries
from mailpoller.core.message import RawMessage
from mailpoller.engine.queues import Queue
from mailpoller.engine.referring import blob_of
from mailpoller.mail.event import EventRenderer


def delivery_to(
    queue: Queue, name: str, renderer: EventRenderer, raw: RawMessage, delivery_id: str, attributes: Attributes
) -> Delivery:
    """The delivery of a message to ``queue``, which its route calls ``name``; the quarantine has the octets always."""
    wanted = queue.octets_wanted or name == QUARANTINE
    blob = None
    if wanted and queue.blobs is not None and raw.octets.size > queue.blobs_above and name != QUARANTINE:
        wanted, blob = False, blob_of(raw, queue.blobs)
    event = renderer.render(
        queue=name,
        delivery_id=delivery_id,
        payload=queue.payload,
        octets_inside=wanted and queue.sink.octets_place == "inside",
        blob=blob,
        redelivery=redeliveries(raw.claim.generation),
    )
    return Delivery(
        delivery_id=delivery_id,
        mid=raw.claim.mid,
        queue=name,
        event=event,
        raw=raw,
        octets_wanted=wanted,
        attributes=attributes,
        blob=blob,
    )
