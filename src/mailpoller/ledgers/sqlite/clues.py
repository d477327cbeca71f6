"""By what ``trace`` and ``redeliver`` find a settled message: the beginning of its mid, and sums of its Message-ID
and sender.

An index on random ids writes a page for nearly every row of every commit, and reads one, once it is larger than the
cache. Clues are therefore kept in batches, one after the other, and a batch is sorted as a whole once it is complete.
Until then a commit only notes the names of its messages at the end of a list, and who looks for a message looks at
all that are in it. Then each batch is asked, the newest first. Messages without an outcome have no clues: they are
few, and looked through.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from sqlite3 import Connection
from zlib import crc32

from mailpoller.ledgers.sqlite.values import Key, by_folder, document, mid_text, undocument

Traced = tuple[str, str, str | None, str | None]
"""Uid, mid, Message-ID, sender."""

BATCH = 1 << 13
"""Messages whose clues stand in one batch."""
MARK = 8
"""Characters of a clue before the uid."""


def of_text(text: str) -> str:
    """The mark of a Message-ID or a sender, whatever its case."""
    return f"{crc32(text.lower().encode('utf-8', 'surrogatepass')):08x}"


def of_mid(mid: str) -> str:
    """The mark of a mid."""
    return mid[:MARK]


def _names(rows: Iterable[Traced]) -> list[str]:
    names: list[str] = []
    for uid, mid, *texts in rows:
        names.append(mid[:MARK] + uid)
        # As of_text() does it, without a call for each of many thousands.
        names += [f"{crc32(text.lower().encode('utf-8', 'surrogatepass')):08x}{uid}" for text in texts if text]
    return names


def add(connection: Connection, number: int, uids: Sequence[str]) -> int:
    """Note that these messages of the folder ``number`` are being settled. The batch that they go to; the caller
    writes it into their rows, in the same transaction."""
    (count,) = connection.execute(
        "UPDATE shelf SET messages = messages + ? RETURNING messages", (len(uids),)
    ).fetchone()
    batch = int(count) // BATCH
    if (int(count) - len(uids)) // BATCH != batch:
        sort(connection)
    connection.execute(
        "INSERT INTO clue_unsorted (batch, folder, uids) VALUES (?, ?, ?)", (batch, number, document(uids))
    )
    return batch


def put(connection: Connection, keys: Sequence[Key]) -> None:
    """Keep clues of what these rows tell now; those that they had must have been taken away."""
    for number, uids in by_folder(keys).items():
        batch = add(connection, number, uids)
        connection.execute(
            "UPDATE message SET clues = ?3 WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2)) AND state "
            "= 'settled'",
            (number, document(uids), batch),
        )


def sort(connection: Connection) -> None:
    """Sort what is noted into its batches."""
    for batch, number, rows in connection.execute(_RECORDED).fetchall():
        _insert(connection, batch, number, undocument(rows))
    connection.execute("DELETE FROM clue_unsorted")


_RECORDED = """
SELECT batch, clue_unsorted.folder, json_group_array(json_array(message.uid, lower(hex(mid)), message_id, sender))
FROM clue_unsorted CROSS JOIN json_each(uids) AS noted
CROSS JOIN message ON message.folder = clue_unsorted.folder AND message.uid = noted.value
WHERE state = 'settled' AND clues = batch GROUP BY batch, clue_unsorted.folder
"""


def _insert(connection: Connection, batch: int, number: int, rows: Iterable[Traced]) -> None:
    connection.execute(_INSERT, (batch, number, document(_names(rows))))


# Sorted: each row follows the one before.
_INSERT = """
INSERT OR IGNORE INTO clue (batch, name, folder) SELECT ?1, value, ?2 FROM json_each(?3) ORDER BY value
"""


def take(connection: Connection, keys: Sequence[Key]) -> None:
    """Forget the clues of these rows, before they change their names, lose their outcomes or go. What is noted and not
    sorted yet needs nothing: the rows themselves tell, when it is."""
    for number, uids in by_folder(keys).items():
        rows = connection.execute(
            "SELECT coalesce(clues, (SELECT batch FROM clue_range AS range WHERE range.folder = ?1 AND range.uid <= "
            "message.uid ORDER BY range.uid DESC LIMIT 1)), uid, mid, message_id, sender FROM message WHERE folder "
            "= ?1 AND uid IN (SELECT value FROM json_each(?2)) AND state = 'settled'",
            (number, document(uids)),
        ).fetchall()
        of_batch: defaultdict[int, list[str]] = defaultdict(list)
        for batch, uid, mid, message_id, sender in rows:
            of_batch[batch] += _names([(uid, mid_text(mid), message_id, sender)])
        for batch, names in of_batch.items():
            connection.execute(_TAKE, (batch, number, document(names)))


_TAKE = "DELETE FROM clue WHERE batch = ?1 AND folder = ?2 AND name IN (SELECT value FROM json_each(?3))"


def find(connection: Connection, marks: Sequence[str], limit: int) -> list[Key]:
    """At most ``limit`` rows that may be meant, those that were settled last first, and all whose clues are not
    sorted yet."""
    latest = connection.execute(
        "SELECT folder, value FROM clue_unsorted CROSS JOIN json_each(uids) ORDER BY clue_unsorted.id DESC"
    )
    return latest.fetchall() + [
        (folder, name[MARK:]) for folder, name in connection.execute(_FIND, (document(list(marks)), limit))
    ]


def batches(connection: Connection) -> list[int]:
    """The batches that exist, the newest first."""
    return [number for (number,) in connection.execute(_NUMBERS) if number is not None]


# Each by a leap in the index.
_BATCHES = """
WITH RECURSIVE batches (number) AS (
    SELECT max(batch) FROM clue
    UNION ALL
    SELECT (SELECT max(batch) FROM clue WHERE batch < number) FROM batches WHERE number IS NOT NULL
)
"""
_NUMBERS = f"{_BATCHES} SELECT number FROM batches"  # noqa: S608
_FIND = (
    _BATCHES
    + """
SELECT folder, name FROM batches CROSS JOIN json_each(?1) AS mark CROSS JOIN clue
WHERE clue.batch = batches.number AND clue.name >= mark.value AND clue.name < mark.value || char(1114111)
LIMIT ?2
"""
)


# --- ledgers of before ------------------------------------------------------------------------------------------------
def shelve_all(connection: Connection, progress: Callable[[int, int], None]) -> None:
    """Make the clues of a ledger that has none, in the order of its rows, and count what is settled in each folder.
    The rows themselves are not written: the batch of one without a note of it is that of the range in which its name
    lies. ``progress`` is told how many messages are done, and of how many."""
    (total,) = connection.execute("SELECT count(*) FROM message").fetchone()
    settled: Counter[int] = Counter()
    done, batch = 0, 0
    for (number,) in connection.execute("SELECT id FROM folder ORDER BY id").fetchall():
        after = ""
        while rows := connection.execute(_WALK, (number, after, BATCH)).fetchall():
            first, after = rows[0][0], rows[-1][0]
            connection.execute("INSERT INTO clue_range (folder, uid, batch) VALUES (?, ?, ?)", (number, first, batch))
            ended = [(uid, mid_text(mid), message_id, sender) for uid, state, mid, message_id, sender in rows if state]
            _insert(connection, batch, number, ended)
            settled[number] += len(ended)
            done += len(rows)
            batch += 1
            progress(done, total)
    connection.execute("UPDATE shelf SET messages = ?", (batch * BATCH,))
    connection.executemany("UPDATE folder SET settled = ?2 WHERE id = ?1", settled.items())


_WALK = """
SELECT uid, state = 'settled', mid, message_id, sender FROM message WHERE folder = ?1 AND uid > ?2 ORDER BY uid LIMIT ?3
"""
