"""To which conversations settled messages belong, by their Message-IDs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from sqlite3 import Connection
from threading import Lock

from mailpoller.ledgers.sqlite import clues
from mailpoller.ledgers.sqlite.values import Key, document, mid_text

ALIKE = 64
"""Messages with one Message-ID that are looked at in each batch."""
SEEKS = 100_000
"""Message-IDs times batches that one question may cost, some 2 µs each. Unknown ones are looked for in all batches, so
without a bound they would cost the more, the more is known."""


class Unsorted:
    """The Message-IDs of the messages whose clues are not sorted yet. They are read once, and then what has come since:
    to look at all of them for each message would take 20 ms."""

    def __init__(self) -> None:
        self._lock = Lock()  # reads are of several threads
        self._batch: int | None = None
        self._seen = 0
        self._keys: dict[str, list[Key]] = {}

    def keys(self, connection: Connection, message_ids: Collection[str]) -> list[Key]:
        """The rows that have one of these Message-IDs."""
        with self._lock:
            batch, last = connection.execute("SELECT min(batch), max(id) FROM clue_unsorted").fetchone()
            if batch != self._batch:  # the former ones are sorted, and ids begin anew
                self._batch, self._seen, self._keys = batch, 0, {}
            if last is not None and last > self._seen:
                for number, uid, message_id in connection.execute(_NEWS, (self._seen, last)):
                    self._keys.setdefault(message_id, []).append((number, uid))
                self._seen = last
            return [key for one in message_ids for key in self._keys.get(one, ())[-ALIKE:]]


def conversations(
    connection: Connection,
    unsorted: Unsorted,
    mailbox: str,
    message_ids: Collection[str],
    mailboxes: Collection[str] | None,
) -> dict[str, str]:
    """See :meth:`Ledger.conversations`. The batches of clues are asked one after the other, the newest first, until
    every message is found in the mailbox itself: what is answered is most often young, and its own. Of those that bear
    one Message-ID at most ``ALIKE`` in each batch are looked at. Half of ``SEEKS`` goes to all of them, the other half
    to the first, in as many as there are batches left for."""
    left: defaultdict[str, set[str]] = defaultdict(set)
    for message_id in message_ids:
        left[clues.of_text(message_id)].add(message_id)
    among = None if mailboxes is None else document(list(mailboxes))
    found: dict[str, str] = {}

    def look(statement: str, *what: str | int) -> None:
        wanted = document([one for several in left.values() for one in several])
        for message_id, conversation, mid, own in connection.execute(
            statement, (wanted, among, mailbox, *what)
        ).fetchall():
            mark = clues.of_text(message_id)
            if message_id not in left.get(mark, ()):
                continue
            if own or message_id not in found:
                found[message_id] = conversation or mid_text(mid)
            if own:
                left[mark].discard(message_id)
                if not left[mark]:
                    del left[mark]

    if keys := unsorted.keys(connection, message_ids):
        look(_KEYED, document(keys))
    batches = clues.batches(connection)
    spent, few = 0, False
    for at, batch in enumerate(batches):
        if not few and spent + len(left) > SEEKS // 2:
            few = True
            for mark in list(left)[(SEEKS - spent) // (len(batches) - at) :]:
                del left[mark]
        if not left:
            break
        spent += len(left)
        look(_SORTED, document(sorted(left)), batch, ALIKE)
    return found


_NEWS = """
SELECT message.folder, message.uid, message_id FROM clue_unsorted CROSS JOIN json_each(uids) AS noted
CROSS JOIN message ON message.folder = clue_unsorted.folder AND message.uid = noted.value
WHERE clue_unsorted.id > ? AND clue_unsorted.id <= ? AND message_id IS NOT NULL
"""
_FOUND = """
SELECT message_id, coalesce(nullif(conversation, ''), repeat_of), mid, mailbox = ?3 FROM ({source})
CROSS JOIN message ON message.folder = its_folder AND message.uid = its_uid
CROSS JOIN folder ON folder.id = message.folder
WHERE state = 'settled' AND message_id IN (SELECT value FROM json_each(?1))
    AND (?2 IS NULL OR mailbox IN (SELECT value FROM json_each(?2)))
ORDER BY mailbox = ?3 DESC, settled_at DESC
"""
_KEYED = _FOUND.format(
    source="SELECT json_extract(value, '$[0]') AS its_folder, json_extract(value, '$[1]') AS its_uid FROM json_each(?4)"
)
# Of one mark in one batch few are looked at: a Message-ID that a million messages bear would be a walk through them.
_SORTED = _FOUND.format(
    source="SELECT json_extract(noted.value, '$[0]') AS its_folder, json_extract(noted.value, '$[1]') AS its_uid "
    "FROM json_each(?4) AS mark CROSS JOIN json_each((SELECT json_group_array(json_array(folder, substr(name, 9))) "
    "FROM (SELECT folder, name FROM clue WHERE batch = ?5 AND name >= mark.value AND name < mark.value || "
    "char(1114111) LIMIT ?6))) AS noted"
)
