"""An SQLite file: created with the right modes, opened durably, brought to the schema we know."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import field
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import structlog

from mailpoller.core.errors import ConfigError
from mailpoller.core.record import record
from mailpoller.storage.disk import accessible
from mailpoller.storage.disk import directory as opened_directory
from mailpoller.storage.sqlite.errors import SqliteUnavailable

log = structlog.get_logger(__name__)

OLDEST_SQLITE = (3, 37, 0)
"""Knows STRICT tables, UPDATE FROM and RETURNING."""
LOG_OCTETS = 8 << 20
"""So much of the log goes back into the file at once."""


Work = Callable[[sqlite3.Connection, Callable[[int, int], None]], None]
"""What a migration does to rows, in its transaction; it tells how many of how many are done."""

COPIED_PAGES = 4096
"""Pages that are copied between two looks at the clock."""
PROGRESS_EVERY = 10.0
"""Seconds between two lines of the log about a migration."""
ROOM_BESIDE = 1.5
"""A migration needs so many times the file's size on its disk: for the copy, and for the log of what it changes."""


@record
class Schema:
    """What a file is meant to hold.

    ``application_id`` (32 bits) marks our files, so that a ledger is never opened as a queue. ``migrations``: the
    n-th script, SQL statements, leads from version n - 1 (0 is an empty file) to version n. Scripts are only ever
    added. ``works``: what a version does to the rows of an older file, after its script. ``page_size`` (octets) of a
    new file: small where a commit touches a few rows in many pages, since it writes whole pages to the log; larger
    where a row fills several.
    """

    name: str
    application_id: int
    migrations: tuple[str, ...]
    page_size: int = 4096
    works: Mapping[int, Work] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The version that this program writes."""
        return len(self.migrations)


def create(path: Path, *, file_mode: int, directory_mode: int) -> None:
    """Make the file, empty, and its directory, unless they are there. Modes are set whatever the umask is, and only
    on what is made here: what an administrator chose stays. SQLite gives its ``-wal`` and ``-shm`` the file's own
    mode."""
    directory = path.parent
    if not directory.is_dir():
        directory.mkdir(mode=directory_mode, parents=True, exist_ok=True)
        with opened_directory(directory) as held:  # and not by name, which may be a link by now
            os.fchmod(held, directory_mode)
        _sync_directory(directory.parent)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file_mode)
    except FileExistsError:
        return
    try:
        os.fchmod(descriptor, file_mode)
    finally:
        os.close(descriptor)
    _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    """Make the names in it durable: a file whose name a power cut forgets is no record."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def connect(path: Path, *, page_size: int, busy_timeout: timedelta, incremental_vacuum: bool) -> sqlite3.Connection:
    """Open an existing file for durable writing: WAL, and every commit is on disk before it returns."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise ConfigError(f"this Python has SQLite {sqlite3.sqlite_version}; mailpoller needs 3.37 or later")
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        isolation_level=None,
        timeout=busy_timeout.total_seconds(),
        cached_statements=256,
    )
    try:
        connection.execute(f"PRAGMA page_size={page_size}")  # heeded by an empty file only
        if incremental_vacuum:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # so is this
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise SqliteUnavailable("io", path, "this file system cannot hold an SQLite database in WAL mode")
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        for pragma in (
            "synchronous=FULL",
            "foreign_keys=ON",
            "trusted_schema=OFF",
            "temp_store=MEMORY",
            "cache_size=-8192",
            f"wal_autocheckpoint={LOG_OCTETS // page_size}",
            # A log that a slow reader made longer shrinks again.
            f"journal_size_limit={2 * LOG_OCTETS}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_read_only(
    path: Path, schema: Schema, *, busy_timeout: timedelta = timedelta(seconds=5)
) -> sqlite3.Connection:
    """Open a file for reading only, also while another process writes it, and check that it is ours.

    Usable from any thread, one at a time. Raises :class:`SqliteUnavailable` or :class:`sqlite3.OperationalError`.
    """
    location = f"file:{quote(str(path))}?mode=ro"
    if not path.with_name(path.name + "-wal").exists() and not accessible(path.parent, os.W_OK):
        location += "&immutable=1"  # nobody writes it, and we may not make the index of the log that SQLite wants
    connection = sqlite3.connect(
        location, uri=True, isolation_level=None, timeout=busy_timeout.total_seconds(), check_same_thread=False
    )
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        version = check(connection, path, schema)
        if version != schema.version:
            detail = f"has {schema.name} version {version}, this program reads version {schema.version}"
            raise SqliteUnavailable("foreign", path, detail)
    except BaseException:
        connection.close()
        raise
    return connection


def check(connection: sqlite3.Connection, path: Path, schema: Schema) -> int:
    """The file's schema version, 0 if it is empty. Raises :class:`SqliteUnavailable` if it is not ours to use."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if (tables or application_id or version) and application_id != schema.application_id:
        raise SqliteUnavailable("foreign", path, f"is an SQLite database, but not a mailpoller {schema.name}")
    if version > schema.version:
        detail = f"has {schema.name} version {version}, and this program knows versions up to {schema.version}"
        raise SqliteUnavailable("newer", path, detail)
    return int(version)


def migrate(connection: sqlite3.Connection, path: Path, schema: Schema, *, file_mode: int) -> None:
    """Bring the file to the schema's version, all steps in one transaction; first a copy is made beside it."""
    version = check(connection, path, schema)
    if version == schema.version:
        return
    progress = _Progress(path, schema, version)
    if version:
        progress.begin(path.stat().st_size)
        backup = path.with_name(f"{path.name}.v{version}.backup")
        _require_room(path, backup)
        _back_up(connection, backup, file_mode, progress)
    # What is sorted for an index may be larger than memory.
    connection.execute("PRAGMA temp_store=FILE")
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read again under the lock: another process may have been quicker.
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for number, script in enumerate(schema.migrations[version:], start=version + 1):
            for statement in _statements(script):
                connection.execute(statement)
            if version and number in schema.works:
                schema.works[number](connection, progress.rows)
        connection.execute(f"PRAGMA application_id={schema.application_id}")
        connection.execute(f"PRAGMA user_version={schema.version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("PRAGMA temp_store=MEMORY")
    log.info(
        "database.migrated",
        path=str(path),
        schema=schema.name,
        from_version=version,
        to_version=schema.version,
        elapsed_s=round(progress.elapsed, 1),
    )


class _Progress:
    """Says how far a migration is, now and then."""

    def __init__(self, path: Path, schema: Schema, version: int) -> None:
        self._path = str(path)
        self._version = version
        self._schema = schema
        self._began = time.monotonic()
        self._said = self._began

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def begin(self, octets: int) -> None:
        # A copy, a walk through the rows, and indices: 43 MB a second on two cores and an SSD.
        log.warning(
            "database.migration_begun",
            path=self._path,
            schema=self._schema.name,
            from_version=self._version,
            to_version=self._schema.version,
            size_bytes=octets,
            expected_s=max(1, octets // 25_000_000),
        )

    def _say(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= PROGRESS_EVERY and total:
            self._said = now
            elapsed = round(self.elapsed)
            log.info(
                "database.migration_advanced", path=self._path, step=step, done=done, total=total, elapsed_s=elapsed
            )

    def copied(self, _status: int, left: int, total: int) -> None:
        self._say("copying pages", total - left, total)

    def rows(self, done: int, total: int) -> None:
        self._say("rows", done, total)


def _require_room(path: Path, backup: Path) -> None:
    """Raise :class:`SqliteUnavailable` if the disk has no room for the copy and for what the migration writes."""
    backup.with_name(backup.name + ".unfinished").unlink(missing_ok=True)
    size = path.stat().st_size
    free = shutil.disk_usage(path.parent).free
    if free < ROOM_BESIDE * size:
        detail = (
            f"is to be migrated, and {path.parent} has {free:,} octets free: the copy for the way back and the "
            f"migration need {int(ROOM_BESIDE * size):,}; make room, nothing was changed"
        )
        raise SqliteUnavailable("full", path, detail)


def _back_up(connection: sqlite3.Connection, target: Path, file_mode: int, progress: _Progress) -> None:
    """A copy of the database at ``target``, whole or not at all."""
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    create(unfinished, file_mode=file_mode, directory_mode=0o700)
    with closing(sqlite3.connect(unfinished, isolation_level=None)) as copy:
        connection.backup(copy, pages=COPIED_PAGES, progress=progress.copied)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, to be moved about without its log
    unfinished.replace(target)
    _sync_directory(target.parent)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one, because ``executescript`` would commit in between."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
