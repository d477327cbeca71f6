"""The end of a process that has something in a thread which does not end: it is not waited for."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from mailpoller.cli.terminal import write_out_all
from mailpoller.storage.thread import Pool

T = TypeVar("T")

THREADS = 64
"""Of the pool for all small blocking work: reading a secret, a certificate. Work that others wait for has pools of its
own."""
LATE_S = 1.5
"""So long after the grace the process ends, whatever hangs."""


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """As :func:`asyncio.run`, with threads that hold up nobody."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(Pool("work", THREADS))
        return runner.run(main)


def leave(code: int) -> None:
    """End the process now. What is in hand is done again by the next one: no end loses anything."""
    write_out_all()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def end_by(grace_s: float) -> None:
    """From now on the process has ``grace_s`` and a moment to end by itself, stopped as asked; then it is ended.

    In a thread of its own: the event loop may be what hangs.
    """
    end = time.monotonic() + grace_s + LATE_S

    def watch() -> None:
        time.sleep(max(0.0, end - time.monotonic()))
        hanging = sorted(one.name for one in threading.enumerate() if one.name not in ("MainThread", "the end"))
        import structlog

        structlog.get_logger(__name__).error("service.abandoned", grace_s=grace_s, threads=hanging[:10])
        leave(0)

    with suppress(RuntimeError):  # no thread is to be had: systemd has a time-out of its own
        threading.Thread(target=watch, name="the end", daemon=True).start()
