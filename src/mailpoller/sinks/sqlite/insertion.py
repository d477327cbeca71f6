"""A batch into the tables of a queue, in a few statements whatever its length."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict

import orjson

from mailpoller.core.attributes import Attributes
from mailpoller.core.delivery import Delivery
from mailpoller.core.spool import Block
from mailpoller.sinks.sqlite.schema import PRIORITIES

_INSERT_MESSAGES = """
INSERT INTO message (seq, delivery_id, mid, octets_size, octets_file, topic, priority, tags, reason, detail, arrived_at)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value,
    '$[3]'),
    json_extract(value, '$[4]'), ?2, ?3, ?4, ?5, ?6, ?7
FROM json_each(?1)
"""

_INSERT_EVENTS = """
INSERT INTO content (seq, event)
SELECT json_extract(value, '$[0]'),
    CAST(substr(?2, json_extract(value, '$[1]'), json_extract(value, '$[2]')) AS TEXT)
FROM json_each(?1)
"""

_INSERT_CONTENTS = """
INSERT INTO content (seq, event, octets)
SELECT json_extract(value, '$[0]'),
    CAST(substr(?2, json_extract(value, '$[1]'), json_extract(value, '$[2]')) AS TEXT),
    coalesce(substr(?3, json_extract(value, '$[3]'), json_extract(value, '$[4]')),
    x'')  -- an empty parameter is NULL to SQLite
FROM json_each(?1)
"""


class Messages:
    """Rows of the small table on their way, in one statement for all of which the same is said.

    What a batch has in common is a parameter: to take it out of each row's JSON costs more than to insert the row.
    """

    def __init__(self, connection: sqlite3.Connection, arrived_at: float) -> None:
        self._connection = connection
        self._arrived_at = arrived_at
        self._alike: defaultdict[Attributes, list[tuple[object, ...]]] = defaultdict(list)
        self._said: Attributes | None = None
        self._rows: list[tuple[object, ...]] = []
        """Of what was said last: mostly the same object again, which is not hashed for each row."""

    def add(self, seq: int, delivery: Delivery, octets_size: int | None, octets_file: str | None) -> None:
        """Take one row."""
        if delivery.attributes is not self._said:
            self._said, self._rows = delivery.attributes, self._alike[delivery.attributes]
        self._rows.append((seq, delivery.delivery_id, delivery.mid, octets_size, octets_file))

    def flush(self) -> None:
        """Insert what was taken."""
        for said, rows in self._alike.items():
            self._connection.execute(
                _INSERT_MESSAGES,
                (
                    orjson.dumps(rows).decode(),
                    said.topic,
                    PRIORITIES.index(said.priority),
                    json.dumps(said.tags),
                    said.reason,
                    said.detail,
                    self._arrived_at,
                ),
            )
        self._alike.clear()
        self._said = None


class Contents:
    """Events and octets on their way into the table, many in one statement.

    Python's sqlite3 gives up the interpreter for every row, and takes milliseconds to get it back from a busy event
    loop: row by row a batch took three times as long. So their octets are laid end to end, and one statement cuts
    them apart again.
    """

    _TOGETHER = 2_000_000
    """Octets that are copied for one statement, about; a larger message goes alone."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._begin()

    def _begin(self) -> None:
        self._places: list[tuple[int, ...]] = []
        self._events: list[bytes] = []
        self._octets: list[Block] = []
        self._event_end = self._octets_end = 0
        self._with_octets = False

    def add(self, seq: int, event: bytes, octets: Block | None) -> None:
        """Take one row; ``octets`` is None if the queue does not hold them here."""
        size = 0 if octets is None else len(octets)
        if self._places and (
            self._event_end + self._octets_end + len(event) + size > self._TOGETHER
            or self._with_octets is (octets is None)
        ):
            self.flush()
        # SQL counts from 1.
        self._with_octets = octets is not None
        self._places.append((seq, self._event_end + 1, len(event), self._octets_end + 1, size))
        self._events.append(event)
        self._event_end += len(event)
        if octets is not None:
            self._octets.append(octets)
            self._octets_end += size

    def flush(self) -> None:
        """Insert what was taken."""
        if self._places:
            rows, events = orjson.dumps(self._places).decode(), b"".join(self._events)
            if self._with_octets:
                octets: Block = self._octets[0] if len(self._octets) == 1 else b"".join(self._octets)
                self._connection.execute(_INSERT_CONTENTS, (rows, events, octets))
            else:
                self._connection.execute(_INSERT_EVENTS, (rows, events))
        self._begin()
