"""Messages that are forgotten: settled long ago, and not in the mailbox any more."""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import timedelta
from sqlite3 import Connection

from mailpoller.core.record import record
from mailpoller.ledgers.sqlite import clues
from mailpoller.ledgers.sqlite.values import (
    MICROSECOND,
    document,
)


@record
class Pruning:
    """What a pruning may do to one piece of a folder: rows that it missed for the first time, rows that it does not
    miss any more, and those that are to be forgotten. ``end``: the last uid of the piece;
    None at the end of the folder."""

    missed: Sequence[str]
    found: Sequence[str]
    forgotten: Sequence[str]
    end: str | None


def prunable(
    connection: Connection, number: int, present: Container[str] | None, after: str, before: int, now: int
) -> Pruning:
    """What a pruning may do to the rows that follow the uid ``after``, a piece of them.
    ``before``: only what was settled earlier is looked at, so no more is ever marked than a day's messages or two.
    ``present``: None for a former epoch, of which nothing is there any more.

    For a reader's connection: it is let go after each piece, so that the log can be written back meanwhile.
    """
    missed: list[str] = []
    found: list[str] = []
    forgotten: list[str] = []
    (end,) = connection.execute(_PIECE, (number, after, WALKED)).fetchone() or (None,)
    rows = connection.execute(
        _OLD if present is not None else _FORMER_EPOCH, (number, after, end or "\U0010ffff", before)
    )
    for uid, absent_at in rows:
        if present is not None and uid in present:
            if absent_at is not None:
                found.append(uid)
        elif absent_at is None or absent_at > now:  # or by a clock that was ahead
            missed.append(uid)
        elif absent_at <= now - PRUNED_APART // MICROSECOND:
            forgotten.append(uid)
    return Pruning(missed, found, forgotten, end)


PRUNED_APART = timedelta(days=1)
"""Two prunings that both missed a message are at least so far apart."""
WALKED = 20_000
"""Rows that one piece of the walk passes."""

_PIECE = "SELECT uid FROM message WHERE folder = ?1 AND uid > ?2 ORDER BY uid LIMIT 1 OFFSET ?3"
_OLD = """
SELECT uid, absent_at FROM message WHERE folder = ?1 AND uid > ?2 AND uid <= ?3 AND state = 'settled'
    AND settled_at < ?4
"""
_FORMER_EPOCH = """
SELECT uid, absent_at FROM message WHERE folder = ?1 AND uid > ?2 AND uid <= ?3 AND coalesce(settled_at,
    claimed_at) < ?4
"""


def prune(connection: Connection, number: int, uids: Sequence[str], before: int) -> int:
    """Forget a piece of what :func:`prunable` found, if it is still so; the number of settled messages forgotten.
    What is not settled is forgotten in former epochs alone."""
    present = connection.execute(
        "SELECT turn = (SELECT max(turn) FROM folder AS other WHERE other.mailbox = folder.mailbox AND other.name = "
        "folder.name) FROM folder WHERE id = ?",
        (number,),
    ).fetchone() or (1,)
    old = connection.execute(
        "SELECT uid, state = 'settled' FROM message WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2)) "
        "AND absent_at IS NOT NULL AND coalesce(settled_at, claimed_at) < ?3 AND (state = 'settled' OR NOT ?4)",
        (number, document(uids), before, present[0]),
    ).fetchall()
    forget(connection, number, [uid for uid, _ in old])
    settled = int(sum(is_settled for _, is_settled in old))
    if settled < len(old):
        # Should the folder ever return to that epoch, it is listed from the start: nobody settled those.
        connection.execute("UPDATE folder SET position = NULL, complete = 0 WHERE id = ?", (number,))
    return settled


def forget(connection: Connection, number: int, uids: Sequence[str]) -> None:
    """Drop these rows and what finds them."""
    clues.take(connection, [(number, uid) for uid in uids])
    connection.execute(
        "DELETE FROM message WHERE folder = ? AND uid IN (SELECT value FROM json_each(?))", (number, document(uids))
    )


def some(connection: Connection, number: int, limit: int) -> list[str]:
    """Some of a folder's uids."""
    return [uid for (uid,) in connection.execute("SELECT uid FROM message WHERE folder = ? LIMIT ?", (number, limit))]


def note_missed(connection: Connection, number: int, missed: Sequence[str], found: Sequence[str], now: int) -> None:
    """Keep which rows a pruning missed, and which it did not."""
    connection.execute(_NOTE_MISSED, (number, document(missed), now))
    connection.execute(_NOTE_MISSED, (number, document(found), None))


_NOTE_MISSED = "UPDATE message SET absent_at = ?3 WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2))"
