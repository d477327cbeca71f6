"""The other end of an SQLite queue: look, take, acknowledge, return. Synchronous; needs nothing of the daemon.

Everything here is done by the SQL that ``docs/queue-sqlite.md`` shows, so that a consumer in another language is this
file's equal. A message is taken for a while under a *lease*, a token that only its taker has. What is not acknowledged
within that time is there for the next taker, whose lease differs: who comes too late acknowledges nothing.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

from mailpoller.core.attributes import Priority
from mailpoller.core.errors import MessageGone, TransientError
from mailpoller.core.record import record
from mailpoller.sinks.sqlite.schema import OCTETS_FILE, PRIORITIES, QUEUE, State, octets_directory

VISIBILITY = timedelta(minutes=5)
"""How long a message is taken for unless the taker says."""

_ENTRY = (
    "seq, delivery_id, mid, topic, priority, tags, reason, detail, arrived_at, octets_size, attempts, "
    "taken_until, taker"
)

_TAKE = f"""
UPDATE message SET taken_until = :until, taker = :taker, lease = :lease, attempts = attempts + 1
WHERE seq IN (SELECT seq FROM message WHERE taken_until <= :now ORDER BY priority DESC, seq LIMIT :count)
RETURNING {_ENTRY}, octets_file,
    (SELECT event FROM content WHERE content.seq = message.seq),
    (SELECT octets FROM content WHERE content.seq = message.seq)
"""  # noqa: S608 - nothing in it comes from outside

_HEADS = """
SELECT seq, json_extract(event, '$.data.mailbox'), json_extract(event, '$.data.from[0].address'),
    json_extract(event, '$.data.subject')
FROM json_each(:seqs) AS wanted CROSS JOIN content ON content.seq = wanted.value WHERE json_valid(event)
"""

_THESE = "delivery_id IN (SELECT value FROM json_each(:ids)) AND (lease = :lease OR :lease IS NULL)"


@record
class Entry:
    """A message as the queue lists it. Instants are aware UTC.

    ``taken_until`` and ``taker`` are None unless ``state`` is ``taken``. ``octets_size`` is None if the queue does not
    hold the raw octets. ``attempts``: how often it was taken so far.
    """

    seq: int
    delivery_id: str
    mid: str
    topic: str
    priority: Priority
    tags: tuple[str, ...]
    reason: str
    detail: str
    arrived_at: datetime
    octets_size: int | None
    attempts: int
    state: State
    taken_until: datetime | None
    taker: str | None


@record
class Head:
    """By what a human knows a message: its mailbox, the address it is from, its subject; empty if the event does not
    say."""

    mailbox: str
    sender: str
    subject: str


@record
class Held:
    """A message with its content: the event as JSON text, and where its raw octets are."""

    entry: Entry
    event: str
    octets_path: Path | None
    """The file that the octets of a large message lie in; the queue removes it some time after the acknowledgement."""
    _inline: bytes | None

    def octets(self) -> bytes | None:
        """The raw octets, read into memory; None if the queue does not hold them. Raises :class:`TransientError`."""
        if self.octets_path is None:
            return self._inline
        try:
            descriptor = os.open(self.octets_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                return file.read()
        except OSError as error:
            raise TransientError(f"cannot read {self.octets_path}: {error.strerror}") from error


@record
class Counts:
    """How many messages are ``ready`` and ``taken``, how many acknowledged ids are remembered, and when the oldest
    message that is held arrived."""

    ready: int
    taken: int
    acknowledged: int
    oldest_at: datetime | None


@record
class Take:
    """What :meth:`Queue.take` gave: messages, highest priority first and then oldest, and the lease on them."""

    token: str
    messages: Sequence[Held]


def open_queue(path: Path, *, busy_timeout: timedelta = timedelta(seconds=10)) -> Queue:
    """Open a queue that exists. Raises :class:`TransientError` if it is missing, is none, or may not be used."""
    if not path.exists():
        raise TransientError(f"there is no queue at {path}")
    with _translated(path):
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, timeout=busy_timeout.total_seconds()
        )
    try:
        with _translated(path):
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA synchronous=FULL")
            (application_id,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application_id != QUEUE.application_id or version != QUEUE.version:
            raise TransientError(f"{path} is no queue of version {QUEUE.version}")
    except BaseException:
        connection.close()
        raise
    return Queue(path, connection)


class Queue:
    """An open queue. Not to be shared by threads. Every method raises :class:`TransientError` if the database
    cannot do it (locked, full, no right), and then nothing was changed."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def take(self, count: int = 1, *, duration: timedelta = VISIBILITY, taker: str = "") -> Take:
        """Take up to ``count`` messages for ``duration``; nobody else is given them before it has passed."""
        now = time.time()
        token = uuid4().hex
        parameters = {
            "now": now,
            "until": now + duration.total_seconds(),
            "taker": taker or f"pid {os.getpid()}",
            "lease": token,
            "count": count,
        }
        rows = self._execute(_TAKE, parameters)
        held = [self._held(row, now) for row in rows]
        held.sort(key=lambda one: (-PRIORITIES.index(one.entry.priority), one.entry.seq))
        return Take(token, held)

    def ack(self, delivery_ids: Collection[str], token: str | None) -> Sequence[str]:
        """Acknowledge: the messages are done and leave the queue, which remembers their ids. Returns the ids of those
        that were acknowledged: not those whose lease is another's by now. An operator may pass None for any lease."""
        rows = self._execute(
            f"DELETE FROM message WHERE {_THESE} RETURNING delivery_id",  # noqa: S608
            {"ids": json.dumps(list(delivery_ids)), "lease": token},
        )
        return [row[0] for row in rows]

    def return_(
        self, delivery_ids: Collection[str], token: str | None, *, delay: timedelta = timedelta()
    ) -> Sequence[str]:
        """Give messages back, to be taken again after ``delay``. Returns and takes what :meth:`ack` does."""
        return self._release(delivery_ids, token, delay, keep=False)

    def extend(self, delivery_ids: Collection[str], token: str, *, duration: timedelta = VISIBILITY) -> Sequence[str]:
        """Hold on to messages for ``duration`` from now. Returns the ids of those that are still this taker's."""
        return self._release(delivery_ids, token, duration, keep=True)

    def list(self, limit: int = 100, state: State | None = None) -> Sequence[Entry]:
        """The messages in the order in which they would be taken, those of one state or all."""
        now = time.time()
        condition = {None: "1", "ready": "taken_until <= :now", "taken": "taken_until > :now"}[state]
        rows = self._execute(
            f"SELECT {_ENTRY} FROM message WHERE {condition} ORDER BY priority DESC, seq LIMIT :limit",  # noqa: S608
            {"now": now, "limit": limit},
        )
        return [_entry(row, now) for row in rows]

    def latest(self, limit: int = 10) -> Sequence[Entry]:
        """The messages that came last, the latest at the end."""
        return self._by_arrival("1 ORDER BY seq DESC LIMIT :limit", limit)[::-1]

    def after(self, seq: int, limit: int = 100) -> Sequence[Entry]:
        """The messages behind this number in the queue, in the order in which they came. What came and was acknowledged
        since is not among them."""
        return self._by_arrival("seq > :seq ORDER BY seq LIMIT :limit", limit, seq)

    def _by_arrival(self, condition: str, limit: int, seq: int = 0) -> Sequence[Entry]:
        now = time.time()
        rows = self._execute(
            f"SELECT {_ENTRY} FROM message WHERE {condition}",  # noqa: S608
            {"seq": seq, "limit": limit},
        )
        return [_entry(row, now) for row in rows]

    def of_mids(self, mids: Collection[str]) -> Sequence[str]:
        """The delivery ids of all that is held of these messages."""
        rows = self._execute(
            "SELECT delivery_id FROM message WHERE mid IN (SELECT value FROM json_each(:mids))",
            {"mids": json.dumps(list(mids))},
        )
        return [row[0] for row in rows]

    def heads(self, entries: Sequence[Entry]) -> Mapping[int, Head]:
        """Number in the queue -> what tells a human which messages these are."""
        rows = self._execute(_HEADS, {"seqs": json.dumps([entry.seq for entry in entries])})
        return {seq: Head(*(word or "" for word in words)) for seq, *words in rows}

    def show(self, identifier: str) -> Held:
        """The message with this delivery id, mid or number. Raises :class:`MessageGone` if the queue does not hold
        it."""
        rows = self._execute(
            f"SELECT {_ENTRY}, octets_file, event, octets FROM message JOIN content USING (seq) "  # noqa: S608
            "WHERE delivery_id = :id OR mid = :id OR CAST(seq AS TEXT) = :id ORDER BY seq LIMIT 1",
            {"id": identifier},
        )
        if not rows:
            raise MessageGone(f"{self.path} does not hold {identifier}")
        return self._held(rows[0], time.time())

    def counts(self) -> Counts:
        """How many there are of each kind."""
        ((ready, taken, oldest, acknowledged),) = self._execute(
            "SELECT count(*) FILTER (WHERE taken_until <= :now), count(*) FILTER (WHERE taken_until > :now), "
            "min(arrived_at), (SELECT count(*) FROM acknowledged) FROM message",
            {"now": time.time()},
        )
        return Counts(ready, taken, acknowledged, None if oldest is None else _instant(oldest))

    def close(self) -> None:
        """Close the database. What is taken stays taken until its time has passed. Harmless when repeated."""
        self._connection.close()

    def _release(self, ids: Collection[str], token: str | None, duration: timedelta, *, keep: bool) -> Sequence[str]:
        lease = "" if keep else ", taker = NULL, lease = NULL"
        until = time.time() + duration.total_seconds() if duration else 0
        rows = self._execute(
            f"UPDATE message SET taken_until = :until{lease} WHERE {_THESE} RETURNING delivery_id",  # noqa: S608
            {"ids": json.dumps(list(ids)), "lease": token, "until": until},
        )
        return [row[0] for row in rows]

    def _execute(self, statement: str, parameters: dict[str, Any]) -> Sequence[Any]:
        with _translated(self.path):
            return self._connection.execute(statement, parameters).fetchall()

    def _held(self, row: Sequence[Any], now: float) -> Held:
        *entry, file, event, octets = row
        if file is not None and not OCTETS_FILE.fullmatch(file):
            raise TransientError(f"{self.path} names an octets file that cannot be its own: {file!r}")
        return Held(_entry(entry, now), event, octets_directory(self.path) / file if file else None, octets)


def _entry(row: Sequence[Any], now: float) -> Entry:
    seq, delivery_id, mid, topic, priority, tags, reason, detail, arrived_at, size, attempts, until, taker = row
    taken = until > now
    return Entry(
        seq, delivery_id, mid, topic, PRIORITIES[priority], tuple(json.loads(tags)), reason, detail,
        _instant(arrived_at), size,
        attempts, "taken" if taken else "ready", _instant(until) if taken else None, taker if taken else None,
    )  # fmt: skip


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Raise what SQLite raises as a :class:`TransientError` that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise TransientError(f"{path}: {error}") from error
