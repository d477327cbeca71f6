"""What a batch is answered with: what the queue knows already, what no row holds, and the order."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.seals.sink import SealedReceipt

LARGEST_ROW = 900_000_000
"""SQLite takes no value above 10^9 octets."""


def known_of(connection: sqlite3.Connection, delivery_ids: Collection[str], *, taken: bool = True) -> dict[str, str]:
    """Those that are held or were acknowledged: delivery id -> seq, which is empty for the latter; without ``taken``
    only those that are held."""
    wanted = json.dumps(list(delivery_ids))
    return {
        delivery_id: str(seq)
        for delivery_id, seq in connection.execute(
            "SELECT delivery_id, seq FROM message WHERE delivery_id IN (SELECT value FROM json_each(?1)) UNION ALL "
            "SELECT delivery_id, '' FROM acknowledged WHERE delivery_id IN (SELECT value FROM json_each(?1))",
            (wanted,),
        )
        if taken or seq
    }


def too_large(delivery: Delivery) -> Refusal:
    reason = f"the event has {delivery.event.size:,} octets, and a row holds {LARGEST_ROW:,}"
    return Refusal(delivery.delivery_id, reason, permanent=True, unasked=True)


def answers_to(
    batch: Sequence[Delivery], receipts: Mapping[str, Receipt], refusals: Mapping[str, Refusal]
) -> list[Receipt | Refusal]:
    """In the order of the batch; of a delivery that is in it twice the second is a repeat."""
    answers: list[Receipt | Refusal] = []
    told: set[str] = set()
    for one in batch:
        delivery_id = one.delivery_id
        answer = refusals.get(delivery_id) or receipts[delivery_id]
        if isinstance(answer, Receipt) and delivery_id in told:
            answer = SealedReceipt(delivery_id, answer.reference, repeated=True)
        told.add(delivery_id)
        answers.append(answer)
    return answers
