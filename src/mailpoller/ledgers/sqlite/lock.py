"""One process at a time: an advisory lock beside the ledger that names its holder and ends with it."""

from __future__ import annotations

import fcntl
import os
import socket
from datetime import datetime
from pathlib import Path

from mailpoller.core.errors import LedgerLocked, LedgerUnavailable


class Lock:
    """An exclusive flock(2) on ``<ledger>.lock``. The kernel frees it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".lock")
        self._descriptor: int | None = None

    def take(self, now: datetime) -> None:
        """Take the lock. Raises :class:`LedgerLocked`, naming the holder, if another process (or another ledger
        of this one) has it."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerUnavailable(f"{self.path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(
                descriptor, f"process {os.getpid()} on {socket.gethostname()} since {now:%Y-%m-%dT%H:%M:%SZ}\n".encode()
            )
        except BlockingIOError:
            holder = os.pread(descriptor, 500, 0).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise LedgerLocked(f"{self.path.with_suffix('')}: in use by {holder}") from None
        except OSError as error:  # a file system without locks, or a full one
            os.close(descriptor)
            raise LedgerUnavailable(f"{self.path}: cannot be locked: {error.strerror}") from error
        self._descriptor = descriptor

    def free(self) -> None:
        """Give the lock back. The file stays: removing it would let two newcomers lock two files of one name."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
