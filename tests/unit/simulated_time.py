"""Time in which nobody waits: an event loop that puts its clock forward to whatever is due next."""

from __future__ import annotations

import asyncio
import selectors
from datetime import UTC, datetime, timedelta

DAWN = datetime(2026, 3, 14, tzinfo=UTC)
"""The instant at which every loop begins."""


class _Jumping(selectors.DefaultSelector):
    """Instead of waiting, puts the loop's time forward."""

    loop: SimulatedLoop
    _turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits, and nothing will ever happen")
        self.loop.now += max(0.0, timeout)
        self._turns = 0 if timeout > 0 else self._turns + 1
        if self._turns > 20_000:
            raise AssertionError("somebody is busy with nothing")
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop in which every wait is over at once. Nothing in it may use threads or sockets."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Jumping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class SimulatedClock:
    """See :class:`mailpoller.core.ports.Clock`: both its times are the loop's, but that the machine's date may be
    wrong by ``skew``."""

    def __init__(self) -> None:
        self.skew = timedelta(0)

    def now(self) -> datetime:
        return self.true() + self.skew

    def true(self) -> datetime:
        """The time that everybody else has."""
        return DAWN + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
