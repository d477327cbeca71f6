"""The log as systemd's journal takes it natively: with its priority, and with ``MAILPOLLER_MID`` to find a message by.

The protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import BinaryIO

SOCKET = Path("/run/systemd/journal/socket")
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}
"""Of syslog(3)."""


def is_ours(descriptor: int = 2) -> bool:
    """True if what is written to this descriptor goes to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(descriptor)
        return (found.st_dev, found.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):
        return False


class JournalLogger:
    """Sends each line as an entry. What the journal does not take, because it is busy, gone, or the line too long, is
    written to ``fallback`` with its priority before it. Never blocks and never raises."""

    def __init__(self, fallback: BinaryIO, path: Path = SOCKET) -> None:
        self._fallback = fallback
        self._path = str(path)
        self._wire: socket.socket | None = None

    def msg(self, line: bytes, priority: int, mid: str) -> None:
        """One line, which has no newline in it."""
        fields = b"PRIORITY=%d\nSYSLOG_IDENTIFIER=mailpoller\nMESSAGE=%s\n" % (priority, line)
        if mid.isalnum() or mid.replace("-", "").isalnum():
            fields += b"MAILPOLLER_MID=%s\n" % mid.encode("ascii", "replace")
        try:
            if self._wire is None:
                self._wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._wire.setblocking(False)
            self._wire.sendto(fields, self._path)
        except OSError:
            self._fallback.write(b"<%d>%s\n" % (priority, line))
            self._fallback.flush()

    debug = info = warning = error = exception = critical = msg


class JournalLoggerFactory:
    """Makes the one logger there is."""

    def __init__(self, fallback: BinaryIO, path: Path = SOCKET) -> None:
        self._logger = JournalLogger(fallback, path)

    def __call__(self, *_: object) -> JournalLogger:
        return self._logger
