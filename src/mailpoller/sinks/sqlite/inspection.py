"""What can be told of a queue that this process has not delivered to yet, without leaving a trace."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Mark
from mailpoller.sinks.sqlite.schema import QUEUE
from mailpoller.storage.disk import accessible, group_id, require_place, transient
from mailpoller.storage.sqlite.errors import SqliteUnavailable, classify
from mailpoller.storage.sqlite.file import check


def inspect(path: Path, *, group: str | None, min_free: int, busy_timeout: timedelta) -> None:
    """Raise :class:`TransientError` if a first delivery could not succeed now.

    A file that is missing is not made, one of an older version is not migrated, and one that is no queue is not even
    switched to another journal, as it would be on the way to a delivery. Blocks for ``busy_timeout`` at most.
    """
    group_id(group)
    require_place(path.parent, min_free)
    with transient(f"use {path}"), suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise TransientError(f"{path} is not a regular file")
        if not accessible(path, os.W_OK):
            raise TransientError(f"{path} cannot be written")
        if found.st_size:
            _require_lock(path, busy_timeout)


def _require_lock(path: Path, busy_timeout: timedelta) -> None:
    """Raise :class:`TransientError` unless the database is a queue, and gives us the lock that a delivery needs."""
    location = f"file:{quote(str(path))}?mode=rw"
    try:
        with closing(
            sqlite3.connect(location, uri=True, isolation_level=None, timeout=busy_timeout.total_seconds())
        ) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            check(connection, path, QUEUE)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise classify(error, path) or TransientError(f"{path}: {error}") from error


def find_mark(path: Path, *, busy_timeout: timedelta) -> Mark | None:
    """The mark of the queue at ``path``; None if there is no queue, or one without a mark. Leaves no trace.

    Raises :class:`TransientError` if the file cannot be read.
    """
    with transient(f"use {path}"):
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        return None
    location = f"file:{quote(str(path))}?mode=rw"
    try:
        with closing(
            sqlite3.connect(location, uri=True, isolation_level=None, timeout=busy_timeout.total_seconds())
        ) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            check(connection, path, QUEUE)
            return read_mark(connection, path)
    except SqliteUnavailable as error:
        if error.kind == "foreign":
            return None
        raise
    except sqlite3.Error as error:
        raise classify(error, path) or TransientError(f"{path}: {error}") from error


def read_mark(connection: sqlite3.Connection, path: Path) -> Mark | None:
    """The mark of an open queue; None if it has none. Its height is the last number that a message got, which SQLite
    keeps whoever removes the message."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'mark'").fetchone():
        return None
    row = connection.execute(
        "SELECT identity, (SELECT seq FROM sqlite_sequence WHERE name = 'message') FROM mark LIMIT 1"
    ).fetchone()
    return None if row is None else Mark(str(row[0]), row[1] or 0, str(path))
