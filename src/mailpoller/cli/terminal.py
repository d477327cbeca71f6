"""Standard error as the log and a progress line share it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import shutil
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import IO, Any

REDRAW_S = 0.2
GATHERED = 200
"""Log lines that wait for the end of a step, at most."""
ERASE = "\r\x1b[K"


class Unfailing:
    """A stream whose writing never raises: a full disk behind the log, or a reader that went away, must not cost
    mail."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def write(self, text: Any) -> int:
        """Write as well as it goes."""
        try:  # not contextlib.suppress, which costs as much as the rest of a line
            self._stream.write(text)
        except (OSError, ValueError):
            pass
        return len(text)

    def flush(self) -> None:
        """Flush as well as it goes."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            pass


_gathering: list[Lines] = []


def write_out_all() -> None:
    """Write what every log has gathered: the process is about to end without further ado."""
    for lines in _gathering:
        lines.write_out()


class Lines:
    """Log lines: those of one step of the event loop go out in one write, those that no event loop speaks at once.

    A write for each line costs a busy event loop more than all the rest of the line. What a killed process has not
    written yet is what it said since its last step, at most ``GATHERED`` lines. For any thread; writing never raises.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = Unfailing(stream)
        self._lines: deque[bytes] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The event loop that is going to write what is gathered."""
        self._lock = threading.Lock()
        atexit.register(self.write_out)
        _gathering.append(self)

    def write(self, line: bytes) -> int:
        """Gather a line."""
        self._lines.append(line)
        return len(line)

    def flush(self) -> None:
        """See that what is gathered gets written: at the end of this step of the event loop, if there is one."""
        if self._loop is not None and len(self._lines) < GATHERED and not self._loop.is_closed():
            return
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self.write_out()
            return
        if len(self._lines) < GATHERED:
            self._loop.call_soon(self.write_out)
        else:
            self.write_out()

    def write_out(self) -> None:
        """Write what is gathered."""
        with self._lock:
            self._loop = None
            if self._lines:
                self._stream.write(b"".join([self._lines.popleft() for _ in range(len(self._lines))]))
                self._stream.flush()


class Terminal:
    """A text stream with one line at its end that comes and goes; what is written appears above it. For any thread."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = Unfailing(stream)
        self._line = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Write above the line. ``text`` ends a line, as a log's always does."""
        with self._lock:
            if self._line and text:
                text = ERASE + text + (self._line if text.endswith("\n") else "")
            self._stream.write(text)
            return len(text)

    def flush(self) -> None:
        """See :meth:`write`: what is written is there."""
        self._stream.flush()

    def show(self, line: str) -> None:
        """Replace the line; an empty one takes it away."""
        with self._lock:
            self._line = line[: max(10, shutil.get_terminal_size().columns - 1)]
            self._stream.write(ERASE + self._line)
            self._stream.flush()


def error_terminal() -> Terminal | None:
    """Standard error if somebody watches it who can read a line that is drawn again and again."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return None
    return Terminal(sys.stderr)


@contextlib.asynccontextmanager
async def progress(terminal: Terminal | None, words: Callable[[], str]) -> AsyncIterator[None]:
    """Keep ``words()`` on the terminal's last line while the block runs. Without a terminal nothing is said."""
    if terminal is None:
        yield
        return

    async def draw() -> None:
        while True:
            terminal.show(words())
            await asyncio.sleep(REDRAW_S)

    drawing = asyncio.create_task(draw(), name="progress line")
    try:
        yield
    finally:
        drawing.cancel()
        terminal.show("")
