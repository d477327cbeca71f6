"""The intake of type ``sqlite``: a table into which programs write entries, and in which they find the answers."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from sqlite3 import Connection
from typing import Literal

from mailpoller.core.component import Runtime
from mailpoller.core.errors import TransientError
from mailpoller.core.intake_config import IntakeSettings
from mailpoller.core.literals import Duration
from mailpoller.core.ports import Clock, EntryAnswer, EntrySource, WaitingEntry
from mailpoller.storage.disk import require_place
from mailpoller.storage.sqlite import Database, Schema
from mailpoller.storage.sqlite.file import check

SCHEMA = Schema(
    name="intake",
    application_id=0x6D70696E,
    migrations=(
        """
CREATE TABLE entry (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    body        TEXT    NOT NULL,
    state       TEXT    NOT NULL DEFAULT 'new',
    mail        TEXT,
    message_id  TEXT,
    reason      TEXT,
    answered_at INTEGER
);

CREATE INDEX entry_new ON entry (id) WHERE state = 'new';
CREATE INDEX entry_answered ON entry (answered_at) WHERE answered_at IS NOT NULL;

CREATE TABLE intake (mark TEXT NOT NULL);
""",
        # What waits keeps the key that it may have been accepted under.
        """
ALTER TABLE entry ADD COLUMN token TEXT;

UPDATE entry SET token = coalesce((SELECT mark FROM intake LIMIT 1), lower(hex(randomblob(8)))) || '-' || id
WHERE state = 'new';

DROP TABLE intake;

CREATE TRIGGER entry_token AFTER INSERT ON entry WHEN new.token IS NULL BEGIN
    UPDATE entry SET token = lower(hex(randomblob(16))) WHERE id = new.id;
END;
""",
    ),
)
_FORGOTTEN_AT_ONCE = 1000
_READ_AT_ONCE = 4 << 20
"""Octets of entries beyond which no further one is read: many large ones would take all memory."""


class SqliteIntakeConfig(IntakeSettings):
    """A table of an SQLite file: programs insert entries, and read in the same row what became of them."""

    type: Literal["sqlite"]
    path: Path
    """The file. Created, with its directory, if it is missing. Who may write it may send for the departments."""
    keep: Duration = timedelta(days=30)
    """How long an entry that was answered stays there."""

    def build(self, name: str, runtime: Runtime) -> EntrySource:
        """The table. Opens nothing."""
        return SqliteIntake(self.path, runtime.clock, self.keep)


class SqliteIntake:
    """See :class:`~mailpoller.core.ports.EntrySource`. An entry's key is its token, a random one: a file that was begun
    anew or put back gives the same id to another entry."""

    def __init__(self, path: Path, clock: Clock, keep: timedelta) -> None:
        self._database = Database(path, SCHEMA, file_mode=0o660, directory_mode=0o2770, recreate=True)
        self._path = path
        self._clock = clock
        self._keep = keep

    async def waiting(self, *, limit: int, largest: int, but: Collection[int] = ()) -> Sequence[WaitingEntry]:
        return await self._database.read(lambda connection: _waiting(connection, limit, largest, but))

    async def answer(self, answers: Sequence[EntryAnswer]) -> None:
        now = self._clock.now()
        at, before = int(now.timestamp() * 1e6), int((now - self._keep).timestamp() * 1e6)

        def work(connection: Connection) -> None:
            connection.executemany(
                "UPDATE entry SET state = ?, mail = ?, message_id = ?, reason = ?, answered_at = ? WHERE id = ?",
                [
                    ("accepted" if one.mail else "refused", one.mail or None, one.message_id or None,
                     one.reason or None, at, one.number)
                    for one in answers
                ],
            )  # fmt: skip
            connection.execute(
                "DELETE FROM entry WHERE id IN (SELECT id FROM entry WHERE answered_at < ? AND state <> 'new' LIMIT ?)",
                (before, _FORGOTTEN_AT_ONCE),
            )

        await self._database.write(work)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.EntrySource`: the file is one of ours, or can be made."""
        await asyncio.to_thread(self._look)

    def _look(self) -> None:
        if not self._path.exists():
            require_place(self._path.parent, 0)
            return
        try:
            with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=rw", uri=True)) as found:
                check(found, self._path, SCHEMA)
        except sqlite3.Error as error:
            raise TransientError(f"{self._path}: {error}") from None

    async def close(self) -> None:
        await self._database.close()


def _waiting(connection: Connection, limit: int, largest: int, but: Collection[int] = ()) -> list[WaitingEntry]:
    rows = connection.execute(
        "SELECT id, CAST(coalesce(token, 'entry-' || id) AS BLOB), "
        "iif(typeof(body) IN ('text', 'blob'), length(CAST(body AS BLOB)), 0) FROM entry "
        "WHERE state = 'new' AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?",
        (json.dumps(sorted(but)), limit),
    )
    found: list[WaitingEntry] = []
    room = _READ_AT_ONCE
    for number, token, size in rows:
        octets = None
        if 0 < size <= largest:
            if found and size > room:
                break
            room -= size
            (octets,) = connection.execute("SELECT CAST(body AS BLOB) FROM entry WHERE id = ?", (number,)).fetchone()
        key = bytes(token).decode("utf-8", "backslashreplace")  # a program may have written its own
        found.append(WaitingEntry(number, key, octets, size))
    return found
