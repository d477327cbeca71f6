"""The command line: one file per verb."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """The console script ``mailpoller``. Never returns: every way to end is an exit code of
    :mod:`mailpoller.cli.exits`."""
    # What is imported stays: looking through it for cycles, a hundred times, was a seventh of every start, and once is
    # 35 ms still. Whoever runs for long sets another bound (``run``).
    gc.set_threshold(1_000_000, 20, 20)
    from mailpoller.cli.exits import exit_code
    from mailpoller.cli.program import program_for

    code = exit_code(program_for(sys.argv[1:]))
    # What is left is the interpreter's end: an interruption now would make a death by signal of a proper exit code.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end(code)


def _end(code: int) -> NoReturn:
    """End as the interpreter does, but for taking apart, object by object, what the kernel takes back at once: 70 of
    the 760 ms of processor time that it takes to load what ``run`` needs and to end again."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
