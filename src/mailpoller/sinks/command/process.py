"""One run of a program, in a thread that waits for it: what it reads, how it ended, what it said last."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Literal

from mailpoller.core.errors import MachineTrouble, TransientError, machine_trouble
from mailpoller.core.record import record
from mailpoller.core.spool import Octets
from mailpoller.wire.redaction import spoken

_TAIL = 4096
"""Octets of what a program said last that are kept."""
_PIECE = 1 << 16
_LAST_READS = 16
"""Pieces that are read after its end: a pipe holds one, and a child that lives on may write for ever."""
_TICK_S = 0.05
"""How often the end is looked for where the kernel does not tell it."""
_REAPED_WITHIN_S = 2.0
"""What was killed and does not end hangs in the kernel; it is reaped when the next program is started."""


@record
class Program:
    """What is run. ``path`` is where a name without a slash is looked for, as in ``PATH``."""

    words: tuple[str, ...]
    directory: Path
    timeout_s: float
    path: str


@record
class Ended:
    """How a program ended. ``code``: its exit code, or the number of the signal; ``words``: its last line on stderr."""

    how: Literal["exited", "signalled", "timed-out", "stopped"]
    code: int
    words: str
    elapsed_s: float


class NotStarted(TransientError):
    """There is no such program, or it may not be run. The text says which."""


class Stop:
    """Says to a thread that nobody waits for its program any more. May be said before the program is started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake = -1
        self.said = False

    def say(self) -> None:
        with self._lock:
            self.said = True
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    @contextmanager
    def heard(self) -> Iterator[int]:
        """A descriptor that is readable once it was said."""
        wake = os.eventfd(0)
        with self._lock:
            self._wake = wake
            if self.said:
                os.eventfd_write(wake, 1)
        try:
            yield wake
        finally:
            with self._lock:
                self._wake = -1
                os.close(wake)


def run(program: Program, environment: Mapping[bytes, bytes], content: Octets | bytes, stop: Stop) -> Ended:
    """Run the program in a process group of its own, with ``content`` as a whole file on stdin, and wait for its end.

    A pipe would end early if this process died, and half a message would look like a whole one. The group is killed
    unless the program exits with 0: what it left behind then goes on, for it may be what it promised. Blocks for the
    time-out and two seconds at most, from when the program is started. Raises :class:`NotStarted` and
    :class:`~mailpoller.core.errors.MachineTrouble`.
    """
    with ExitStack() as stack:
        try:
            stdin = stack.enter_context(_file(content))
            wake = stack.enter_context(stop.heard())
            began = monotonic()
            if stop.said:
                return Ended("stopped", 0, "", 0.0)
            child = subprocess.Popen(  # noqa: S603 - the operator's own words, and no shell
                program.words, env=environment, cwd=program.directory, start_new_session=True,
                stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
        except (OSError, MemoryError, subprocess.SubprocessError) as error:
            if (lack := machine_trouble(error)) is not None:
                raise MachineTrouble(f"{program.words[0]} cannot be started: {lack}") from error
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            words = f"{program.words[0]} cannot be started in {program.directory}: {reason}"
            raise NotStarted(words, advice="Look at command and directory, and who may run it.") from error
        assert child.stderr is not None
        stack.enter_context(child.stderr)
        return _attend(child, wake, began, program.timeout_s)


@contextmanager
def _file(content: Octets | bytes) -> Iterator[int]:
    """A descriptor at the beginning of the content: the spool file itself, or a file in memory."""
    if isinstance(content, Octets) and content.path is not None:
        descriptor = os.open(content.path, os.O_RDONLY | os.O_CLOEXEC)
    else:
        descriptor = os.memfd_create("mailpoller", os.MFD_CLOEXEC)
    try:
        if not (isinstance(content, Octets) and content.path is not None):
            left = memoryview(bytes(content.view()) if isinstance(content, Octets) else content)
            while left:
                left = left[os.write(descriptor, left) :]
            os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _attend(child: subprocess.Popen[bytes], wake: int, began: float, timeout_s: float) -> Ended:
    """Wait for the end, the deadline or the stop. Kills the group unless all is well, and reaps the child."""
    well = False
    try:
        how, tail = _until(child, wake, began + timeout_s)
        if how == "ended":
            # Not reaped yet: until then nobody else can have its number, which is that of the group to be killed.
            found = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            assert found is not None
            well = found.si_code == os.CLD_EXITED and found.si_status == 0
            kind: Literal["exited", "signalled"] = "exited" if found.si_code == os.CLD_EXITED else "signalled"
            return Ended(kind, found.si_status, last_line(tail), monotonic() - began)
        return Ended(how, signal.SIGKILL, last_line(tail), monotonic() - began)
    finally:
        if not well:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_REAPED_WITHIN_S)


def _until(
    child: subprocess.Popen[bytes], wake: int, deadline: float
) -> tuple[Literal["ended", "timed-out", "stopped"], bytes]:
    """What came first, and the end of what the program said until then."""
    assert child.stderr is not None
    stderr, tail = child.stderr.fileno(), b""
    os.set_blocking(stderr, False)
    poller = select.poll()
    poller.register(stderr, select.POLLIN)
    poller.register(wake, select.POLLIN)
    with _end_of(child) as end:
        if end is not None:
            poller.register(end, select.POLLIN)
        while True:
            left = deadline - monotonic()
            if left <= 0:
                return "timed-out", tail
            ready = {one for one, _ in poller.poll((left if end is not None else min(left, _TICK_S)) * 1000)}
            if wake in ready:
                return "stopped", tail
            if end in ready or (end is None and _has_ended(child)):
                for _ in range(_LAST_READS):
                    if not (piece := _read(stderr)):
                        break
                    tail = (tail + piece)[-_TAIL:]
                return "ended", tail
            if stderr in ready:
                piece = _read(stderr)
                if piece == b"":
                    poller.unregister(stderr)
                tail = (tail + (piece or b""))[-_TAIL:]


def _read(descriptor: int) -> bytes | None:
    """A piece; empty at the end, None if there is nothing now."""
    try:
        return os.read(descriptor, _PIECE)
    except BlockingIOError:
        return None


@contextmanager
def _end_of(child: subprocess.Popen[bytes]) -> Iterator[int | None]:
    """A descriptor that is readable once the child has ended; None where there is no such thing."""
    try:
        descriptor = os.pidfd_open(child.pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def last_line(said: bytes) -> str:
    """The last line that says anything, fit for an error."""
    lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return spoken(lines[-1]) if lines else ""
