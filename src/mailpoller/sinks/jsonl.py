"""A queue that is a file of lines: one event a line, appended and synced once a batch.

At least once: a repeat is recognised among the last 50,000 deliveries, after a restart among those in the last 16 MiB
of the file; readers that must never see one twice compare ``deliveryid``.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import structlog

from mailpoller.core.channel import Channel
from mailpoller.core.component import Runtime, SinkConfig
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.literals import Size
from mailpoller.core.ports import Clock, OctetsPlace
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.storage.disk import (
    READABLE_FILE,
    give,
    group_id,
    in_words,
    make_directory,
    require_place,
    require_room,
    sync_directory,
    transient,
    write_all,
)
from mailpoller.storage.markfile import MarkedFiles, MarkFile
from mailpoller.storage.recent import Recent
from mailpoller.storage.thread import Worker

log = structlog.get_logger(__name__)

_TAIL = 1 << 24
"""Octets of an existing file that are searched for delivery ids when it is first opened."""
_STEP = 1 << 16
_WRITE = 1 << 20
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class JsonlQueueConfig(SinkConfig):
    """Append events to a file, one JSON object a line."""

    type: Literal["jsonl"]
    path: Path
    """The file. Created, with its directory, if it is missing; one that was moved away (logrotate) is created anew."""
    rotate: Size | Literal["daily"] | None = None
    """Rename the file before a batch when it has reached this size, or was last written on an earlier day (UTC):
    ``events.jsonl`` becomes ``events-20260131T235959Z.jsonl``. Nothing is ever deleted."""
    group: str | None = None
    """The group that may read the file: given to what is created."""
    min_free: Size = 64_000_000
    """Octets of the disk that are left free: below this nothing is delivered."""

    @property
    def takes_events(self) -> bool:
        """Whatever an event is about."""
        return True

    def channel(self, name: str) -> Channel:
        """See the parent's."""
        return Channel("file", "localhost", str(self.path), "lines")

    def build(self, name: str, runtime: Runtime) -> JsonlQueue:
        """The sink. Opens nothing."""
        return JsonlQueue(name, self, runtime.clock)


class JsonlQueue(MarkedFiles):
    """The sink. A batch opens the file, appends, syncs and closes it: whoever renames it needs to tell nobody."""

    octets_place: OctetsPlace = "inside"

    def __init__(self, name: str, config: JsonlQueueConfig, clock: Clock) -> None:
        self.name = name
        self.path = config.path
        self.group = config.group
        self._config = config
        self._clock = clock
        self._worker = Worker(f"jsonl-{name}")
        self._recent: Recent | None = None
        self._mark = MarkFile(name, config.path, config.path.parent, f".{config.path.name}.mailpoller")

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. All of a batch or nothing."""
        return await self._worker.do(self._deliver, batch)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`."""
        await self._worker.do(self._check)

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._worker.close()

    # --- in the worker's thread ----------------------------------------------------------------------------------

    def _check(self) -> None:
        """Creates nothing, and leaves a torn last line alone: it may be one that another process is writing."""
        group_id(self._config.group)
        self._mark.require()
        with transient(f"open {self.path}"), suppress(FileNotFoundError):
            descriptor = os.open(self.path, _FLAGS)
            try:
                _require_ours(descriptor, self.path)
            finally:
                os.close(descriptor)
        require_place(self.path.parent, self._config.min_free)

    def _deliver(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        self._mark.require()
        self._rotate()
        with self._opened() as descriptor:
            if self._recent is None:
                with transient(f"read {self.path}"):
                    # A writer that was killed before it synced left lines that we see and a power cut does not.
                    os.fsync(descriptor)
                    sync_directory(self.path.parent)
                    self._recent = _remembered(descriptor)
            recent = self._recent
            fresh = {one.delivery_id: one for one in batch if one.delivery_id not in recent}
            if fresh:
                self._append(descriptor, [one.event.structured() for one in fresh.values()])
                recent.add(fresh)
        answers: list[Receipt | Refusal] = []
        for one in batch:
            repeated = fresh.pop(one.delivery_id, None) is None
            answers.append(SealedReceipt(one.delivery_id, reference=str(self.path), repeated=repeated))
        return answers

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """A descriptor of the file, created if it is missing, locked against other writers, its last line whole."""
        group = group_id(self._config.group)
        with transient(f"open {self.path}"):
            make_directory(self.path.parent, group=group)
            descriptor, created = _open(self.path)
        try:
            with transient(f"open {self.path}"):
                _require_ours(descriptor, self.path)
                if created:
                    give(descriptor, group=group, mode=READABLE_FILE)
                    sync_directory(self.path.parent)
                require_room(self.path.parent, self._config.min_free)
                self._mend(descriptor)
            self._mark.keep(group)
            yield descriptor
        finally:
            os.close(descriptor)

    def _mend(self, descriptor: int) -> None:
        """Deal with a last line that a crash tore: an object that only lacks its line end is given it, else what lies
        behind the last line end is cut off. It was never receipted, so its message comes again."""
        size = os.fstat(descriptor).st_size
        if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
            return
        start = _last_line(descriptor, size)
        whole = _is_object(os.pread(descriptor, size - start, start)) if size - start <= _TAIL else False
        if whole:
            os.write(descriptor, b"\n")
        else:
            os.ftruncate(descriptor, start)
        os.fsync(descriptor)
        log.warning("jsonl.repaired", queue=self.name, cut_bytes=0 if whole else size - start)

    def _append(self, descriptor: int, events: Sequence[bytes]) -> None:
        """Append and sync. What failed is cut off again: after a failed fsync the kernel believes its own pages, so
        that only octets written anew are ever known to be on the disk."""
        start = os.fstat(descriptor).st_size
        try:
            pending: list[bytes] = []
            size = 0
            for event in events:
                pending.append(_line(event))
                size += len(pending[-1])
                if size >= _WRITE:
                    write_all(descriptor, b"".join(pending))
                    pending.clear()
                    size = 0
            write_all(descriptor, b"".join(pending))
            os.fdatasync(descriptor)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(descriptor, start)
                os.fsync(descriptor)
            raise TransientError(in_words(error, f"append to {self.path}")) from error

    def _rotate(self) -> None:
        """Rename the file if it is due, under a name that nobody has."""
        rotate = self._config.rotate
        if rotate is None:
            return
        try:
            found = self.path.lstat()
        except OSError:
            return
        now = self._clock.now()
        written = datetime.fromtimestamp(found.st_mtime, UTC)
        # Another day, and not a later one only: a file that was written while the clock was ahead would wait for that
        # day.
        due = written.date() != now.date() if rotate == "daily" else found.st_size >= rotate
        if not due or found.st_size == 0:
            return
        target = self.path.with_stem(f"{self.path.stem}-{now:%Y%m%dT%H%M%SZ}")
        number = 1
        while os.path.lexists(target):
            number += 1
            target = self.path.with_stem(f"{self.path.stem}-{now:%Y%m%dT%H%M%SZ}-{number}")
        with transient(f"rotate {self.path}"):
            self.path.rename(target)
            sync_directory(self.path.parent)
        log.info("jsonl.rotated", queue=self.name, target=str(target), size_bytes=found.st_size)


def _line(event: bytes) -> bytes:
    """The event as one line: JSON has line ends only between its tokens, where a space does as well."""
    if b"\n" in event or b"\r" in event:
        event = event.replace(b"\r", b" ").replace(b"\n", b" ")
    return event + b"\n"


def _open(path: Path) -> tuple[int, bool]:
    """A descriptor to read and append, and whether the file is new. A symbolic link is refused."""
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, _FLAGS), False
        with suppress(FileExistsError):
            return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600), True


def _require_ours(descriptor: int, path: Path) -> None:
    """Lock the file until the descriptor is closed. Raises :class:`TransientError` if it is none, or another process
    has it."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise TransientError(f"{path} is not a regular file")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TransientError(f"{path} is locked by another process") from None


def _last_line(descriptor: int, size: int) -> int:
    """Where the octets behind the last line end begin; 0 if there is none. Reads backwards, a step at a time."""
    end = size
    while end > 0:
        start = max(0, end - _STEP)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _is_object(octets: bytes) -> bool:
    try:
        return isinstance(json.loads(octets), dict)
    except ValueError:
        return False


def _remembered(descriptor: int) -> Recent:
    """The deliveries in the whole lines among the last :data:`_TAIL` octets of the file.

    Each line is parsed: searched for, an id could be planted by the text of a mail.
    """
    recent = Recent()
    size = os.fstat(descriptor).st_size
    lines = os.pread(descriptor, min(size, _TAIL), max(0, size - _TAIL)).split(b"\n")
    recent.add(_delivery_id(line) for line in (lines[1:] if size > _TAIL else lines))
    return recent


def _delivery_id(line: bytes) -> str:
    """The delivery id of an event, "" if it has none."""
    try:
        event = json.loads(line)
    except ValueError:
        return ""
    found = event.get("deliveryid", "") if isinstance(event, dict) else ""
    return found if isinstance(found, str) else ""
