"""Alarms, whose edges are mailed, and faults, which an operator lists."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from mailpoller.core.ports import AlarmEdge, Fault
from mailpoller.ledgers.sqlite.changes import record
from mailpoller.ledgers.sqlite.values import clean, document, instant, micros

FAULTS_KEPT = 1000
"""Faults of each subject that are kept: the newest ones."""


def raise_alarm(connection: Connection, key: str, group: str, summary: str, now: int) -> bool:
    edge = (
        connection.execute(
            "INSERT INTO alarm (key, source, summary, raised_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (key, group, clean(summary), now),
        ).rowcount
        == 1
    )
    if edge:
        record(connection, "alarm.raised", "", f"{key}: {summary}" if summary else key, now)
    return edge


def clear_alarm(connection: Connection, key: str, now: int) -> AlarmEdge | None:
    row = connection.execute(
        "DELETE FROM alarm WHERE key = ? RETURNING key, source, summary, raised_at, notified", (key,)
    ).fetchone()
    if row is None:
        return None
    record(connection, "alarm.ended", "", key, now)
    return _edge(row)


def alarms(connection: Connection) -> list[AlarmEdge]:
    """Oldest first."""
    rows = connection.execute("SELECT key, source, summary, raised_at, notified FROM alarm ORDER BY raised_at, key")
    return [_edge(row) for row in rows]


def _edge(row: tuple[str, str, str, int, int]) -> AlarmEdge:
    key, group, summary, raised_at, notified = row
    return AlarmEdge(key, group, summary, instant(raised_at), bool(notified))


def notified(connection: Connection, keys: Sequence[str]) -> None:
    connection.execute(
        "UPDATE alarm SET notified = 1 WHERE key IN (SELECT value FROM json_each(?))", (document(list(keys)),)
    )


def note(connection: Connection, faults: Sequence[Fault]) -> None:
    rows = [(clean(fault.subject), micros(fault.at), fault.event, clean(fault.detail), fault.mid) for fault in faults]
    connection.execute(_NOTE, (document(rows),))
    for subject in {row[0] for row in rows}:
        connection.execute(_TRIM, (subject, FAULTS_KEPT))


_NOTE = """
INSERT INTO fault (subject, at, event, detail, mid)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value,
    '$[3]'),
    json_extract(value, '$[4]')
FROM json_each(?1) ORDER BY key
"""
_TRIM = """
DELETE FROM fault WHERE subject = ?1
    AND id <= (SELECT id FROM fault WHERE subject = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)
"""


def faults(connection: Connection, subject: str | None, limit: int, since: int = 0) -> list[Fault]:
    """Newest first, those of ``since`` and later."""
    wanted = "?1 IS NULL" if subject is None else "subject = ?1"
    rows = connection.execute(
        f"SELECT at, subject, event, detail, mid FROM fault WHERE {wanted} AND at >= ?3 "  # noqa: S608
        "ORDER BY id DESC LIMIT ?2",
        (subject, limit, since),
    )
    return [Fault(instant(at), *rest) for at, *rest in rows]


def clear_faults(connection: Connection, subject: str | None) -> int:
    if subject is None:
        return connection.execute("DELETE FROM fault").rowcount
    return connection.execute("DELETE FROM fault WHERE subject = ?", (subject,)).rowcount
