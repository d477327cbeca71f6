"""The standard streams as verbs need them: all three open, and a failure to write told apart from every other error."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class OutputLost(OSError):
    """Standard output could not be written: a full disk behind it, say. A reader that went away is a
    BrokenPipeError."""


class _Output(io.FileIO):
    def write(self, octets: Any) -> int:
        try:
            return super().write(octets)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputLost(error.errno, error.strerror) from None


def prepare_streams() -> None:
    """Make the streams fit: for any name in a stranger's mail, whatever the locale, and for a caller that closed them.

    A stream that is closed leads nowhere from now on. Else the next file to be opened, a ledger, would get its
    number, and with it what libraries print.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    if sys.stdout is sys.__stdout__:
        encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
        output = io.BufferedWriter(_Output(1, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(output, encoding=encoding, line_buffering=os.isatty(1))
    if sys.stderr is None:
        errors = io.BufferedWriter(io.FileIO(2, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(errors, encoding="utf-8", line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
