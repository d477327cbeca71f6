"""To which conversations settled messages belong, by their Message-IDs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from sqlite3 import Connection

from mailpoller.ledgers.sqlite import clues
from mailpoller.ledgers.sqlite.values import document, mid_text


def conversations(
    connection: Connection, message_ids: Collection[str], mailboxes: Collection[str] | None
) -> dict[str, str]:
    """See :meth:`Ledger.conversations`. The batches of clues are asked one after the other, the newest first, until
    every message is found: what is answered is most often young."""
    left: defaultdict[str, set[str]] = defaultdict(set)
    for message_id in message_ids:
        left[clues.of_text(message_id)].add(message_id)
    among = None if mailboxes is None else document(list(mailboxes))
    found: dict[str, str] = {}
    for batch in (None, *clues.batches(connection)):
        if not left:
            break
        marks, wanted = document(sorted(left)), document([one for several in left.values() for one in several])
        if batch is None:
            rows = connection.execute(_UNSORTED, (wanted, among))
        else:
            rows = connection.execute(_SORTED, (wanted, among, batch, marks))
        for message_id, conversation, mid in rows.fetchall():
            mark = clues.of_text(message_id)
            if message_id not in found:
                found[message_id] = conversation or mid_text(mid)
                left[mark].discard(message_id)
                if not left[mark]:
                    del left[mark]
    return found


_FOUND = """
SELECT message_id, coalesce(nullif(conversation, ''), repeat_of), mid FROM ({source})
CROSS JOIN message ON message.folder = its_folder AND message.uid = its_uid
CROSS JOIN folder ON folder.id = message.folder
WHERE state = 'settled' AND message_id IN (SELECT value FROM json_each(?1))
    AND (?2 IS NULL OR mailbox IN (SELECT value FROM json_each(?2)))
ORDER BY settled_at DESC
"""
# What is not sorted yet is all looked at: of the batch that is not complete.
_UNSORTED = _FOUND.format(
    source="SELECT folder AS its_folder, value AS its_uid FROM clue_unsorted CROSS JOIN json_each(uids)"
)
_SORTED = _FOUND.format(
    source="SELECT clue.folder AS its_folder, substr(name, 9) AS its_uid FROM json_each(?4) AS mark CROSS JOIN clue "
    "WHERE batch = ?3 AND name >= mark.value AND name < mark.value || char(1114111)"
)
