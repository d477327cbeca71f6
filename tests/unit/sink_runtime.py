"""What sinks are built with in tests: a clock that is set by hand."""

from __future__ import annotations

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


def make_runtime(directory: Path, clock: HandClock | None = None) -> Runtime:
    return Runtime(clock or HandClock(), Spool(directory / "spool"), directory)
