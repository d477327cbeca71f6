"""Messages with equal octets: what a message repeats, and which earlier one it stands for."""

from __future__ import annotations

from collections import defaultdict
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
    """See :meth:`Ledger.former`."""
    wanted = {fingerprint.hex().upper(): fingerprint for fingerprint in fingerprints}
    marks = document([mark(fingerprint) for fingerprint in wanted.values()])
    folders = document([known.id, *earlier_epochs(connection, known)])
    (found,) = connection.execute(_FORMER, (marks, folders, known.id, FORMER_NAMES)).fetchone()
    rows = [row for row in undocument(found) if row[0] in wanted]
    # Whoever counts as a repeat of a message stands for it from then on.
    stood_for = {repeat_of for _, _, repeat_of, _ in rows if repeat_of is not None}
    free: defaultdict[bytes, list[str]] = defaultdict(list)
    for fingerprint, mid, _, is_former in rows:
        text = mid_text(bytes.fromhex(mid))
        if is_former and text not in stood_for:
            free[wanted[fingerprint]].append(text)
    return free


_FORMER = """
SELECT json_group_array(json_array(hex(fingerprint), hex(mid), repeat_of, is_former)) FROM (
    SELECT fingerprint, mid, iif(outcome = 'repeated', repeat_of, NULL) AS repeat_of,
        folder <> ?3 OR uid LIKE ?4 AS is_former
    FROM message INDEXED BY message_mark
    WHERE mark IS NOT NULL AND mark IN (SELECT value FROM json_each(?1)) AND state = 'settled'
        AND (outcome <> 'gone' OR generation > 0) -- of what is gone not every queue has got it
        AND folder IN (SELECT value FROM json_each(?2))
    ORDER BY settled_at, mid
)
"""
