"""The directory of held messages: names, writing, reading and removing them, each durable when it returns.

``held`` has a file for each message, ``ID.owed`` or, once its notice is owed no more, ``ID.told``. The ID is the
delivery id, which is made by us: nothing of the mail is ever part of a path. ``tmp`` has what is being written.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from mailpoller.core.quarantined import Quarantined
from mailpoller.core.spool import Octets, Spool
from mailpoller.quarantine.form import LONGEST_LINE, Damaged, line, understood
from mailpoller.storage.disk import create_private, directory, make_directory, write_all
from mailpoller.storage.thread import Pool, each, unforeseen

OWED, TOLD = "owed", "told"

_NAME = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(owed|told)")
_WRITERS = 8
"""Files written and synced at a time: a disk syncs several nearly as fast as one."""
_PIECE = 1 << 20
_PRIVATE = 0o700


class Files:
    """Every method blocks, one call at a time, and raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writers: Pool | None = None

    def make(self) -> None:
        """Make the directories that are missing, for us alone, and empty ``tmp``: nobody else writes here."""
        make_directory(self.path, mode=_PRIVATE)
        for name in ("tmp", "held"):
            make_directory(self.path / name, mode=_PRIVATE)
        with directory(self.path, follow=True) as base:
            os.fchmod(base, _PRIVATE)  # what an earlier version made was for its group, too
        with directory(self.path / "tmp") as tmp, directory(self.path / "held") as held:
            for within in (tmp, held):
                os.fchmod(within, _PRIVATE)
            for name in os.listdir(tmp):  # noqa: PTH208 - a descriptor has no Path
                if _NAME.fullmatch(name):
                    os.unlink(name, dir_fd=tmp)
            os.fsync(held)  # who was killed before it synced left names that we see and a power cut does not

    def close(self) -> None:
        writers, self._writers = self._writers, None
        if writers is not None:
            writers.shutdown()

    def names(self) -> Iterator[tuple[str, bool]]:
        """(id, whether its notice is owed) of every message that is held."""
        with directory(self.path / "held") as held, os.scandir(held) as entries:
            for entry in entries:
                if (found := _NAME.fullmatch(entry.name)) is not None:
                    yield found[1], found[2] == OWED

    def holds(self, delivery_id: str) -> bool:
        """True if there is a file of it."""
        if (opened := self._open(delivery_id)) is None:
            return False
        os.close(opened[0])
        return True

    def hold(self, several: Collection[tuple[Quarantined, Octets]]) -> dict[str, OSError]:
        """Hold messages: id -> what went wrong, of those that are not held. If the names cannot be made durable that
        is raised, and none of them is held."""
        with self._opened() as (tmp, held):

            def write(one: tuple[Quarantined, Octets]) -> OSError | None:
                return _write(tmp, *one)

            if self._writers is None:
                self._writers = Pool("quarantine-writer", _WRITERS)
            outcomes = each(self._writers, write, list(several))
            written = [name_of(kept) for (kept, _), fault in zip(several, outcomes, strict=True) if fault is None]
            moved: list[str] = []
            try:
                if (trouble := unforeseen(outcomes)) is not None:
                    raise trouble
                for name in written:
                    os.rename(name, name, src_dir_fd=tmp, dst_dir_fd=held)
                    moved.append(name)
                os.fsync(held)
            except BaseException:
                for name in written:
                    _unlink(name, held if name in moved else tmp)
                raise
        faults = zip(several, outcomes, strict=True)
        return {kept.delivery_id: fault for (kept, _), fault in faults if isinstance(fault, OSError)}

    def notified(self, delivery_ids: Iterable[str]) -> None:
        """Their notices are owed no more. Passes over what is gone, or was notified already."""
        with directory(self.path / "held") as held:
            for delivery_id in delivery_ids:
                with suppress(FileNotFoundError):
                    os.rename(f"{delivery_id}.{OWED}", f"{delivery_id}.{TOLD}", src_dir_fd=held, dst_dir_fd=held)
            os.fsync(held)

    def remove(self, delivery_ids: Iterable[str]) -> int:
        """Let them go; how many were there."""
        gone = 0
        with directory(self.path / "held") as held:
            for delivery_id in delivery_ids:
                for word in (OWED, TOLD):
                    with suppress(FileNotFoundError):
                        os.unlink(f"{delivery_id}.{word}", dir_fd=held)
                        gone += 1
            os.fsync(held)
        return gone

    def described(self, delivery_id: str) -> Quarantined | None:
        """What the file says of itself; None if it is gone. Raises :class:`Damaged`."""
        if (opened := self._open(delivery_id)) is None:
            return None
        descriptor, owed = opened
        try:
            return replace(_head(descriptor, delivery_id)[0], notice_owed=owed)
        finally:
            os.close(descriptor)

    def octets(self, delivery_id: str, spool: Spool) -> Octets | None:
        """The octets, compared with their digest; None if the file is gone. Raises :class:`Damaged`."""
        if (opened := self._open(delivery_id)) is None:
            return None
        descriptor, _ = opened
        try:
            held, start = _head(descriptor, delivery_id)
            os.lseek(descriptor, start, os.SEEK_SET)
            return _checked(descriptor, held, spool)
        finally:
            os.close(descriptor)

    def _open(self, delivery_id: str) -> tuple[int, bool] | None:
        """A descriptor, and whether the notice is owed; None if there is no such message."""
        if not _NAME.fullmatch(f"{delivery_id}.{OWED}"):
            return None
        with directory(self.path / "held") as held:
            for word in (TOLD, OWED, TOLD):  # it may be renamed between two looks
                with suppress(FileNotFoundError):
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                    return os.open(f"{delivery_id}.{word}", flags, dir_fd=held), word == OWED
        return None

    @contextmanager
    def _opened(self) -> Iterator[tuple[int, int]]:
        with ExitStack() as stack:
            yield (
                stack.enter_context(directory(self.path / "tmp")),
                stack.enter_context(directory(self.path / "held")),
            )


def name_of(held: Quarantined) -> str:
    """The name of its file."""
    return f"{held.delivery_id}.{OWED if held.notice_owed else TOLD}"


def file_size(held: Quarantined) -> int:
    """Octets of its file."""
    return held.size + len(line(held))


def _write(tmp: int, held: Quarantined, octets: Octets) -> OSError | None:
    """Write and sync one file; the fault if that failed, and then nothing of it is left."""
    name = name_of(held)
    try:
        if not _NAME.fullmatch(name):
            raise OSError(errno.EINVAL, "no id of ours")
        descriptor = create_private(name, tmp)
        try:
            write_all(descriptor, line(held))
            write_all(descriptor, octets.view())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException as fault:
        _unlink(name, tmp)
        if isinstance(fault, OSError):
            return fault
        raise
    return None


def _checked(descriptor: int, held: Quarantined, spool: Spool) -> Octets:
    """The rest of the file, which must be the octets that were held."""
    intake = spool.begin(held.size + 1)
    try:
        while not intake.overflowed and (chunk := os.read(descriptor, _PIECE)):
            intake.write(chunk)
    except BaseException:
        intake.abort()
        raise
    octets = intake.finish()
    if octets.size != held.size or octets.digest != held.digest:
        octets.close()
        raise Damaged("its octets are not those that were held: they do not match their digest")
    return octets


def _head(descriptor: int, delivery_id: str) -> tuple[Quarantined, int]:
    """What the first line says, and where the octets begin."""
    read = bytearray()
    while (end := read.find(b"\n")) < 0:
        chunk = os.read(descriptor, 8192)
        if not chunk or len(read) > LONGEST_LINE:
            raise Damaged("it has no first line of ours")
        read += chunk
    held = understood(bytes(read[:end]))
    if held.delivery_id != delivery_id:
        raise Damaged("it says that it is another one")
    return held, end + 1


def _unlink(name: str, within: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=within)
