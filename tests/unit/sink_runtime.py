"""What sinks are built with in tests: a clock that is set by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mailpoller.core.component import Runtime
from mailpoller.core.spool import Spool


class HandClock:
    """Starts at the present, because consumers read their own clock; moves only by :meth:`advance`."""

    def __init__(self) -> None:
        self.instant = datetime.now(UTC)
        self.elapsed = 1000.0

    def now(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def advance(self, by: timedelta) -> None:
        self.instant += by
        self.elapsed += by.total_seconds()


@contextmanager
def synced_names() -> Iterator[set[str]]:
    """The names of the files and directories that are synced inside by this process's own Python code."""
    names: set[str] = set()
    real = os.fsync

    def recording(descriptor: int) -> None:
        names.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    os.fsync = recording
    try:
        yield names
    finally:
        os.fsync = real


@contextmanager
def disk_steps() -> Iterator[list[str]]:
    """What is done that a power cut may undo, in order: ``sync NAME`` for each file or directory, ``move NAME`` for
    each rename."""
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def syncing(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        fsync(descriptor)
        steps.append(f"sync {name}")

    def renaming(source: str, target: str, **how: int) -> None:
        rename(source, target, **how)  # type: ignore[arg-type]
        steps.append(f"move {source}")

    os.fsync, os.rename = syncing, renaming  # type: ignore[assignment]
    try:
        yield steps
    finally:
        os.fsync, os.rename = fsync, rename


def make_runtime(directory: Path, clock: HandClock | None = None) -> Runtime:
    return Runtime(clock or HandClock(), Spool(directory / "spool"), directory)
