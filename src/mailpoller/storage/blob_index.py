"""Who refers to which blob, in a database of ours.

Of a store of files it lies beside them, and a file is renamed into its place, and removed from it, inside of a
transaction that writes here: SQLite's lock is the one that referring and removing share, also between processes. A row
is no proof of what it names, and is never taken for one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence

from mailpoller.core.ports import BlobReference, IdleBlob
from mailpoller.storage.sqlite import Schema

BLOBS = Schema(
    name="blobs",
    application_id=0x6D706C62,  # "mplb"
    migrations=(
        """
        CREATE TABLE blob (
            sha256      BLOB PRIMARY KEY,
            referred_at REAL NOT NULL
        ) WITHOUT ROWID;
        CREATE INDEX blob_referred ON blob (referred_at);
        CREATE TABLE reference (
            sha256      BLOB NOT NULL,
            queue       TEXT NOT NULL,
            delivery_id TEXT NOT NULL,
            mid         TEXT NOT NULL,
            PRIMARY KEY (sha256, queue, delivery_id)
        ) WITHOUT ROWID;
        """,
        "CREATE INDEX reference_mid ON reference (mid);",
    ),
)


def refer(connection: sqlite3.Connection, references: Iterable[BlobReference], now: float) -> None:
    """Note the references."""
    rows = [(one.sha256, one.queue, one.delivery_id, one.mid) for one in references]
    adopt(connection, {row[0] for row in rows}, now)
    connection.executemany("INSERT OR REPLACE INTO reference VALUES (?, ?, ?, ?)", rows)


def adopt(connection: sqlite3.Connection, several: Collection[bytes], now: float) -> None:
    """These count as referred to now."""
    connection.executemany(
        "INSERT INTO blob VALUES (?1, ?2) ON CONFLICT (sha256) DO UPDATE SET referred_at = max(referred_at, ?2)",
        [(sha256, now) for sha256 in several],
    )


def unknown(connection: sqlite3.Connection, several: Collection[bytes]) -> list[bytes]:
    """Those of them that have no row."""
    return [
        sha256
        for sha256 in several
        if connection.execute("SELECT 1 FROM blob WHERE sha256 = ?", (sha256,)).fetchone() is None
    ]


def of_message(connection: sqlite3.Connection, mid: str) -> list[bytes]:
    """What events of this message refer to."""
    return [sha256 for (sha256,) in connection.execute("SELECT DISTINCT sha256 FROM reference WHERE mid = ?", (mid,))]


def idle(connection: sqlite3.Connection, before: float, limit: int) -> Sequence[IdleBlob]:
    """Those that were referred to before, the longest ago first."""
    found = connection.execute(
        "SELECT sha256 FROM blob WHERE referred_at < ? ORDER BY referred_at LIMIT ?", (before, limit)
    )
    return [IdleBlob(sha256, _references(connection, sha256)) for (sha256,) in found.fetchall()]


def _references(connection: sqlite3.Connection, sha256: bytes) -> tuple[BlobReference, ...]:
    found = connection.execute("SELECT queue, delivery_id, mid FROM reference WHERE sha256 = ?", (sha256,))
    return tuple(BlobReference(sha256, *row) for row in found)


def forget(connection: sqlite3.Connection, sha256: bytes, before: float) -> bool:
    """Forget a blob and who referred to it, unless somebody did since ``before``: False then."""
    done = connection.execute("DELETE FROM blob WHERE sha256 = ? AND referred_at < ?", (sha256, before))
    if not done.rowcount:
        return False
    connection.execute("DELETE FROM reference WHERE sha256 = ?", (sha256,))
    return True
