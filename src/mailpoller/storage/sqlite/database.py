"""One thread owns the connection; all requests that wait when it is free share one transaction and one sync to disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

import structlog

from mailpoller.storage.sqlite.errors import SqliteUnavailable, classify
from mailpoller.storage.sqlite.file import Schema, connect, create, migrate
from mailpoller.storage.thread import begin, completed, seen_out

log = structlog.get_logger(__name__)

T = TypeVar("T")

GROUP_LIMIT = 256
"""Requests that share a commit at most, so that the first of them does not wait for ever more work."""
WAL_LIMIT = 64 << 20
"""Octets of log above which it is cut even if that means waiting a moment for readers."""
WAL_RETRY = timedelta(seconds=10)
WAL_PATIENCE = timedelta(milliseconds=200)


@dataclass(slots=True, eq=False)
class _Request:
    """Work for the thread, and the future that waits for it."""

    work: Callable[[sqlite3.Connection], Any]
    writes: bool
    future: asyncio.Future[Any]
    value: Any = None
    error: BaseException | None = None


class Database:
    """An SQLite file with one durable writer.

    Nothing is opened before the first request (or :meth:`open`); after trouble the file is opened again by the next
    request, so that the database recovers by itself when the disk has room again. ``recreate``: if the file was
    removed while in use, begin a new one; otherwise that is trouble of kind ``replaced`` until it is back.
    """

    def __init__(
        self,
        path: Path,
        schema: Schema,
        *,
        file_mode: int = 0o600,
        directory_mode: int = 0o700,
        busy_timeout: timedelta = timedelta(seconds=5),
        incremental_vacuum: bool = False,
        recreate: bool = False,
    ) -> None:
        self.path = path
        self.schema = schema
        self.commits = 0
        """Write transactions committed so far: fewer than requests when they come together."""
        self._file_mode = file_mode
        self._directory_mode = directory_mode
        self._busy_timeout = busy_timeout
        self._incremental_vacuum = incremental_vacuum
        self._recreate = recreate
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._entrance = Lock()
        self._thread: Thread | None = None
        self._closed = False
        self._last: list[_Request] = []
        """Who waits for the end of the thread."""
        self._anew = False
        # From here on: touched by the thread alone.
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._wal_tried = 0.0

    def create(self) -> None:
        """Make the file and its directory if they are missing, and nothing more. Blocks. Raises
        :class:`SqliteUnavailable`."""
        try:
            create(self.path, file_mode=self._file_mode, directory_mode=self._directory_mode)
        except OSError as error:
            raise classify(error, self.path) or error from error

    async def open(self) -> None:
        """Create, open and migrate the file. Raises :class:`SqliteUnavailable`."""
        await self.read(lambda connection: None)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in the thread, in a transaction, and return its value once that is committed and on disk.

        What ``work`` raises undoes its own changes and nobody else's, and is raised here. Trouble with the database
        is :class:`SqliteUnavailable`: then nothing is known to be recorded. ``work`` neither commits nor keeps
        the connection, and should take milliseconds: everybody waits for it.

        Cancelling does not stop work that is under way: the caller waits for its end, which the commit bounds, and is
        then cancelled. A second cancellation is obeyed at once, and so is one of work that does not end (the disk
        hangs, or a trigger of somebody's does): if it was begun it ends whole or is undone, and else it is not done.
        """
        return await self._submit(work, writes=True)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """As :meth:`write`, for work that changes nothing: it needs neither lock nor room on the disk."""
        return await self._submit(work, writes=False)

    def let_go(self) -> None:
        """With the next request open the file that lies at the path then, whichever it is: the caller knows that it
        is the right one."""
        self._anew = True

    async def checkpoint(self) -> None:
        """Bring the log into the file as far as that holds nobody up, by another connection and in another thread:
        else a commit of the writer's does it once the log is long, and its caller waits for all of it. Never raises
        for the database's sake."""
        await asyncio.to_thread(self._checkpoint)

    def _checkpoint(self) -> None:
        with suppress(sqlite3.Error), closing(sqlite3.connect(self.path, isolation_level=None, timeout=0)) as beside:
            beside.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    async def close(self) -> None:
        """Finish what was asked for, close the file and end the thread. Harmless when repeated."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._entrance:
            self._closed = True
            thread = self._thread
            if thread is None:
                return
            self._last.append(_Request(_nothing, False, ended))
            self._requests.put(None)
        await completed(ended)
        thread.join(1)  # it has answered, and only returns

    @property
    def wal_bytes(self) -> int:
        """The length of the log. It stays near 8 MiB unless a reader keeps an old state of the database open."""
        try:
            return os.stat(f"{self.path}-wal").st_size  # noqa: PTH116 - half the price of Path.stat, once a commit
        except OSError:
            return 0

    async def _submit(self, work: Callable[[sqlite3.Connection], T], *, writes: bool) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._entrance:
            if self._closed:
                raise SqliteUnavailable("closed", self.path, "was closed")
            if self._thread is None:
                # A daemon thread: a process that ends without close() must not wait for it, and loses nothing.
                try:
                    self._thread = begin(self._serve, f"sqlite-{self.path.name}")
                except (RuntimeError, MemoryError) as error:
                    raise SqliteUnavailable("busy", self.path, f"has no thread: {error}") from None
            self._requests.put(_Request(work, writes, future))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not await seen_out(future):
                self._interrupt()
            raise

    def _interrupt(self) -> None:
        """What runs now runs for ever: a trigger of somebody's. It fails, undone; a disk that hangs heeds nobody."""
        if (connection := self._connection) is not None:
            with suppress(sqlite3.Error):
                connection.interrupt()

    # --- in the thread -----------------------------------------------------------------------------------------
    def _serve(self) -> None:
        """Take what waits, do its writes in one transaction, answer; until told to stop."""
        stopping = False
        while not stopping:
            waiting = [self._requests.get()]
            with suppress(Empty):
                while len(waiting) < GROUP_LIMIT:
                    waiting.append(self._requests.get_nowait())
            stopping = None in waiting
            # What was given up before it was begun, nobody wants any more.
            requests = [request for request in waiting if request is not None and not request.future.cancelled()]
            # Reads apart: the lock or the room that a write cannot get is nothing to them.
            for writes in (False, True):
                if group := [request for request in requests if request.writes is writes]:
                    self._work(group, writes=writes)
                    _answer(group)
        self._disconnect()
        with self._entrance:
            last, self._last = self._last, []
            self._thread = None
        _answer(last)

    def _work(self, requests: Sequence[_Request], *, writes: bool) -> None:
        """Run the requests in one transaction and note in each its value or error. Never raises."""
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            for request in requests:
                self._work_one(connection, request, alone=len(requests) == 1)
            if connection.in_transaction:
                connection.execute("COMMIT")
                self.commits += writes
        except BaseException as error:
            trouble = classify(error, self.path)
            for request in requests:
                # What a request of the group ran into before is its own; the trouble is everybody's, each in a copy.
                request.error = request.error or (trouble.again() if trouble else error)
            self._recover(trouble)
        else:
            self._trim_log()

    def _work_one(self, connection: sqlite3.Connection, request: _Request, *, alone: bool) -> None:
        """Run one request, in a savepoint unless it is alone. Raises only what concerns the whole group."""
        if not alone:
            connection.execute("SAVEPOINT request")
        try:
            request.value = request.work(connection)
        except BaseException as error:
            # SQLite undoes the whole transaction by itself after some errors, and with it the neighbours' work.
            if classify(error, self.path) is not None or not connection.in_transaction:
                raise
            request.error = error
            connection.execute("ROLLBACK" if alone else "ROLLBACK TO request")
        if not alone:
            connection.execute("RELEASE request")

    def _connected(self) -> sqlite3.Connection:
        """The connection, opened if need be, to the file that lies at the path now."""
        if self._anew:
            self._anew = False
            self._disconnect()
            self._inode = None
        if self._connection is not None:
            if self._inode_now() == self._inode:
                return self._connection
            # Commits to a file without a name would be lost at the end of the process.
            self._disconnect()
        if self._inode is not None and not self._recreate and self._inode_now() != self._inode:
            raise SqliteUnavailable("replaced", self.path, "was removed or replaced while it was in use")
        create(self.path, file_mode=self._file_mode, directory_mode=self._directory_mode)
        connection = connect(
            self.path,
            page_size=self.schema.page_size,
            busy_timeout=self._busy_timeout,
            incremental_vacuum=self._incremental_vacuum,
        )
        try:
            migrate(connection, self.path, self.schema, file_mode=self._file_mode)
        except BaseException:
            connection.close()
            raise
        self._connection, self._inode = connection, self._inode_now()
        return connection

    def _inode_now(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path)  # noqa: PTH116
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _recover(self, trouble: SqliteUnavailable | None) -> None:
        """Undo the transaction; let go of the connection unless the trouble is known to leave it sound."""
        sound = trouble is not None and trouble.kind in ("full", "busy")
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            sound = False
        if not sound:
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _trim_log(self) -> None:
        """Cut a log that readers let grow, waiting for them a moment and now and then only."""
        now = time.monotonic()
        if self._connection is None or now - self._wal_tried < WAL_RETRY.total_seconds() or self.wal_bytes < WAL_LIMIT:
            return
        self._wal_tried = now
        with suppress(sqlite3.Error):
            self._connection.execute(f"PRAGMA busy_timeout={WAL_PATIENCE // timedelta(milliseconds=1)}")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with suppress(sqlite3.Error):
            self._connection.execute(f"PRAGMA busy_timeout={self._busy_timeout // timedelta(milliseconds=1)}")


def _answer(requests: Sequence[_Request]) -> None:
    """Wake the callers: one call into each event loop, however many wait there."""
    loops: defaultdict[asyncio.AbstractEventLoop, list[_Request]] = defaultdict(list)
    for request in requests:
        loops[request.future.get_loop()].append(request)
    for loop, answered in loops.items():
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, answered)


def _resolve(requests: Sequence[_Request]) -> None:
    for request in requests:
        if request.future.done():
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.value)


def _nothing(connection: sqlite3.Connection) -> None:
    return None
