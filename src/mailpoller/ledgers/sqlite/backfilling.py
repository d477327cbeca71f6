"""What ``start`` left out becomes due after all, for ``mailpoller backfill``."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection

from mailpoller.core.errors import MessageGone
from mailpoller.core.identity import BACKFILLED, mint_mid
from mailpoller.core.message import MessageRef
from mailpoller.ledgers.sqlite import clues
from mailpoller.ledgers.sqlite.bearers import carry_over, named
from mailpoller.ledgers.sqlite.folders import Known
from mailpoller.ledgers.sqlite.values import document, undocument


def take_up(connection: Connection, known: Known, refs: Sequence[MessageRef], now: int) -> int:
    """See :meth:`Backlog.take_up`, of the refs of one folder."""
    folder = refs[0].folder
    (last,) = connection.execute(
        "SELECT id FROM folder WHERE mailbox = ? AND name = ? ORDER BY turn DESC LIMIT 1", (folder.mailbox, folder.name)
    ).fetchone()
    if last != known.id:
        raise MessageGone(f"the folder {folder.name} of {folder.mailbox} was numbered anew meanwhile")
    if known.predecessor is not None:
        (found,) = connection.execute(_THERE, (known.id, document([ref.uid for ref in refs]))).fetchone()
        there = set(undocument(found))
        carry_over(connection, known, [ref for ref in refs if ref.uid not in there], now)
    listed = named(refs)
    (found,) = connection.execute(_SKIPPED, (known.id, listed)).fetchone()
    skipped = undocument(found)
    if skipped:
        clues.take(connection, [(known.id, uid) for uid in skipped])
        connection.execute(_REOPEN, (known.id, document(skipped), now, BACKFILLED))
    mids = [mint_mid(folder.mailbox, folder.name, known.epoch, ref.uid) for ref in refs]
    octets = bytes.fromhex("".join(mids).replace("-", ""))
    added = connection.execute(_ADD, (known.id, listed, octets, now, BACKFILLED)).rowcount
    return len(skipped) + added


_THERE = """
SELECT json_group_array(uid) FROM message WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2))
"""

# One that shows another size or date than when it was left out is perhaps another message: a poll finds out.
_SKIPPED = """
SELECT json_group_array(message.uid) FROM json_each(?2) AS seen
CROSS JOIN message ON message.folder = ?1 AND message.uid = json_extract(seen.value, '$[0]')
WHERE state = 'settled' AND outcome = 'skipped'
    AND coalesce(listed = json_extract(seen.value, '$[1]'), 1)
    AND coalesce(received = json_extract(seen.value, '$[2]'), 1)
"""

_REOPEN = """
UPDATE message SET clues = NULL, state = 'deferred', due_at = ?3, claimed_at = ?3, generation = ?4, reason = 'backfill',
    former = json_array(json_object('settled_at', settled_at, 'outcome', outcome, 'reason', reason, 'rules',
        json('[]'), 'receipts', json('{}'))),
    attempts = 0, failures = 0, refusals = 0, route = NULL, receipts = NULL, absent_at = NULL, doubts = 0,
    doubted_at = NULL, waits_for = NULL, waiting_since = NULL, outcome = NULL, settled_at = NULL, disposition = NULL,
    disposition_state = NULL, disposition_reason = NULL, disposed_at = NULL
WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2)) AND state = 'settled' AND outcome = 'skipped'
"""

_ADD = """
INSERT INTO message (folder, uid, listed, received, mid, state, due_at, claimed_at, generation, reason)
SELECT ?1, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
    substr(?3, 1 + 16 * key, 16), 'deferred', ?4, ?4, ?5, 'backfill'
FROM json_each(?2) WHERE TRUE
ON CONFLICT (folder, uid) DO NOTHING
"""
