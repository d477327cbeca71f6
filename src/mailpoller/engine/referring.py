"""Octets that an event refers to, instead of holding them."""

from __future__ import annotations

from collections.abc import Sequence

from mailpoller.core.delivery import Blob, Delivery
from mailpoller.core.message import RawMessage
from mailpoller.core.ports import BlobReference, BlobStore


def blob_of(raw: RawMessage, store: BlobStore) -> Blob:
    """What an event says of a message's octets that lie in the store."""
    return Blob(raw.octets.digest, raw.octets.size, store.href(raw.octets.digest))


async def refer(batch: Sequence[Delivery], store: BlobStore) -> None:
    """Return when all that the events of this batch refer to is held. Raises :class:`TransientError`."""
    referring = [one for one in batch if one.blob is not None]
    if referring:
        octets = {one.raw.octets.digest: one.raw.octets for one in referring}
        references = [BlobReference(one.raw.octets.digest, one.queue, one.delivery_id, one.mid) for one in referring]
        await store.refer(list(octets.values()), references)
