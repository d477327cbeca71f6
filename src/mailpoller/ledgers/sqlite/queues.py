"""Which queue each name stands for: the mark that it was last seen to bear."""

from __future__ import annotations

from sqlite3 import Connection
from typing import Any

from mailpoller.core.ports import Mark, QueueRecord
from mailpoller.ledgers.sqlite.values import instant

_COLUMNS = "name, identity, height, place, receipts, first_at, last_at"


def queue_mark(connection: Connection, name: str) -> QueueRecord | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM queue WHERE name = ?", (name,)).fetchone()  # noqa: S608
    return None if row is None else _record(row)


def owed(connection: Connection, name: str) -> int:
    # The states that wait, so that what is settled, which is most of the index, is passed over.
    row = connection.execute(
        "SELECT count(*) FROM message INDEXED BY message_due WHERE state IN ('claimed', 'suspect', 'deferred') AND "
        "due_at IS NOT NULL AND waits_for = ?",
        (name,),
    ).fetchone()
    return int(row[0])


def note_queue(connection: Connection, name: str, mark: Mark, receipts: int, now: int) -> None:
    connection.execute(
        "INSERT INTO queue (name, identity, height, place, receipts, first_at, last_at) VALUES (?1, ?2, ?3, ?4, ?5, "
        "?6, ?6) ON CONFLICT (name) DO UPDATE SET height = excluded.height, place = excluded.place, last_at = "
        "excluded.last_at, receipts = iif(identity = excluded.identity, receipts, 0) + excluded.receipts, first_at "
        "= iif(identity = excluded.identity, first_at, excluded.first_at), identity = excluded.identity",
        (name, mark.identity, mark.height, mark.place, receipts, now),
    )


def adopt_queue(connection: Connection, name: str) -> QueueRecord | None:
    row = connection.execute(f"DELETE FROM queue WHERE name = ? RETURNING {_COLUMNS}", (name,)).fetchone()  # noqa: S608
    return None if row is None else _record(row)


def _record(row: tuple[Any, ...]) -> QueueRecord:
    name, identity, height, place, receipts, first_at, last_at = row
    return QueueRecord(name, Mark(identity, height, place), receipts, instant(first_at), instant(last_at))
