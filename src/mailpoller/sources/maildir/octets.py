"""The octets of one file of a Maildir, with what speaks against their being the message."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from mailpoller.core.message import Claim, Gone, RawMessage
from mailpoller.core.spool import Spool
from mailpoller.sources.maildir import directory as on_disk
from mailpoller.sources.maildir.directory import Entry

CHUNK = 256 * 1024
"""Octets of one read."""

Answer = RawMessage | Gone | OSError


def read_file(path: Path, claim: Claim, entry: Entry, spool: Spool, limit: int) -> Answer:
    """Raises FileNotFoundError if the file is not there."""
    try:
        descriptor = _open_regular(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        return error
    if descriptor is None:
        return Gone(claim)
    intake = spool.begin(limit)
    try:
        before = os.fstat(descriptor)
        while (room := limit - intake.size) > 0 and (chunk := os.read(descriptor, min(CHUNK, room))):
            intake.write(chunk)
        status = os.fstat(descriptor)
    except OSError as error:
        intake.abort()
        return error
    except BaseException:
        intake.abort()
        raise
    finally:
        os.close(descriptor)
    return RawMessage(
        claim,
        intake.finish(),
        truncated=status.st_size > intake.size,
        announced=status.st_size,
        received=instant(status.st_mtime),
        flags=on_disk.flags_of(entry.name),
        doubt=_doubt(before.st_size, intake.size, status.st_size, limit),
    )


def close_all(answers: Sequence[Answer]) -> None:
    """Give back the octets of answers that nobody will take."""
    for answer in answers:
        if isinstance(answer, RawMessage):
            answer.octets.close()


def _doubt(before: int, taken: int, after: int, limit: int) -> str:
    """Why what was read of a file may not be the message, or "". ``before`` and ``after``: the file's size then."""
    if not after and not taken:
        return "the file is empty, as a power cut leaves one"
    if before != after or (taken < limit and taken != after):
        return "the file changed while it was read"
    return ""


def _open_regular(path: Path) -> int | None:
    """A descriptor of the file; None if it is no regular file. Never follows a link, never waits for a pipe's
    writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        # ELOOP: a link by now. ENXIO: a socket.
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def instant(seconds: float) -> datetime | None:
    """Aware; None for a time stamp that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
