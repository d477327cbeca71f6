"""A quarantined message made from what is held of it: the one that was fetched, once more."""

from __future__ import annotations

import asyncio

from mailpoller.core.body import Body, Undone
from mailpoller.core.delivery import QUARANTINE, Delivery
from mailpoller.core.identity import mint_delivery_id
from mailpoller.core.message import Claim, Folder, Message, MessageRef, RawMessage
from mailpoller.core.quarantined import Quarantined
from mailpoller.core.spool import Octets
from mailpoller.core.standing import Standing
from mailpoller.core.verdict import Deliver, Quarantine
from mailpoller.engine.delivering import delivery_to
from mailpoller.engine.queues import Queue
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.parser import parse
from mailpoller.workers.pool import Unread, Workers


def raw_of(held: Quarantined, octets: Octets) -> RawMessage:
    """The message as it was fetched. Its claim is nobody's: neither a ledger nor a session is told of it."""
    folder = Folder(held.mailbox, held.folder, held.epoch)
    ref = MessageRef(folder, held.uid, held.listed, held.received)
    return RawMessage(
        claim=Claim(ref, held.mid, generation=held.generation, plain_id=has_plain_id(held)),
        octets=octets,
        truncated=held.truncated,
        announced=held.announced,
        received=held.received,
        flags=held.flags,
        doubt=held.doubt,
    )


def has_plain_id(held: Quarantined) -> bool:
    """True if its delivery ids are made without its identity."""
    return mint_delivery_id(held.mid, QUARANTINE, held.generation) == held.delivery_id


def verdict_of(held: Quarantined) -> Quarantine:
    """Why it is in quarantine."""
    return Quarantine(held.reason, held.detail, held.rules)


async def body_of(raw: RawMessage, workers: Workers | None) -> Body:
    """The body, read where it can do no harm; what cannot be read is left out, and says so. Raises
    :class:`~mailpoller.workers.pool.NoWorker`."""
    if workers is None:
        return await asyncio.to_thread(lambda: parse(raw).body)
    try:
        return await workers.read(raw)
    except Unread as unread:
        return Body("", "", (), undone=(Undone("body", str(unread)),))


def delivery_of(
    message: Message,
    verdict: Deliver | Quarantine,
    queue: Queue,
    *,
    name: str,
    held: Quarantined,
    standing: Standing,
    delivery_id: str,
    released_by: str = "",
) -> Delivery:
    """The delivery of a held message to ``queue``, which its route calls ``name``."""
    renderer = EventRenderer(
        message,
        verdict=verdict,
        source=f"mailpoller/{held.mailbox}",
        now=held.held_at,
        repeat_of=held.repeat_of,
        standing=standing,
        released_by=released_by,
    )
    return delivery_to(queue, name, renderer, message.raw, delivery_id, verdict.attributes)
