"""The local disk as several plug-ins need it: durable directories, room that is left, errors in an operator's words."""

from __future__ import annotations

import errno
import grp
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mailpoller.core.errors import TransientError
from mailpoller.core.spool import Block

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


@contextmanager
def transient(doing: str) -> Iterator[None]:
    """Raise the OSError of the block as a :class:`TransientError`: a disk that fails is never the message's fault."""
    try:
        yield
    except OSError as error:
        raise TransientError(in_words(error, doing)) from error


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
        path.mkdir(mode=0o700)
    except FileExistsError:
        if path.is_dir():
            return
        raise
    give(path, group=group, mode=mode)
    sync_directory(path.parent)


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


def give(path: Path | int, *, group: int, mode: int) -> None:
    """Set group (unless -1) and mode, in this order because a change of group drops the set-group-id bit. Raises OSError."""
    if group != -1:
        os.chown(path, -1, group)
    os.chmod(path, mode)  # noqa: PTH101  a descriptor has no Path


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    with directory(path, follow=True) as descriptor:
        os.fsync(descriptor)


@contextmanager
def directory(path: Path | str, *, within: int | None = None, follow: bool = False) -> Iterator[int]:
    """A descriptor of the directory, for calls relative to it. If it is a symbolic link it is refused unless ``follow``:
    whoever may write to its parent could have put it there. Raises OSError."""
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
    """Raise :class:`TransientError` unless a file can be created, written, synced and removed in the directory ``path``.

    Tried and not asked: a read-only file system, a quota and a failing disk only show when one writes.
    """
    name = f".mailpoller-check-{os.getpid()}"
    with transient(f"write in {path}"), directory(path, follow=True) as within:
        try:
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=within)
        except FileExistsError:
            os.unlink(name, dir_fd=within)
            descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=within)
        try:
            os.write(descriptor, b"\0")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            os.unlink(name, dir_fd=within)


def write_all(descriptor: int, octets: Block) -> None:
    """Write all of ``octets``: one call may take only a part of them. Raises OSError."""
    written = os.write(descriptor, octets)
    if written == len(octets):
        return
    with memoryview(octets) as whole:
        while written < len(whole):
            with whole[written:] as rest:
                written += os.write(descriptor, rest)


def copy_all(source: int, target: int) -> None:
    """Copy a file inside the kernel where it can (a reflink where the file system knows them). Raises OSError."""
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
