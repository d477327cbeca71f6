"""Octets of large messages: files beside the database, each on disk before the row that names it.

A row of a few hundred KB costs SQLite three times what a file costs (it is written to the log and then to the database,
by one thread), and a spooled message need not be copied at all: its file is linked. The directory is ours alone to
change, so that nothing in it is ever a trap; the group reads. A file outlives its row until the next upkeep, and a row
its file never.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from itertools import count
from pathlib import Path

from mailpoller.core.errors import TransientError
from mailpoller.core.spool import Octets
from mailpoller.sinks.sqlite.schema import OCTETS_FILE
from mailpoller.storage.disk import directory, is_private_directory, make_directory, transient, write_octets
from mailpoller.storage.thread import Pool, each, unforeseen

WRITERS = 8
"""Files written and synced at a time: a disk syncs several nearly as fast as one."""
DIRECTORY_MODE = 0o2750
ORPHANED_AFTER = timedelta(hours=1)
"""A file that no row names is a crash's or a failed commit's after this time; before, its row may be about to be
committed."""


class OctetsDirectory:
    """The directory. Every method blocks; one call at a time, except that ``close`` comes last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writers: Pool | None = None
        self._numbers = count()

    def write(self, files: Mapping[str, Octets], group: int) -> Mapping[str, OSError]:
        """Write files durably: name -> octets. Returns name -> fault of those that failed, of which nothing is left.

        Raises :class:`TransientError` if nothing can be written here at all.
        """
        with self._open(create_for=group) as within:
            names = list(files)
            if self._writers is None:
                self._writers = Pool(f"octets-{self.path.name}", WRITERS)
            outcomes = each(self._writers, lambda name: self._write_one(within, name, files[name], group), names)
            if (trouble := unforeseen(outcomes)) is not None:  # those that were written no row names, as after a crash
                raise trouble
            faults = {name: fault for name, fault in zip(names, outcomes, strict=True) if isinstance(fault, OSError)}
            with transient(f"sync {self.path}"):
                os.fsync(within)
        return faults

    def remove(self, names: Collection[str], *, abandoned: bool = False) -> None:
        """Remove files; those that are gone already, and names that are not ours, are passed over, and with
        ``abandoned`` those that were written anew since they looked so."""
        if not self.path.is_dir():
            return
        with self._open() as within, transient(f"remove from {self.path}"):
            for name in names:
                if OCTETS_FILE.fullmatch(name):
                    with suppress(FileNotFoundError):
                        if not abandoned or _is_abandoned(os.stat(name, dir_fd=within, follow_symlinks=False)):
                            os.unlink(name, dir_fd=within)

    def abandoned(self) -> list[str]:
        """Names of files older than :data:`ORPHANED_AFTER`, to be removed if no row names them. Unfinished ones
        of that age are removed here."""
        if not self.path.is_dir():
            return []
        found: list[str] = []
        with self._open() as within, transient(f"list {self.path}"), os.scandir(within) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if not _is_abandoned(entry.stat(follow_symlinks=False)):
                        continue
                    if OCTETS_FILE.fullmatch(entry.name):
                        found.append(entry.name)
                    elif OCTETS_FILE.fullmatch(entry.name.partition(".part-")[0]):
                        os.unlink(entry.name, dir_fd=within)
        return found

    def close(self) -> None:
        """End the threads. Harmless when repeated."""
        writers, self._writers = self._writers, None
        if writers is not None:
            writers.shutdown()

    @contextmanager
    def _open(self, create_for: int | None = None) -> Iterator[int]:
        """A descriptor of the directory, after a look that it is ours alone: its parent is the group's as well."""
        with ExitStack() as stack:
            with transient(f"open {self.path}"):
                if create_for is not None:
                    make_directory(self.path, group=create_for, mode=DIRECTORY_MODE)
                within = stack.enter_context(directory(self.path))
            if not is_private_directory(within):
                raise TransientError(
                    f"{self.path} must belong to the service's user, and the group must not write to it"
                )
            yield within

    def _write_one(self, within: int, name: str, octets: Octets, group: int) -> OSError | None:
        """Write, sync and rename one file; the fault if that failed. A file of that name holds the same octets, left by
        an attempt that came to nothing, and is replaced."""
        part = f"{name}.part-{os.getpid()}-{next(self._numbers)}"
        try:
            write_octets(octets, part, within, group=group)
            os.rename(part, name, src_dir_fd=within, dst_dir_fd=within)
        except OSError as fault:
            with suppress(OSError):
                os.unlink(part, dir_fd=within)
            return fault
        return None


def _is_abandoned(found: os.stat_result) -> bool:
    # The inode's own time: it changes when a file is linked or renamed, whatever its content says.
    # Far off in either direction: a file that was written while the clock was ahead is nobody's work in hand.
    return abs(time.time() - found.st_ctime) > ORPHANED_AFTER.total_seconds()
