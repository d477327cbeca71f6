"""The tables of a queue: an interface for consumers in any language, so they change by migration only.

``docs/queue-sqlite.md`` describes them for consumers, and a test holds the two together.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from mailpoller.core.attributes import Priority
from mailpoller.storage.sqlite import Schema

PRIORITIES: tuple[Priority, ...] = ("low", "normal", "high")
"""What ``message.priority`` counts: 0, 1, 2."""

State = Literal["ready", "taken"]

OCTETS_FILE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.eml")
"""Every name that ``octets_file`` may hold. Whoever opens or removes such a file checks it first: the group may write
to the database, and must not be able to point us at a file elsewhere."""


def octets_directory(database: Path) -> Path:
    """Where the octets of large messages lie: beside the database, ``support.db.octets``."""
    return database.with_name(database.name + ".octets")


MARK = "CREATE TABLE IF NOT EXISTS mark (identity TEXT NOT NULL) STRICT"
"""Which queue this is. Ours alone, so it joins a queue without a new version, which would be one to every consumer."""

# Two tables for a message, because taking and returning rewrites its row: the small one changes, the large one never.
# One trigger does all that an acknowledgement means, so that a consumer has one row to delete and nothing to forget.
QUEUE = Schema(
    name="queue",
    application_id=0x6D706C71,  # "mplq"
    page_size=8192,
    migrations=(
        """
        CREATE TABLE message (
            seq         INTEGER PRIMARY KEY AUTOINCREMENT,
            delivery_id TEXT    NOT NULL UNIQUE,
            mid         TEXT    NOT NULL,
            topic       TEXT    NOT NULL,
            priority    INTEGER NOT NULL,
            tags        TEXT    NOT NULL,
            reason      TEXT    NOT NULL,
            detail      TEXT    NOT NULL,
            arrived_at  REAL    NOT NULL,
            octets_size INTEGER,
            octets_file TEXT,
            attempts    INTEGER NOT NULL DEFAULT 0,
            taken_until REAL    NOT NULL DEFAULT 0,
            taker       TEXT,
            lease       TEXT
        );
        CREATE INDEX message_next ON message (priority DESC, seq, taken_until);
        CREATE TABLE content (
            seq    INTEGER PRIMARY KEY,
            event  TEXT NOT NULL,
            octets BLOB
        );
        CREATE TABLE acknowledged (
            seq             INTEGER PRIMARY KEY,
            delivery_id     TEXT    NOT NULL UNIQUE,
            acknowledged_at INTEGER NOT NULL
        );
        CREATE TABLE stray (
            octets_file TEXT PRIMARY KEY
        ) WITHOUT ROWID;
        CREATE TRIGGER message_acknowledged AFTER DELETE ON message BEGIN
            DELETE FROM content WHERE seq = old.seq;
            INSERT OR IGNORE INTO acknowledged (delivery_id, acknowledged_at)
                VALUES (old.delivery_id, CAST(strftime('%s', 'now') AS INTEGER));
            INSERT OR IGNORE INTO stray SELECT old.octets_file WHERE old.octets_file IS NOT NULL;
        END;
        """,
    ),
)
