"""The command line as a process, in a pipe or on a terminal of its own."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROGRAM = [sys.executable, "-m", "mailpoller"]


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


def mailpoller(*words: str, stdin: bytes = b"", seconds: float = 60, **variables: str) -> Said:
    """Run a verb to its end, in pipes. ``variables`` are added to the environment."""
    done = subprocess.run(
        [*PROGRAM, *words], input=stdin, capture_output=True, timeout=seconds, env=environment(variables), check=False
    )
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


def on_a_terminal(*words: str, seconds: float = 60, columns: int = 100, **variables: str) -> Said:
    """Run a verb to its end with standard output and standard error on one terminal; all it drew is ``out``."""
    ours, theirs = pty.openpty()
    variables = {"TERM": "xterm", "COLUMNS": str(columns), **variables}
    process = subprocess.Popen(
        [*PROGRAM, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(variables)
    )
    os.close(theirs)
    drawn = b""
    deadline = time.monotonic() + seconds
    try:
        while True:
            if not select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"not through within {seconds} s: {drawn!r}")
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # so a terminal says that its last user has left
                break
            if not chunk:
                break
            drawn += chunk
        return Said(process.wait(10), drawn.decode(), "")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what would change how the command speaks."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAILPOLLER_") and name not in ("NO_COLOR", "COLUMNS", "CREDENTIALS_DIRECTORY")
    }
    return {**kept, **variables}
