"""A batch into the tables of a queue, in a few statements whatever its length."""

from __future__ import annotations

import sqlite3

import orjson

from mailpoller.core.spool import Block

INSERT_MESSAGES = """
INSERT INTO message (seq, delivery_id, mid, topic, priority, tags, reason, detail, arrived_at, octets_size, octets_file)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]'),
    json_extract(value, '$[4]'), json_extract(value, '$[5]'), json_extract(value, '$[6]'), json_extract(value, '$[7]'),
    json_extract(value, '$[8]'), json_extract(value, '$[9]'), json_extract(value, '$[10]')
FROM json_each(?1)
"""
"""One parameter: the rows as a JSON array of arrays."""

_INSERT_CONTENTS = """
INSERT INTO content (seq, event, octets)
SELECT json_extract(value, '$[0]'),
    CAST(substr(?2, json_extract(value, '$[1]'), json_extract(value, '$[2]')) AS TEXT),
    CASE
        WHEN json_extract(value, '$[3]') IS NULL THEN NULL
        WHEN json_extract(value, '$[4]') = 0 THEN x''  -- an empty parameter is NULL to SQLite
        ELSE substr(?3, json_extract(value, '$[3]'), json_extract(value, '$[4]'))
    END
FROM json_each(?1)
"""


class Contents:
    """Events and octets on their way into the table, many in one statement.

    Python's sqlite3 gives up the interpreter for every row, and takes milliseconds to get it back from a busy event loop: row by
    row a batch took three times as long. So their octets are laid end to end, and one statement cuts them apart again.
    """

    _TOGETHER = 2_000_000
    """Octets that are copied for one statement, about; a larger message goes alone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._begin()

    def _begin(self) -> None:
        self._places: list[tuple[int, int, int, int | None, int]] = []
        self._events: list[bytes] = []
        self._octets: list[Block] = []
        self._event_end = self._octets_end = 0

    def add(self, seq: int, event: bytes, octets: Block | None) -> None:
        """Take one row; ``octets`` is None if the queue does not hold them here."""
        size = 0 if octets is None else len(octets)
        if self._places and self._event_end + self._octets_end + len(event) + size > self._TOGETHER:
            self.flush()
        # SQL counts from 1.
        begin = None if octets is None else self._octets_end + 1
        self._places.append((seq, self._event_end + 1, len(event), begin, size))
        self._events.append(event)
        self._event_end += len(event)
        if octets is not None:
            self._octets.append(octets)
            self._octets_end += size

    def flush(self) -> None:
        """Insert what was taken."""
        if self._places:
            octets: Block = self._octets[0] if len(self._octets) == 1 else b"".join(self._octets)
            self._connection.execute(
                _INSERT_CONTENTS, (orjson.dumps(self._places).decode(), b"".join(self._events), octets)
            )
        self._begin()
