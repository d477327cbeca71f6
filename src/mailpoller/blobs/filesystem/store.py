"""Blobs in a directory: a file under the SHA-256 of what it holds, on disk before anything refers to it."""

from __future__ import annotations

import asyncio
import mmap
import os
import re
import sqlite3
import stat
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from hashlib import file_digest
from itertools import count
from typing import TypeVar

import structlog

from mailpoller.blobs.filesystem.config import FilesystemBlobsSettings
from mailpoller.core.errors import MachineTrouble, TransientError
from mailpoller.core.ports import BlobReference, Clock, IdleBlob, Mark
from mailpoller.core.spool import Block, Octets
from mailpoller.storage import blob_index as index
from mailpoller.storage.disk import (
    directory,
    group_id,
    in_words,
    is_private_directory,
    make_directory,
    require_place,
    require_room,
    write_octets,
)
from mailpoller.storage.markfile import MarkFile
from mailpoller.storage.sqlite import Database
from mailpoller.storage.sqlite.errors import SqliteUnavailable
from mailpoller.storage.thread import Pool, Worker, each, unforeseen

log = structlog.get_logger(__name__)

T = TypeVar("T")

DIRECTORY_MODE = 0o2750
"""Ours alone to change, so that nothing in it is ever a trap; the group reads."""
WRITERS = 4
UNFINISHED_AFTER = timedelta(hours=1)
"""A file that is not whole yet is a killed process's after this time."""
REMOVED_AT_ONCE = 50
"""Files that are removed in one transaction: everybody who refers to something waits for it."""
_MARK = ".mailpoller-blobs"
_BLOB = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = re.compile(r"[0-9a-f]{64}\.part-\d+-\d+")


class FilesystemBlobs:
    """The store. Files are written and synced side by side, and put in their place one after the other."""

    def __init__(self, config: FilesystemBlobsSettings, clock: Clock) -> None:
        self.path = config.path
        self._config = config
        self._clock = clock
        self._base = config.href or config.path.absolute().as_uri() + "/"
        self._index = Database(config.path / "index.db", index.BLOBS, directory_mode=DIRECTORY_MODE, recreate=True)
        self._mark = MarkFile("blobs", config.path, config.path, _MARK)
        self._worker = Worker("blobs")
        self._writers = Pool("blobs", WRITERS)
        self._numbers = count()

    def href(self, sha256: bytes) -> str:
        """See :class:`~mailpoller.core.ports.BlobStore`."""
        return self._base + sha256.hex()

    async def refer(self, octets: Sequence[Octets], references: Sequence[BlobReference]) -> None:
        """See :class:`~mailpoller.core.ports.BlobStore`. What is there already is believed once it was read and is
        what its name says."""
        wanted = {one.digest: one for one in octets}
        while not await self._try_to_refer(wanted, references):
            pass  # one was removed since it was looked at: it is written this time

    async def _try_to_refer(self, wanted: Mapping[bytes, Octets], references: Sequence[BlobReference]) -> bool:
        now = self._clock.now().timestamp()
        written: dict[bytes, str] = {}
        try:
            await self._worker.do(self._write, wanted, written)
            return await self._changed(lambda connection: self._place(connection, wanted, written, references, now))
        except BaseException:
            await self._worker.do(self._discard, list(written.values()))
            raise

    async def read(self, mid: str, work: Callable[[Block], None]) -> bool:
        """See :class:`~mailpoller.core.ports.BlobReader`. Any of several will do: there are some if the server
        served a message otherwise than before."""
        if not self.path.is_dir():
            return False
        found = await self._read(lambda connection: index.of_message(connection, mid))
        return await asyncio.to_thread(self._show, found, work)

    def _show(self, several: Sequence[bytes], work: Callable[[Block], None]) -> bool:
        for sha256 in several:
            with self._open() as within, ExitStack() as closing:
                try:
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                    descriptor = os.open(sha256.hex(), flags, dir_fd=within)
                    file = closing.enter_context(open(descriptor, "rb", buffering=0))  # noqa: PTH123
                    if file_digest(file, "sha256").digest() != sha256:
                        log.warning("blobs.altered", file=sha256.hex())
                        continue
                    mapped: Block = b""
                    if os.fstat(descriptor).st_size:
                        mapped = closing.enter_context(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise MachineTrouble(in_words(error, f"read {self.path}")) from None
                work(mapped)
                return True
        return False

    async def idle(self, before: datetime, *, limit: int) -> Sequence[IdleBlob]:
        """See :class:`~mailpoller.core.ports.BlobStore`."""
        if not self.path.is_dir():
            return []
        return await self._read(lambda connection: index.idle(connection, before.timestamp(), limit))

    async def spare(self, several: Collection[bytes]) -> None:
        """See :class:`~mailpoller.core.ports.BlobStore`."""
        now = self._clock.now().timestamp()
        await self._changed(lambda connection: index.adopt(connection, several, now))

    async def remove(self, several: Collection[bytes], before: datetime) -> int:
        """See :class:`~mailpoller.core.ports.BlobStore`."""
        removed, left = 0, list(several)
        while left:
            some, left = left[:REMOVED_AT_ONCE], left[REMOVED_AT_ONCE:]
            removed += await self._changed(partial(self._remove, several=some, before=before.timestamp()))
        return removed

    async def tidy(self) -> None:
        """See :class:`~mailpoller.core.ports.BlobStore`. A file that nobody is known to refer to, as when the index
        was lost, is kept as if it had been referred to now."""
        if not self.path.is_dir():
            return
        found = await self._worker.do(self._look_round)
        strays = await self._read(lambda connection: index.unknown(connection, found))
        if strays:
            now = self._clock.now().timestamp()
            await self._changed(lambda connection: index.adopt(connection, strays, now))

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.BlobStore`."""
        await self._worker.do(self._require)

    async def mark(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return await self._worker.do(self._mark.read)

    async def renewed(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return await self._worker.do(lambda: self._mark.renewed(group_id(self._config.group)))

    def expect(self, mark: Mark | None) -> None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        self._mark.expect(mark)

    def place(self) -> str:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return str(self.path)

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.BlobStore`. Harmless when repeated."""
        await self._index.close()
        await self._worker.close()
        self._writers.shutdown()

    # --- in threads ----------------------------------------------------------------------------------------------

    def _require(self) -> None:
        self._mark.require()
        group_id(self._config.group)
        require_place(self.path, self._config.min_free)
        if self.path.is_dir():
            with self._open():
                pass

    @contextmanager
    def _open(self, *, create: bool = False) -> Iterator[int]:
        """A descriptor of the directory, after a look that it is ours alone. Raises :class:`MachineTrouble`."""
        with ExitStack() as stack:
            try:
                if create:
                    make_directory(self.path, group=group_id(self._config.group), mode=DIRECTORY_MODE)
                within = stack.enter_context(directory(self.path))
            except OSError as error:
                raise MachineTrouble(in_words(error, f"open {self.path}")) from None
            if not is_private_directory(within):
                raise MachineTrouble(f"{self.path} must belong to the service's user, and nobody else may write to it")
            yield within

    def _write(self, wanted: Mapping[bytes, Octets], written: dict[bytes, str]) -> None:
        """Write what is not there, under names of its own that are noted in ``written``, and sync it."""
        self._mark.require()
        with self._open(create=True) as within:
            try:
                require_room(self.path, self._config.min_free)
                self._mark.keep(group_id(self._config.group))
            except TransientError as error:
                raise MachineTrouble(str(error)) from None
            missing = [one for one in wanted.values() if not _is_whole(within, one)]
            for one in missing:
                written[one.digest] = f"{one.digest.hex()}.part-{os.getpid()}-{next(self._numbers)}"
            group = group_id(self._config.group)

            def write(one: Octets) -> OSError | None:
                try:
                    write_octets(one, written[one.digest], within, group=group)
                except OSError as fault:
                    return fault
                return None

            outcomes = each(self._writers, write, missing)
            if (trouble := unforeseen(outcomes)) is not None:
                raise trouble
            if (fault := next((one for one in outcomes if isinstance(one, OSError)), None)) is not None:
                raise MachineTrouble(in_words(fault, f"write to {self.path}"))

    def _discard(self, names: Sequence[str]) -> None:
        if names:
            with suppress(TransientError), self._open() as within:
                for name in names:
                    with suppress(OSError):
                        os.unlink(name, dir_fd=within)

    def _look_round(self) -> list[bytes]:
        """The blobs that lie there. What a killed process left unfinished is removed."""
        found: list[bytes] = []
        with self._open() as within, os.scandir(within) as entries:
            for entry in entries:
                if _BLOB.fullmatch(entry.name):
                    found.append(bytes.fromhex(entry.name))
                elif _UNFINISHED.fullmatch(entry.name):
                    with suppress(OSError):
                        changed = entry.stat(follow_symlinks=False).st_ctime
                        # Far off in either direction: what was written while the clock was ahead is nobody's now.
                        if abs(time.time() - changed) > UNFINISHED_AFTER.total_seconds():
                            os.unlink(entry.name, dir_fd=within)
        return found

    # --- in the index's thread, in its transaction ---------------------------------------------------------------

    def _place(
        self,
        connection: sqlite3.Connection,
        wanted: Mapping[bytes, Octets],
        written: Mapping[bytes, str],
        references: Sequence[BlobReference],
        now: float,
    ) -> bool:
        """Put what was written in its place, and note who refers to it. False if one of the others was removed since
        it was looked at; then nothing is noted."""
        with self._open() as within:
            try:
                for sha256, name in written.items():
                    os.rename(name, sha256.hex(), src_dir_fd=within, dst_dir_fd=within)
                if not all(_lies_there(within, octets) for octets in wanted.values()):
                    return False
                # Also for what was there: whoever put it there may have been killed before its name was durable.
                os.fsync(within)
            except OSError as error:
                raise MachineTrouble(in_words(error, f"write to {self.path}")) from None
        index.refer(connection, references, now)
        return True

    def _remove(self, connection: sqlite3.Connection, *, several: Collection[bytes], before: float) -> int:
        removed = 0
        with self._open() as within:
            for sha256 in several:
                if index.forget(connection, sha256, before):
                    try:
                        os.unlink(sha256.hex(), dir_fd=within)
                    except FileNotFoundError:
                        pass
                    except OSError as error:  # found again as one that nobody refers to; the others go
                        log.warning("blobs.unremoved", file=sha256.hex(), reason=in_words(error, "remove it"))
                        continue
                    removed += 1
        return removed

    async def _changed(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._of_the_machine(self._index.write(work))

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._of_the_machine(self._index.read(work))

    async def _of_the_machine(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except SqliteUnavailable as error:
            raise MachineTrouble(str(error)) from error


def _lies_there(within: int, octets: Octets) -> bool:
    """True if a file of ours lies there under this name, and has the size."""
    try:
        found = os.stat(octets.digest.hex(), dir_fd=within, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == octets.size


def _is_whole(within: int, octets: Octets) -> bool:
    """True if what lies there under this name was read and is these octets."""
    if not _lies_there(within, octets):
        return False
    try:
        descriptor = os.open(octets.digest.hex(), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    except OSError:
        return False
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor has no path
        try:
            return file_digest(file, "sha256").digest() == octets.digest
        except OSError:
            return False
