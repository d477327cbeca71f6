"""What all books have: the file, the clock, what is known of folders, and how to read and write."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.message import Folder, MessageRef
from mailpoller.core.ports import (
    Clock,
)
from mailpoller.ledgers.sqlite import (
    bearers,
    folders,
    threads,
)
from mailpoller.ledgers.sqlite.folders import Known
from mailpoller.ledgers.sqlite.lock import Lock
from mailpoller.ledgers.sqlite.reader import LedgerReader
from mailpoller.ledgers.sqlite.values import Key, Senders, instant_of_seconds, micros
from mailpoller.storage.sqlite import Database, SqliteUnavailable
from mailpoller.storage.thread import Pool

T = TypeVar("T")

READERS = 4
"""Threads for long reads: of the ledger's own, so that nobody else's waiting delays them."""

PIECE = 200
"""Rows that a long work changes at once: others wait no longer than for these."""


class Book:
    """A part of the :class:`~mailpoller.core.ports.Ledger` of one process. Long reads go through a
    connection of their own."""

    senders: Senders = "keep"
    """What is kept of who sent a message."""

    def __init__(self, database: Database, lock: Lock, clock: Clock) -> None:
        self._database = database
        self._lock = lock
        self._clock = clock
        self._readers = Pool("ledger-reader", READERS)
        self._unsorted = threads.Unsorted()
        self._known: dict[Folder, Known] = {}
        # The claims that a caller of this process has in hand. Rows of others that are claimed can be claimed again:
        # their commit succeeded, but its caller was cancelled or told that it had failed.
        self._open_claims: set[Key] = set()

    @property
    def path(self) -> Path:
        return self._database.path

    @property
    def commits(self) -> int:
        """Write transactions so far."""
        return self._database.commits

    @property
    def wal_bytes(self) -> int:
        """See :attr:`Database.wal_bytes`."""
        return self._database.wal_bytes

    def _now(self) -> int:
        return micros(self._clock.now())

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._database.write(work)
        except SqliteUnavailable as error:
            raise LedgerUnavailable(str(error)) from error

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._database.read(work)
        except SqliteUnavailable as error:
            raise LedgerUnavailable(str(error)) from error

    async def _shorten_log(self) -> None:
        await self._database.checkpoint()

    async def _read_aside(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """A read that may walk through many rows: beside the writer, which goes on meanwhile."""

        def read() -> T:
            try:
                with LedgerReader.open(self.path) as reader:
                    return work(reader.connection)
            except sqlite3.OperationalError as error:
                raise LedgerUnavailable(f"{self.path}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    async def _find(self, folder: Folder) -> Known:
        """The folder's row. Raises :class:`LedgerUnavailable` if it was never opened, or was forgotten: opening it
        helps."""
        known = self._known.get(folder)
        if known is None:
            known = await self._read(lambda c: folders.find(c, folder))
            if known is None:
                raise LedgerUnavailable(f"{self.path}: folder {folder.name} of {folder.mailbox} is not open")
            self._known[folder] = known
        return known

    async def _key(self, ref: MessageRef) -> Key:
        return (await self._find(ref.folder)).id, ref.uid

    async def _keys(self, refs: Sequence[MessageRef]) -> list[Key]:
        return [(known.id, ref.uid) for known, ref in zip(await self._found(refs), refs, strict=True)]

    async def _found(self, refs: Sequence[MessageRef]) -> list[Known]:
        """The row of each ref's folder. A batch is nearly always of one folder, which is looked up once."""
        rows: list[Known] = []
        folder: Folder | None = None
        for ref in refs:
            if ref.folder is not folder:
                folder = ref.folder
                known = await self._find(folder)
            rows.append(known)
        return rows

    def _drop_known(self, mailbox: str) -> None:
        for folder in [folder for folder in self._known if folder.mailbox == mailbox]:
            del self._known[folder]


def refs_of(folder: Folder, rows: Iterable[bearers.Named]) -> list[MessageRef]:
    return [MessageRef(folder, uid, size, instant_of_seconds(received)) for uid, size, received in rows]


def pieces_of(uids: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(uids), PIECE):
        yield uids[begin : begin + PIECE]
