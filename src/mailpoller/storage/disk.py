"""The local disk as several plug-ins need it: durable directories, room that is left, errors in an operator's words."""

from __future__ import annotations

import errno
import grp
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mailpoller.core.errors import TransientError
from mailpoller.core.spool import Block, Octets

SHARED_DIRECTORY = 0o2770
"""Of a directory that the service's group may use: whatever is created in it belongs to the same group."""
READABLE_FILE = 0o640
"""Of a file that the service's group may read, and only we may change."""
WRITABLE_FILE = 0o660
"""Of a file that the service's group may change."""

_COPY_OCTETS = 1 << 20


def in_words(error: OSError, doing: str) -> str:
    """What went wrong with what: ``cannot write /var/…/new: No space left on device``."""
    return f"cannot {doing}: {error.strerror or error}"


def of_the_disk(faults: Iterable[OSError]) -> OSError | None:
    """The first fault that another message would meet as well, so that whoever met it should stop trying for a while;
    None if each is its message's own: it is larger than a file may be, or its spool file is gone."""
    return next((fault for fault in faults if fault.errno not in (errno.EFBIG, errno.ENOENT)), None)


@contextmanager
def transient(doing: str) -> Iterator[None]:
    """Raise the OSError of the block as a :class:`TransientError`: a disk that fails is never the message's fault."""
    try:
        yield
    except OSError as error:
        raise TransientError(in_words(error, doing)) from error


def accessible(path: Path, mode: int) -> bool:
    """As :func:`os.access`, for whom we work as and not for who started us: root may have become the service."""
    if os.geteuid() == os.getuid():
        return os.access(path, mode)  # the other call an old seccomp filter refuses, which would look like a refusal
    return os.access(path, mode, effective_ids=True)


def group_id(name: str | None) -> int:
    """The number of a group, -1 for None (leave the group as it is). Raises :class:`TransientError` if there is none:
    directory services come back."""
    if name is None:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise TransientError(f"there is no group {name}") from None


def make_directory(path: Path, *, group: int = -1, mode: int = SHARED_DIRECTORY) -> None:
    """Create the directory, and those above it, durably, if it is missing. One that exists is left as it is.

    ``mode`` and ``group`` are given to the last directory only. Raises OSError.
    """
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_directory(path.parent, mode=0o755)
    try:
        path.mkdir(mode=mode & 0o777)
    except FileExistsError:
        if path.is_dir():
            return
        raise
    _give_directory(path, group=group, mode=mode)
    sync_directory(path.parent)


def _give_directory(path: Path, *, group: int, mode: int) -> None:
    """Set group and mode of a new directory. The set-group-id bit may be forbidden us (systemd's RestrictSUIDSGID=)
    and yet be there, from the directory above; then what the umask left of the mode stays."""
    found = path.stat()
    if stat.S_IMODE(found.st_mode) == mode and group in (-1, found.st_gid):
        return
    try:
        # Not by name: who may write to the directory above could have put a link there meanwhile.
        with directory(path) as descriptor:
            give(descriptor, group=group, mode=mode)
    except PermissionError:
        if not (mode & stat.S_ISGID and found.st_mode & stat.S_ISGID and group in (-1, found.st_gid)):
            raise


def create_file(path: Path, *, group: int = -1, mode: int) -> None:
    """Create an empty file durably if it is missing. One that exists is left as it is. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        give(descriptor, group=group, mode=mode)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def give(descriptor: int, *, group: int, mode: int) -> None:
    """Set group (unless -1) and mode, in this order because a change of group drops the set-group-id bit. Raises
    OSError."""
    if group != -1:
        os.fchown(descriptor, -1, group)
    os.fchmod(descriptor, mode)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    with directory(path, follow=True) as descriptor:
        os.fsync(descriptor)


def sync_file(path: Path) -> None:
    """Make what a file holds durable, whoever wrote it; one that is missing is passed over. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def directory(path: Path | str, *, within: int | None = None, follow: bool = False) -> Iterator[int]:
    """A descriptor of the directory, for calls relative to it. If it is a symbolic link it is refused unless
    ``follow``: whoever may write to its parent could have put it there. Raises OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def require_room(path: Path, least: int) -> None:
    """Raise :class:`TransientError` unless ``least`` octets are free for us on the file system of ``path``."""
    with transient(f"use {path}"):
        found = os.statvfs(path)
    free = found.f_bavail * found.f_frsize
    if free < least:
        raise TransientError(
            f"the disk of {path} is nearly full: {free:,} octets free, {least:,} are wanted (min_free)"
        )


def require_writable(path: Path) -> None:
    """Raise :class:`TransientError` unless a file can be created, written, synced and removed in the directory
    ``path``.

    Tried and not asked: a read-only file system, a quota and a failing disk only show when one writes.
    """
    name = f".mailpoller-check-{threading.get_native_id()}"  # other queues may be trying the same directory now
    with transient(f"write in {path}"), directory(path, follow=True) as within:
        descriptor = create_private(name, within)
        try:
            os.write(descriptor, b"\0")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            os.unlink(name, dir_fd=within)


def require_place(path: Path, least: int) -> None:
    """:func:`require_room` and :func:`require_writable` for a directory that may be missing: then for the nearest one
    above it, where :func:`make_directory` would begin. Creates nothing that stays."""
    with transient(f"use {path}"):
        while not path.is_dir():
            if os.path.lexists(path):
                raise TransientError(f"{path} is not a directory")
            path = path.parent
    require_room(path, least)
    require_writable(path)


def write_octets(octets: Octets, name: str, within: int, *, group: int = -1) -> None:
    """Hold the octets of a message in a new file ``name`` of the directory ``within``, synced, readable by the group.

    A spooled message is given a second name instead of a copy where that can be. An older file of that name is
    replaced. The name itself is durable when the directory is synced. Raises OSError; whatever is raised, nothing is
    left behind.
    """
    try:
        if octets.path is None or not _link(octets.path, name, within, group):
            _copy(octets, name, within, group)
    except BaseException:
        with suppress(OSError):
            os.unlink(name, dir_fd=within)
        raise


def _link(spooled: Path, name: str, within: int, group: int) -> bool:
    """Give the spool file a second name. False if that cannot be: another file system, or another queue has linked it
    already, whose group and mode are not ours to change."""
    try:
        os.link(spooled, name, dst_dir_fd=within, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        found = os.fstat(descriptor)
        if found.st_nlink != 2 or found.st_uid != os.geteuid():
            os.unlink(name, dir_fd=within)
            return False
        give(descriptor, group=_inherited(within) if group == -1 else group, mode=READABLE_FILE)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


def _copy(octets: Octets, name: str, within: int, group: int) -> None:
    descriptor = create_private(name, within)
    try:
        if octets.path is None:
            write_all(descriptor, octets.view())
        else:
            with octets.path.open("rb", buffering=0) as spooled:
                _copy_all(spooled.fileno(), descriptor)
        give(descriptor, group=group, mode=READABLE_FILE)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_private(name: str, within: int) -> int:
    """A new, empty file of ours alone, to be written, in the place of whatever has that name. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, 0o600, dir_fd=within)
    except FileExistsError:
        os.unlink(name, dir_fd=within)
        return os.open(name, flags, 0o600, dir_fd=within)


def _inherited(within: int) -> int:
    """The group that a file created here would have: the directory's, if it says so."""
    found = os.fstat(within)
    return found.st_gid if found.st_mode & stat.S_ISGID else -1


def write_all(descriptor: int, octets: Block) -> None:
    """Write all of ``octets``: one call may take only a part of them. Raises OSError."""
    written = os.write(descriptor, octets)
    if written == len(octets):
        return
    with memoryview(octets) as whole:
        while written < len(whole):
            with whole[written:] as rest:
                written += os.write(descriptor, rest)


def _copy_all(source: int, target: int) -> None:
    """Copy a file inside the kernel where it can (a reflink where the file system knows them)."""
    try:
        while os.copy_file_range(source, target, _COPY_OCTETS * 64):
            pass
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
            raise
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, 0, os.SEEK_SET)
        os.ftruncate(target, 0)
        while chunk := os.read(source, _COPY_OCTETS):
            write_all(target, chunk)


def is_private_directory(descriptor: int) -> bool:
    """True if nobody but us can have put anything into this directory."""
    found = os.fstat(descriptor)
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
