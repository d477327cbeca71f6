"""Files that list something, one a line: read anew when they have changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from mailpoller.core.errors import ConfigError
from mailpoller.core.regular import read_regular

log = structlog.get_logger(__name__)

LARGEST = 4 << 20
"""Octets of such a file at most: it is read between two messages."""
_TICK = 1.0
"""Seconds within which a file may change twice and look the same."""

T = TypeVar("T")


class Listed(Generic[T]):
    """What ``make`` makes of a file's lines; ``empty`` until it could be read once.

    Lines that begin with ``#`` and empty ones do not count. A file that cannot be read now leaves what it said last,
    and is told once for each reason: the trouble is the machine's and no mail's. One that has just become empty leaves
    it for a second, too.
    """

    def __init__(self, path: Path, make: Callable[[Sequence[str]], T], empty: T) -> None:
        self.path = path
        self._make = make
        self._seen: tuple[int, int, int] | None = None
        self._again = 0.0
        self._made = empty
        self._said = False
        """It had a line when it was read last."""
        self._trouble = ""

    def require(self) -> None:
        """Read it. Raises OSError if that cannot be, and ValueError if no file can be so named."""
        found = self.path.stat()
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        now = time.monotonic()
        if seen == self._seen and not 0 < self._again <= now:
            return
        text = read_regular(self.path, LARGEST).decode("utf-8", "replace")
        lines = (line.strip() for line in text.removeprefix("\ufeff").splitlines())
        said = [line for line in lines if line and not line.startswith("#")]
        if not said and self._said and abs(time.time() - found.st_mtime) < _TICK:
            return  # it is being written: most programs empty a file first
        self._made, self._said = self._make(said), bool(said)
        self._again = now + _TICK if seen != self._seen else 0.0  # once more, should it have changed within a tick
        self._seen, self._trouble = seen, ""

    def required(self) -> Listed[T]:
        """Itself, once it was read: nobody is judged by a list of which nothing is known. Raises
        :class:`ConfigError`."""
        try:
            self.require()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path}: {getattr(error, 'strerror', None) or error}") from None
        return self

    def now(self) -> T:
        """What is made of it. One look at the disk, and a reading if it has changed. Never raises."""
        try:
            self.require()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            if reason != self._trouble:
                log.warning("list.unread", file=str(self.path), reason=reason)
                self._trouble = reason
        return self._made


def sender_list(path: Path) -> Listed[frozenset[str]]:
    """Addresses and domains, in small letters, without ``@`` before a domain."""
    return Listed(path, _senders, frozenset())


def _senders(lines: Sequence[str]) -> frozenset[str]:
    return frozenset(line.lower().lstrip("@") for line in lines)
