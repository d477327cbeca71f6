"""Files that list senders, an address or a domain a line: read anew when they have changed."""

from __future__ import annotations

from pathlib import Path

import structlog

from mailpoller.core.regular import read_regular

log = structlog.get_logger(__name__)

LARGEST = 1 << 20
"""Octets of such a file at most: it is read between two messages."""


class SenderList:
    """A file of senders, read anew when it has changed.

    Lines that begin with ``#`` and empty ones do not count, nor does an ``@`` before a domain.

    A file that cannot be read now leaves what it said last, and is told once for each reason: the trouble is the
    machine's and no mail's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._senders: frozenset[str] = frozenset()
        self._trouble = ""

    def senders(self) -> frozenset[str]:
        """Those it lists, in small letters. One look at the disk, and a reading if it has changed. Never raises."""
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen == self._seen:
                return self._senders
            text = read_regular(self._path, LARGEST).decode("utf-8", "replace")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            if reason != self._trouble:
                log.warning("senders.unread", file=str(self._path), reason=reason)
                self._trouble = reason
            return self._senders
        lines = (line.strip().lower() for line in text.removeprefix("\ufeff").splitlines())
        self._senders = frozenset(line.lstrip("@") for line in lines if line and not line.startswith("#"))
        self._seen, self._trouble = seen, ""
        return self._senders
