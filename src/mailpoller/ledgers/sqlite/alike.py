"""Messages with equal octets: what a message repeats, and which earlier one it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from mailpoller.ledgers.sqlite.bearers import FORMER_NAMES
from mailpoller.ledgers.sqlite.folders import Known, earlier_epochs
from mailpoller.ledgers.sqlite.values import document, mark, mid_text, undocument

ROWS = 1024
"""Rows that one look for repeats goes through; where there are more, some octets are there again and again."""
ALIKE = 64
"""Rows of such octets that are looked at in each folder: who asks about the millionth copy must not walk through
all."""
FREE = 50_000
"""Earlier messages with the same octets that are told at once, for others to stand for: as many as five of the largest
batches, so more than are in hand."""
FOLDERS = 100
"""Folders of a mailbox in which they are looked for, the newest first."""


def repeats(connection: Connection, mailbox: str, fingerprints: Sequence[bytes]) -> dict[bytes, str]:
    """See :meth:`Ledger.repeats`. Of octets that are there more than ``ALIKE`` times, the mid that their first copies
    name, or have."""
    wanted = {fingerprint.hex().upper(): fingerprint for fingerprint in fingerprints}
    marks = {mark(fingerprint) for fingerprint in wanted.values()}
    seen, found = connection.execute(_REPEATS, (document(list(marks)), mailbox, ROWS)).fetchone()
    rows = undocument(found)
    if seen == ROWS:
        crowded = {value for (value,) in connection.execute(_CROWDED, (document(list(marks)), ALIKE))}
        _, found = connection.execute(_REPEATS, (document(list(marks - crowded)), mailbox, -1)).fetchone()
        rows = undocument(found) + _in_crowds(connection, mailbox, crowded)
    earliest: dict[bytes, str] = {}
    for fingerprint, mid, repeat_of, _, _ in sorted(rows, key=lambda row: (row[3], row[4] or 0, row[1])):
        if fingerprint in wanted:  # and does not merely begin like one that is
            earliest.setdefault(wanted[fingerprint], repeat_of or mid_text(bytes.fromhex(mid)))
    return earliest


def _in_crowds(connection: Connection, mailbox: str, marks: set[int]) -> list[list[object]]:
    folders = connection.execute(
        "SELECT id FROM folder WHERE mailbox = ? ORDER BY id DESC LIMIT ?", (mailbox, FOLDERS)
    ).fetchall()
    rows: list[list[object]] = []
    for value in marks:
        for (number,) in folders:
            (found,) = connection.execute(_IN_A_CROWD, (value, number, ALIKE)).fetchone()
            rows += undocument(found)
    return rows


# CROSS JOIN and INDEXED BY, because the planner would walk through the mailbox instead.
_REPEATS = """
SELECT count(*), json_group_array(json_array(hex(fingerprint), hex(mid), NULL, state <> 'settled', settled_at))
    FILTER (WHERE mailbox = ?2 AND (state = 'settled' OR receipts IS NOT NULL))
FROM (
    SELECT fingerprint, mid, state, settled_at, receipts, folder FROM message INDEXED BY message_mark
    WHERE mark IS NOT NULL AND mark IN (SELECT value FROM json_each(?1)) LIMIT ?3
) AS row CROSS JOIN folder ON folder.id = row.folder
"""

_CROWDED = """
SELECT value FROM json_each(?1)
WHERE EXISTS (SELECT 1 FROM message INDEXED BY message_mark WHERE mark IS NOT NULL AND mark = value LIMIT 1 OFFSET ?2)
"""

# Behind the mark the index has the table's key: folder, then uid.
_IN_A_CROWD = """
SELECT json_group_array(json_array(hex(fingerprint), hex(mid), repeat_of, state <> 'settled', settled_at)) FROM (
    SELECT fingerprint, mid, repeat_of, state, settled_at, receipts FROM message INDEXED BY message_mark
    WHERE mark IS NOT NULL AND mark = ?1 AND folder = ?2 LIMIT ?3
) WHERE state = 'settled' OR receipts IS NOT NULL
"""


def former(connection: Connection, known: Known, fingerprints: Sequence[bytes]) -> dict[bytes, list[str]]:
    """See :meth:`Ledger.former`. Of octets that are there again and again, the first ``FREE``: more are not in hand at
    once, and whoever counts as a repeat of one is asked for it no more."""
    folders = document([known.id, *earlier_epochs(connection, known)])
    free: dict[bytes, list[str]] = {}
    for fingerprint in dict.fromkeys(fingerprints):
        rows = connection.execute(_FORMER, (mark(fingerprint), fingerprint, folders, known.id, FORMER_NAMES, FREE))
        if found := [mid_text(mid) for (mid,) in rows]:
            free[fingerprint] = found
    return free


# Whoever counts as a repeat of a message stands for it from then on. All is done in here: a hundred thousand rows as
# JSON took 60 MB and four seconds, for each batch.
_FORMER = """
SELECT mid FROM message INDEXED BY message_mark
WHERE mark IS NOT NULL AND mark = ?1 AND fingerprint = ?2 AND state = 'settled'
    AND (outcome <> 'gone' OR generation > 0) -- of what is gone not every queue has got it
    AND folder IN (SELECT value FROM json_each(?3)) AND (folder <> ?4 OR uid LIKE ?5)
    AND lower(hex(mid)) NOT IN (
        SELECT replace(repeat_of, '-', '') FROM message INDEXED BY message_mark
        WHERE mark IS NOT NULL AND mark = ?1 AND state = 'settled' AND outcome = 'repeated' AND repeat_of IS NOT NULL
            AND folder IN (SELECT value FROM json_each(?3))
    )
ORDER BY settled_at, mid LIMIT ?6
"""
