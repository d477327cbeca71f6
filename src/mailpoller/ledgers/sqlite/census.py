"""A listing of a whole mailbox against all that is known of it, a piece at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from sqlite3 import Connection

from mailpoller.core.message import MessageRef
from mailpoller.core.record import record
from mailpoller.ledgers.sqlite.bearers import FORMER_NAMES
from mailpoller.ledgers.sqlite.folders import Known
from mailpoller.ledgers.sqlite.values import document

COUNTED_AT_ONCE = 10_000
"""Rows of a piece."""


@record
class Counted:
    """A piece of a census: of the names up to ``end`` (None: to the last), how many were left, the sizes of those
    that vanished, the uids that are absent from now on, and those that are not any more."""

    left: int
    vanished: Counter[int | None]
    absent: Sequence[str]
    back: Sequence[str]
    end: str | None


def counted(connection: Connection, known: Known, names: Container[str], after: str) -> Counted:
    """What a listing of everything, which shows these names, came to; of a piece of what is known, behind ``after``."""
    left = 0
    vanished: Counter[int | None] = Counter()
    absent: list[str] = []
    back: list[str] = []
    rows = connection.execute(
        "SELECT uid, listed, absent_at, state = 'settled' AND coalesce(json_extract(disposition, '$.delete'), 0) = "
        "0, state = 'settled' AND coalesce(json_extract(disposition, '$.delete'), 0) = 1 AND disposition_state = "
        "'applied' FROM message WHERE folder = ? AND uid > ? AND uid NOT LIKE ? ORDER BY uid LIMIT ?",
        (known.id, after, FORMER_NAMES, COUNTED_AT_ONCE),
    ).fetchall()
    for uid, listed, absent_at, stays, free in rows:
        present = uid in names
        left += stays and absent_at is None
        if present and absent_at is not None and not free:
            back.append(uid)
        elif not present and absent_at is None:
            absent.append(uid)
            if stays:
                vanished[listed] += 1
    return Counted(left, vanished, absent, back, rows[-1][0] if len(rows) == COUNTED_AT_ONCE else None)


def strangers(connection: Connection, known: Known, refs: Sequence[MessageRef]) -> Counter[int | None]:
    """The sizes of those that are not known."""
    rows = connection.execute(
        "SELECT uid FROM message WHERE folder = ? AND uid IN (SELECT value FROM json_each(?))",
        (known.id, document([ref.uid for ref in refs])),
    )
    there = {uid for (uid,) in rows}
    return Counter(ref.size for ref in refs if ref.uid not in there)


def mark_absent(connection: Connection, known: Known, absent: Sequence[str], present: Sequence[str], now: int) -> None:
    """The first look that missed a message counts; one that is there is absent no more."""
    if absent:
        connection.execute(
            "UPDATE message SET absent_at = ?3 WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2)) "
            "AND (absent_at IS NULL OR absent_at > ?3)",
            (known.id, document(list(absent)), now),
        )
    if present:
        connection.execute(
            "UPDATE message SET absent_at = NULL WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2)) "
            "AND absent_at IS NOT NULL",
            (known.id, document(list(present))),
        )
