"""A queue that is a Maildir: the octets of every message as a file of its own, for whatever reads Maildirs.

Held is what lies in ``new``: written to ``tmp``, synced, renamed, and the directory synced, once for a batch. The name
holds the delivery id, so that a repeat is recognised as long as the message lies in ``new`` or ``cur``, among the last
50,000 there. The event is not kept: a Maildir has no place for it.
"""

from __future__ import annotations

import heapq
import os
import re
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Literal

import structlog

from mailpoller.core.channel import Channel
from mailpoller.core.component import Runtime, SinkConfig
from mailpoller.core.delivery import Delivery, Payload, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.literals import Size
from mailpoller.core.ports import Clock, OctetsPlace
from mailpoller.core.record import record
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.core.spool import Octets
from mailpoller.storage.disk import (
    directory,
    group_id,
    in_words,
    make_directory,
    of_the_disk,
    require_place,
    require_room,
    require_writable,
    transient,
    write_octets,
)
from mailpoller.storage.markfile import MarkedFiles, MarkFile
from mailpoller.storage.recent import Recent
from mailpoller.storage.thread import Pool, Worker, each, unforeseen

log = structlog.get_logger(__name__)

_FOLDERS = ("tmp", "new", "cur")
_OURS = re.compile(r"(\d{1,12})\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.[^:/]+(?::.*)?")
_ABANDONED_AFTER = timedelta(hours=36)
"""A file in ``tmp`` older than this belongs to no writer: the Maildir convention."""
_MARK = ".mailpoller-queue"
"""The file in the Maildir that says which queue it is. Readers pass over it: folders are directories."""
_WRITERS = 8
"""Files written and synced at a time: a disk syncs several nearly as fast as one."""


class MaildirQueueConfig(SinkConfig):
    """Hold messages in a Maildir: one file each, the octets as they came. The event is not kept."""

    type: Literal["maildir"]
    path: Path
    """The Maildir, with ``tmp``, ``new`` and ``cur`` below it. Created if it is missing."""
    payload: Payload = "raw"
    """A Maildir holds the raw octets and nothing else, whatever is said here."""
    group: str | None = None
    """The group that may take messages out: given to what is created. Without one it is the service's own, or that of
    a set-group-id directory above."""
    min_free: Size = 64_000_000
    """Octets of the disk that are left free: below this nothing is delivered."""

    @property
    def carries_octets(self) -> bool:
        return True

    def channel(self, name: str) -> Channel:
        """See the parent's."""
        return Channel("file", "localhost", str(self.path), "mail")

    def build(self, name: str, runtime: Runtime) -> MaildirQueue:
        """The sink. Opens nothing."""
        return MaildirQueue(name, self, runtime.clock)


@record
class _Opened:
    """Descriptors of the Maildir's directories, and the group that files are given (-1: as it comes)."""

    tmp: int
    new: int
    cur: int
    group: int


class MaildirQueue(MarkedFiles):
    """The sink. Its file work is done in threads, one batch at a time."""

    octets_place: OctetsPlace = "beside"

    def __init__(self, name: str, config: MaildirQueueConfig, clock: Clock) -> None:
        self.name = name
        self.path = config.path
        self.group = config.group
        self._config = config
        self._clock = clock
        self._host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64] or "localhost"
        self._worker = Worker(f"maildir-{name}")
        self._writers: Pool | None = None
        self._recent: Recent | None = None
        self._mark = MarkFile(name, config.path, config.path, _MARK)

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. If the disk took some messages and not others, these are refused
        for now; if it took none, :class:`TransientError`."""
        return await self._worker.do(self._deliver, batch)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`."""
        await self._worker.do(self._check)

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._worker.close()
        writers, self._writers = self._writers, None
        if writers is not None:
            writers.shutdown()

    # --- in the worker's thread ----------------------------------------------------------------------------------

    def _check(self) -> None:
        """Creates nothing: if the Maildir is not there yet, a place where it can be made is enough."""
        self._mark.require()
        if all(os.path.lexists(self.path / folder) for folder in _FOLDERS):
            with ExitStack() as stack:
                self._open(stack)
            for folder in ("tmp", "new"):
                require_writable(self.path / folder)
        else:
            group_id(self._config.group)
            require_place(self.path, self._config.min_free)

    def _open(self, stack: ExitStack) -> _Opened:
        """Open, and create if need be, the directories; for one batch only, so that a Maildir that was moved or made
        anew is noticed. The group may write to the Maildir, so what lies in it is never followed if it is a link."""
        group = group_id(self._config.group)
        self._mark.require()
        with transient(f"open the Maildir {self.path}"):
            make_directory(self.path, group=group)
            for folder in _FOLDERS:
                make_directory(self.path / folder, group=group)
            base = stack.enter_context(directory(self.path, follow=True))
            tmp, new, cur = (stack.enter_context(directory(folder, within=base)) for folder in _FOLDERS)
        require_room(self.path, self._config.min_free)
        return _Opened(tmp, new, cur, group)

    def _deliver(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        with ExitStack() as stack:
            opened = self._open(stack)
            self._mark.keep(opened.group)
            if self._recent is None:
                with transient(f"list the Maildir {self.path}"):
                    self._recent = self._survey(opened)
            recent = self._recent
            fresh = {one.delivery_id: one for one in batch if one.delivery_id not in recent}
            now = int(self._clock.now().timestamp())
            names = {delivery_id: f"{now}.{delivery_id}.{self._host}" for delivery_id in fresh}
            faults = self._write(opened, [(names[one.delivery_id], one.raw.octets) for one in fresh.values()])
            written = [delivery_id for delivery_id in fresh if names[delivery_id] not in faults]
            if len(faults) == len(batch) and (fault := of_the_disk(faults.values())):
                raise TransientError(in_words(fault, f"write to the Maildir {self.path}"))
            self._publish(opened, [names[delivery_id] for delivery_id in written])
            recent.add(written)
        answers: list[Receipt | Refusal] = []
        told: set[str] = set()
        for one in batch:
            delivery_id = one.delivery_id
            if (name := names.get(delivery_id)) is None:
                answers.append(SealedReceipt(delivery_id, repeated=True))
            elif (fault := faults.get(name)) is not None:
                answers.append(Refusal(delivery_id, in_words(fault, "write the message")))
            else:
                answers.append(SealedReceipt(delivery_id, reference=name, repeated=delivery_id in told))
                told.add(delivery_id)
        return answers

    def _survey(self, opened: _Opened) -> Recent:
        """The newest messages that lie here already; one pass over the names. Sweeps what died writers left in tmp."""
        recent = Recent()
        # A writer that was killed before it synced left messages that we see and a power cut does not.
        os.fsync(opened.new)
        os.fsync(opened.cur)
        found = heapq.nlargest(recent.limit, _ids(opened.new, opened.cur))
        recent.add(delivery_id for _, delivery_id in reversed(found))
        now, after = self._clock.now().timestamp(), _ABANDONED_AFTER.total_seconds()
        swept = 0
        for name in os.listdir(opened.tmp):  # noqa: PTH208 - a descriptor has no Path
            if _OURS.fullmatch(name):
                with suppress(FileNotFoundError):
                    # Far off in either direction: what was written while the clock was ahead is no writer's either.
                    if abs(now - os.stat(name, dir_fd=opened.tmp, follow_symlinks=False).st_mtime) > after:
                        os.unlink(name, dir_fd=opened.tmp)
                        swept += 1
        log.info("maildir.surveyed", queue=self.name, remembered=len(found), swept=swept)
        return recent

    def _write(self, opened: _Opened, files: Sequence[tuple[str, Octets]]) -> dict[str, OSError]:
        """Write and sync files in tmp: name -> what went wrong, of those that failed, of which nothing is left. What is
        raised leaves none of them."""
        if self._writers is None:
            self._writers = Pool(f"maildir-{self.name}-writer", _WRITERS)
        outcomes = each(self._writers, lambda file: _write_file(opened, *file), files)
        if (trouble := unforeseen(outcomes)) is not None:
            for (name, _), fault in zip(files, outcomes, strict=True):
                if fault is None:
                    _remove(name, opened.tmp)
            raise trouble
        return {name: fault for (name, _), fault in zip(files, outcomes, strict=True) if isinstance(fault, OSError)}

    def _publish(self, opened: _Opened, names: Sequence[str]) -> None:
        """Move written files to new, durably: all of them, or none is left there."""
        moved: list[str] = []
        try:
            with transient(f"move messages to {self.path}/new"):
                for name in names:
                    os.rename(name, name, src_dir_fd=opened.tmp, dst_dir_fd=opened.new)
                    moved.append(name)
                os.fsync(opened.new)
        except BaseException:
            # Some may have been taken already; the others are withdrawn, so that the next try does not double them.
            for name in names:
                _remove(name, opened.new if name in moved else opened.tmp)
            raise


def _write_file(opened: _Opened, name: str, octets: Octets) -> OSError | None:
    """Write one file in tmp and sync it; the fault if that failed, and then nothing of it is left."""
    try:
        write_octets(octets, name, opened.tmp, group=opened.group)
    except OSError as fault:
        return fault
    return None


def _remove(name: str, within: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=within)


def _ids(*folders: int) -> Iterable[tuple[int, str]]:
    """(instant in the name, delivery id) of every message of ours in these directories."""
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                if (found := _OURS.fullmatch(entry.name)) is not None:
                    yield int(found[1]), found[2]
