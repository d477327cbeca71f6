"""What SQLite says when it cannot, as one exception with a kind."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Literal

from mailpoller.core.errors import TransientError

Trouble = Literal["full", "read-only", "busy", "corrupt", "io", "replaced", "newer", "foreign", "closed"]
"""Why a database cannot be used.

``full``: no room on the disk. ``read-only``: file, directory or file system cannot be written. ``busy``: another
process holds the lock for longer than we wait. ``corrupt``: not a sound SQLite file. ``io``: anything else that the
system refuses. ``replaced``: the file was removed, or another one lies in its place. ``newer``: written by a later
version. ``foreign``: a sound SQLite file that is not ours. ``closed``: we closed it.
"""


class SqliteUnavailable(TransientError):
    """The database could not do it, for a reason that lies outside the request: nothing of it is known to be
    recorded."""

    def __init__(self, kind: Trouble, path: Path, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.kind: Trouble = kind
        self.path = path
        self.detail = detail

    def again(self) -> SqliteUnavailable:
        """The same once more, for a second caller: an exception that two tasks raise mixes up their tracebacks."""
        return SqliteUnavailable(self.kind, self.path, self.detail)


_TROUBLES: dict[int, Trouble] = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_PERM: "read-only",
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_PROTOCOL: "busy",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_IOERR: "io",
    sqlite3.SQLITE_CANTOPEN: "io",
    sqlite3.SQLITE_NOMEM: "io",
    sqlite3.SQLITE_INTERRUPT: "io",
    sqlite3.SQLITE_NOLFS: "io",
}
_RIGHTS = "; our user must have the right to write the file, its -wal and -shm, and their directory"
_ADVICE = {sqlite3.SQLITE_READONLY: _RIGHTS, sqlite3.SQLITE_CANTOPEN: _RIGHTS}
_ERRNOS: dict[int, Trouble] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EFBIG: "full",
    errno.EROFS: "read-only",
    errno.EACCES: "read-only",
    errno.EPERM: "read-only",
}


def classify(error: BaseException, path: Path) -> SqliteUnavailable | None:
    """The trouble that ``error`` is, or None if it is the request's own doing (a bug, a broken constraint)."""
    if isinstance(error, SqliteUnavailable):
        return error
    if isinstance(error, OSError):
        return SqliteUnavailable(_ERRNOS.get(error.errno or 0, "io"), path, error.strerror or type(error).__name__)
    if isinstance(error, sqlite3.Error):
        # The low octet is the primary result code; the rest only says where inside SQLite it arose.
        kind = _TROUBLES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if kind is not None:
            advice = _ADVICE.get(error.sqlite_errorcode & 0xFF, "")
            if advice and (lack := _no_file_left()):
                advice = f": {lack}"  # SQLite does not say why it cannot open a file
            return SqliteUnavailable(kind, path, f"{error}{advice}")
    return None


def _no_file_left() -> str:
    """Why no file at all can be opened now; empty if one can."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return f"{error.strerror} (LimitNOFILE)"
    return ""
