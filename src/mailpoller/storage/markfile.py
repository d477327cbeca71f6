"""A queue's mark as a small hidden file in the queue's own directory, and what a sink does with it."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import structlog

from mailpoller.core.durability import Durability
from mailpoller.core.errors import QueueVanished
from mailpoller.core.ports import Mark
from mailpoller.storage.disk import READABLE_FILE, create_private, directory, give, group_id, transient, write_all
from mailpoller.storage.power_cut import durability_of
from mailpoller.storage.recent import Recent
from mailpoller.storage.thread import Worker

log = structlog.get_logger(__name__)

_LONGEST = 4096
"""Octets of the file that are read: ours has about a hundred."""


class MarkFile:
    """The mark of a queue that is a directory, or lies in one. Blocks; one call at a time.

    ``place`` is what an operator calls the queue, ``within`` the directory, ``name`` the file's. The file says which
    queue this is and how often it was written, so that an older copy of the directory is known. It is replaced whole
    and durably. Where the directory is not ours to write to, the queue goes without.
    """

    def __init__(self, queue: str, place: Path, within: Path, name: str) -> None:
        self._queue = queue
        self._place = str(place)
        self._within = within
        self._name = name
        self._expected: Mark | None = None
        self._impossible = False

    def expect(self, mark: Mark | None) -> None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        self._expected = mark

    def read(self) -> Mark | None:
        """What lies there now; None if nothing does, or bears no mark. Raises :class:`TransientError`."""
        with transient(f"read the mark of {self._place}"), suppress(FileNotFoundError, NotADirectoryError):
            with directory(self._within, follow=True) as within:
                descriptor = os.open(
                    self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=within
                )
            try:
                return self._understood(os.read(descriptor, _LONGEST))
            finally:
                os.close(descriptor)
        return None

    def _understood(self, octets: bytes) -> Mark | None:
        try:
            told = json.loads(octets)
            return Mark(str(told["queue"]), int(told["height"]), self._place)
        except (ValueError, KeyError, TypeError):
            return None

    def require(self) -> None:
        """Raise :class:`QueueVanished` unless the queue that is expected lies there. Before anything is made."""
        if self._expected is not None and (trouble := self._expected.unlike(self.read(), self._place)):
            raise QueueVanished(trouble)

    def keep(self, group: int) -> None:
        """Give what lies there a mark if it has none. To be called once the directory is there, before anything is
        held in it."""
        if self._expected is None and not self._impossible and self.read() is None:
            self._write(Mark(uuid4().hex, 1, self._place), group)

    def renewed(self, group: int) -> Mark | None:
        """Write the mark anew; what it is then. Raises :class:`TransientError`."""
        found = self.read()
        if self._expected is not None and (trouble := self._expected.unlike(found, self._place)):
            raise QueueVanished(trouble)
        if found is None:
            return None
        return self._write(Mark(found.identity, found.height + 1, self._place), group) or found

    def _write(self, mark: Mark, group: int) -> Mark | None:
        """The mark once it is durable; None where it cannot be written, which is said once."""
        part = f"{self._name}.part"
        try:
            with transient(f"write the mark of {self._place}"):
                try:
                    with directory(self._within, follow=True) as within:
                        descriptor = create_private(part, within)
                        try:
                            write_all(descriptor, json.dumps({"queue": mark.identity, "height": mark.height}).encode())
                            give(descriptor, group=group, mode=READABLE_FILE)
                            os.fsync(descriptor)
                        finally:
                            os.close(descriptor)
                        os.rename(part, self._name, src_dir_fd=within, dst_dir_fd=within)
                        os.fsync(within)
                except OSError as error:
                    if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                        raise
                    if not self._impossible:
                        log.warning("queue.unmarked", queue=self._queue, directory=str(self._within))
                    self._impossible = True
                    return None
        except BaseException:
            with suppress(OSError):
                (self._within / part).unlink()
            raise
        return mark


class MarkedFiles:
    """What a sink of files says of its queue through the ports; its own are path, worker, mark and what is remembered.

    ``group`` is who may read what is created, or None.
    """

    path: Path
    group: str | None
    _worker: Worker
    _mark: MarkFile
    _recent: Recent | None

    async def mark(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return await self._worker.do(self._mark.read)

    async def renewed(self) -> Mark | None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return await self._worker.do(lambda: self._mark.renewed(group_id(self.group)))

    def expect(self, mark: Mark | None) -> None:
        """See :class:`~mailpoller.core.ports.Marked`."""
        self._mark.expect(mark)
        if mark is None:
            self._recent = None

    def place(self) -> str:
        """See :class:`~mailpoller.core.ports.Marked`."""
        return str(self.path)

    @property
    def durability(self) -> Durability:
        """See :class:`~mailpoller.core.ports.Durable`: what a sync is worth where it lies."""
        return durability_of(self.path)
