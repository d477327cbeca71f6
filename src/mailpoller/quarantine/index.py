"""What is held, in a form that can be asked: made from the files, and made anew from them whenever it is in doubt.

The files are the truth. Nothing waits for the index to be on disk; after a power cut its names are compared with those
of the files, and what differs is read again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from mailpoller.core.quarantined import Quarantined, Selection
from mailpoller.quarantine.form import Damaged, line, understood

log = structlog.get_logger(__name__)

_LAYOUT = 1
_SCHEMA = """
CREATE TABLE held (
  id TEXT PRIMARY KEY, mid TEXT NOT NULL, mailbox TEXT NOT NULL, sender TEXT NOT NULL, domain TEXT NOT NULL,
  reason TEXT NOT NULL, held_at INTEGER NOT NULL, size INTEGER NOT NULL, line BLOB NOT NULL,
  owed INTEGER NOT NULL, due_at INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0,
  trouble TEXT NOT NULL DEFAULT '', warned_at INTEGER
) WITHOUT ROWID;
CREATE INDEX held_mid ON held (mid);
CREATE INDEX held_since ON held (held_at);
CREATE INDEX held_owed ON held (held_at) WHERE owed;
CREATE INDEX held_unwarned ON held (held_at) WHERE warned_at IS NULL;
"""
_COLUMNS = "line, owed, tries, trouble"
_AT_ONCE = 500


class Index:
    """One connection, for one thread at a time. Raises :class:`sqlite3.Error` for the disk's sake; a file that is no
    index, or a damaged one, is begun anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    @property
    def opened(self) -> bool:
        return self._connection is not None

    def open(self) -> None:
        """Open the file, or begin it."""
        try:
            self._open()
        except sqlite3.OperationalError:
            self.close()
            raise  # the disk's trouble
        except sqlite3.DatabaseError as error:
            log.warning("quarantine.index_renewed", reason=str(error))
            self.discard()
            self._open()

    def discard(self) -> None:
        """Close it, and remove what was there."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _open(self) -> None:
        self.path.touch(mode=0o600)
        made = sqlite3.connect(self.path, isolation_level=None, timeout=5, check_same_thread=False)
        self._connection = made
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("PRAGMA synchronous=OFF")
        (layout,) = made.execute("PRAGMA user_version").fetchone()
        if layout == _LAYOUT:
            made.execute("SELECT count(*) FROM held WHERE owed").fetchone()
            return
        if layout:
            raise sqlite3.DatabaseError(f"layout {layout}")
        made.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_LAYOUT}; COMMIT;")

    def close(self) -> None:
        """Harmless when repeated."""
        made, self._connection = self._connection, None
        if made is not None:
            with suppress(sqlite3.Error):
                made.close()

    @property
    def _made(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("the index is not open")
        return self._connection

    # --- writing -------------------------------------------------------------------------------------------------
    def add(self, several: Iterable[Quarantined]) -> None:
        """What is held now."""
        rows = [
            (
                one.delivery_id,
                one.mid,
                one.mailbox,
                one.sender.lower().encode("utf-8", "replace").decode(),
                one.sender.lower().rpartition("@")[2].encode("utf-8", "replace").decode(),
                one.reason,
                _micros(one.held_at),
                one.size,
                line(one)[:-1],
                one.notice_owed,
            )
            for one in several
        ]
        sql = "INSERT OR REPLACE INTO held (id, mid, mailbox, sender, domain, reason, held_at, size, line, owed) VALUES"
        with self._made:
            self._made.executemany(f"{sql} (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def drop(self, ids: Collection[str]) -> None:
        """What is held no more."""
        with self._made:
            self._made.executemany("DELETE FROM held WHERE id = ?", [(one,) for one in ids])

    def notified(self, words: Mapping[str, str]) -> None:
        with self._made:
            sql = "UPDATE held SET owed = 0, trouble = ? WHERE id = ?"
            self._made.executemany(sql, [(word, one) for one, word in words.items()])

    def owe(self, owed: Mapping[str, bool]) -> None:
        """As the files say."""
        with self._made:
            sql = "UPDATE held SET owed = ? WHERE id = ?"
            self._made.executemany(sql, [(value, one) for one, value in owed.items()])

    def put_off(self, ids: Collection[str], until: datetime, trouble: str, *, counted: bool) -> None:
        with self._made:
            sql = "UPDATE held SET due_at = ?, trouble = ?, tries = tries + ? WHERE id = ?"
            self._made.executemany(sql, [(_micros(until), trouble, counted, one) for one in ids])

    def unwarn(self, *, held_since: datetime) -> None:
        """What was held since then was told by other limits, and will be told again."""
        with self._made:
            sql = "UPDATE held SET warned_at = NULL WHERE warned_at IS NOT NULL AND held_at >= ?"
            self._made.execute(sql, (_micros(held_since),))

    def warn(self, now: datetime, *, held_before: datetime) -> int:
        """Note of whatever was held before that it was told now that it will expire; how many are told so.

        What was told in the future was told by a wrong clock, and is told again."""
        with self._made:
            self._made.execute("UPDATE held SET warned_at = NULL WHERE warned_at > ?", (_micros(now),))
            self._made.execute(
                "UPDATE held SET warned_at = ? WHERE warned_at IS NULL AND held_at < ?",
                (_micros(now), _micros(held_before)),
            )
        (count,) = self._made.execute("SELECT count(*) FROM held WHERE held_at < ?", (_micros(held_before),)).fetchone()
        return int(count)

    # --- asking --------------------------------------------------------------------------------------------------
    def names(self) -> dict[str, bool]:
        """id -> whether its notice is owed."""
        return {one: bool(owed) for one, owed in self._made.execute("SELECT id, owed FROM held")}

    def total(self) -> tuple[int, int]:
        """How many are held, and their octets."""
        count, size = self._made.execute(
            "SELECT count(*), coalesce(sum(size + length(line) + 1), 0) FROM held"
        ).fetchone()
        return int(count), int(size)

    def known(self, ids: Collection[str]) -> dict[str, int]:
        """Those of ``ids`` that are held, with the octets of their files."""
        found: dict[str, int] = {}
        for several in _pieces(list(ids)):
            sql = f"SELECT id, size + length(line) + 1 FROM held WHERE id IN ({_marks(several)})"  # noqa: S608
            found.update(self._made.execute(sql, several))
        return found

    def owed(self, now: datetime, but: Collection[str], limit: int) -> list[Quarantined]:
        sql = f"SELECT {_COLUMNS} FROM held WHERE owed AND due_at <= ? AND mailbox NOT IN "  # noqa: S608
        sql += "(SELECT value FROM json_each(?)) ORDER BY held_at LIMIT ?"
        values = (_micros(now), json.dumps(list(but)), limit)
        return list(map(_row, self._made.execute(sql, values)))

    def owing(self) -> int:
        """How many notices are owed."""
        (count,) = self._made.execute("SELECT count(*) FROM held WHERE owed").fetchone()
        return int(count)

    def expired(self, now: datetime, keep: timedelta, warning: timedelta, limit: int) -> list[Quarantined]:
        """Those that were kept long enough, of which that was told long enough ago. One whose notice is owed is kept
        twice as long, and not for ever: its mailbox may never come back."""
        sql = f"SELECT {_COLUMNS} FROM held WHERE held_at < ?1 AND warned_at <= ?2 "  # noqa: S608
        sql += "AND (NOT owed OR held_at < ?3) ORDER BY held_at LIMIT ?4"
        ends = (_micros(now - keep), _micros(now - warning), _micros(now - 2 * keep), limit)
        return list(map(_row, self._made.execute(sql, ends)))

    def find(self, wanted: Selection, now: datetime, limit: int) -> list[Quarantined]:
        terms: list[str] = ["1"]
        values: list[object] = []

        def ask(term: str, *asked: object) -> None:
            terms.append(term)
            values.extend(asked)

        if wanted.ids:
            marks = _marks(wanted.ids)
            ask(f"(id IN ({marks}) OR mid IN ({marks}))", *wanted.ids, *wanted.ids)
        if wanted.sender:
            domain = "@" not in wanted.sender[1:]
            ask("domain = ?" if domain else "sender = ?", wanted.sender.lower().removeprefix("@"))
        if wanted.reason:
            ask("reason = ?", wanted.reason)
        if wanted.but_reason:
            ask("reason <> ?", wanted.but_reason)
        if wanted.mailbox:
            ask("mailbox = ?", wanted.mailbox)
        if wanted.older_than is not None:
            ask("held_at <= ?", _micros(now - wanted.older_than))
        if wanted.newer_than is not None:
            ask("held_at >= ?", _micros(now - wanted.newer_than))
        if wanted.beyond is not None:
            ask("(held_at, id) > (?, ?)", _micros(wanted.beyond[0]), wanted.beyond[1])
        sql = f"SELECT {_COLUMNS} FROM held WHERE {' AND '.join(terms)} ORDER BY held_at, id LIMIT ?"  # noqa: S608
        return list(map(_row, self._made.execute(sql, (*values, limit))))


def _row(row: tuple[bytes, int, int, str]) -> Quarantined:
    octets, owed, tries, trouble = row
    try:
        held = understood(octets)
    except Damaged as error:
        raise sqlite3.DatabaseError(f"a row of the index: {error}") from None  # the files know better
    return replace(held, notice_owed=bool(owed), notice_tries=tries, notice_trouble=trouble)


def _micros(at: datetime) -> int:
    return (at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _pieces(several: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(several), _AT_ONCE):
        yield several[start : start + _AT_ONCE]


def _marks(several: Collection[str]) -> str:
    return ",".join("?" * len(several))
