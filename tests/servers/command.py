"""The command line as a process, in pipes or on a terminal of its own.

Most of a short command's time goes into imports. So one process has them done already, and every command is a fork of
it: a process of its own with its own environment, streams and exit code, in a tenth of the time.
"""

from __future__ import annotations

import atexit
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "mailpoller"]
SECONDS = 120.0


@dataclass(frozen=True)
class Said:
    """What a command left: its exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def objects(self) -> list[Any]:
        """Of output with a JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


def mailpoller(*words: str, stdin: bytes = b"", **variables: str) -> Said:
    """Run a verb to its end, without a terminal. ``variables`` are added to the environment."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        code = _nursery().run(words, environment(variables), (given.fileno(), out.fileno(), err.fileno()))
        out.seek(0)
        err.seek(0)
        return Said(code, out.read().decode(), err.read().decode())


def afresh(*words: str, **variables: str) -> Said:
    """As :func:`mailpoller`, in a new interpreter: for what it reads of the environment when it starts."""
    done = subprocess.run(
        [*PROGRAM, *words], capture_output=True, timeout=SECONDS, env=environment(variables), check=False
    )
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


def on_a_terminal(*words: str, columns: int = 100, **variables: str) -> Said:
    """Run a verb to its end with all streams on one terminal; all it drew is ``out``."""
    ours, theirs = pty.openpty()
    variables = {"TERM": "xterm", "COLUMNS": str(columns), **variables}
    process = subprocess.Popen(
        [*PROGRAM, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(variables)
    )
    os.close(theirs)
    drawn = b""
    deadline = time.monotonic() + SECONDS
    try:
        while select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # so a terminal says that its last user has left
                chunk = b""
            if not chunk:
                return Said(process.wait(60), drawn.decode(), "")
            drawn += chunk
        raise AssertionError(f"not through within {SECONDS} s: {drawn!r}")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what would change how the command speaks."""
    ours = {"NO_COLOR", "COLUMNS", "CREDENTIALS_DIRECTORY"}
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("MAILPOLLER_") and name not in ours
    }
    return {**kept, **variables}


class _Nursery:
    """The process that has everything imported and forks."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._wire, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__)), str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )

    def run(self, words: tuple[str, ...], variables: Mapping[str, str], streams: tuple[int, int, int]) -> int:
        request = json.dumps([words, variables]).encode()
        with self._one_at_a_time:
            socket.send_fds(self._wire, [len(request).to_bytes(4, "big")], list(streams))
            self._wire.sendall(request)
            code = self._wire.recv(2, socket.MSG_WAITALL)
        assert len(code) == 2, "the process that forks has ended"
        return int.from_bytes(code, "big", signed=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._wire.close()
        self._process.wait(60)


_nurseries: list[_Nursery] = []
"""One, once it is wanted; it lives as long as we do."""


def _nursery() -> _Nursery:
    if not _nurseries:
        _nurseries.append(_Nursery())
        atexit.register(_nurseries[0].close)
    return _nurseries[0]


def lasting() -> set[str]:
    """The numbers of the processes that are to stay until the tests end."""
    return {str(nursery.pid) for nursery in _nurseries}


def _fork_for_every_request(wire: socket.socket) -> None:
    while True:
        length, streams, _, _ = socket.recv_fds(wire, 4, 3)
        if not length:
            return
        words, variables = json.loads(wire.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL))
        child = os.fork()
        if child == 0:
            wire.close()
            _become(words, variables, streams)
        for stream in streams:
            os.close(stream)
        wire.sendall(_waited(child).to_bytes(2, "big", signed=True))


def _become(words: list[str], variables: dict[str, str], streams: list[int]) -> None:
    """Be the command from here on. Never returns."""
    code: Any = 70
    try:
        os.environ.clear()
        os.environ.update(variables)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.argv = ["mailpoller", *words]
        from mailpoller.cli import main

        main()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stderr.flush()
        os._exit(code)


def _waited(child: int) -> int:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.003)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    import mailpoller.app
    import mailpoller.cli.program
    import mailpoller.cli.rehearsal
    import mailpoller.config.schema
    import mailpoller.ledgers.sqlite
    import mailpoller.sinks.sqlite.consumer
    import mailpoller.sources.imap.config  # noqa: F401

    _fork_for_every_request(socket.socket(fileno=int(sys.argv[1])))
