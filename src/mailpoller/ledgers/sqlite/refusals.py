"""What intakes refused and are still to tell their queues."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from sqlite3 import Connection

from mailpoller.core.ports import OutboxRefusal
from mailpoller.core.ports.ledger.outbox import REFUSALS_OWED_AT_MOST
from mailpoller.ledgers.sqlite.values import clean, document, instant, micros

_LONGEST = 1000


def owe(connection: Connection, one: OutboxRefusal) -> bool:
    owed = connection.execute("SELECT count(*) FROM outbox_refusal WHERE intake = ?", (one.intake,)).fetchone()[0]
    if owed >= REFUSALS_OWED_AT_MOST:
        return False
    connection.execute(
        "INSERT INTO outbox_refusal (id, intake, key, entry, mid, reason, at) VALUES (?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (id) DO NOTHING",
        (
            one.id,
            one.intake,
            clean(one.key),
            one.entry,
            clean(one.mid),
            clean(one.reason)[:_LONGEST],
            micros(one.at),
        ),
    )
    return True


def owed(connection: Connection, but: Collection[str], limit: int) -> list[OutboxRefusal]:
    rows = connection.execute(
        "SELECT number, id, intake, key, entry, mid, reason, at FROM outbox_refusal WHERE intake NOT IN "
        "(SELECT value FROM json_each(?)) ORDER BY number LIMIT ?",
        (document(sorted(but)), limit),
    )
    return [
        OutboxRefusal(id, intake, key, entry, mid, reason, instant(at), number)
        for number, id, intake, key, entry, mid, reason, at in rows.fetchall()
    ]


def told(connection: Connection, numbers: Sequence[int]) -> None:
    connection.execute(
        "DELETE FROM outbox_refusal WHERE number IN (SELECT value FROM json_each(?))", (document(list(numbers)),)
    )
