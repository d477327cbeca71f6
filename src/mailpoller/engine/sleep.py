"""A wait that somebody may end early."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mailpoller.engine.batcher import Stop

T = TypeVar("T")


class Sleep:
    """The waits of one task, one after another. A ``stop`` lets none begin; who sets it stirs, too."""

    def __init__(self, stop: Stop) -> None:
        self.stirred = False
        """Somebody wants no wait; the next one does not begin."""
        self._stop = stop
        self._sleeper: asyncio.Timeout | None = None

    async def unless_stirred(self, wait: Callable[[], Awaitable[T]]) -> T | None:
        """What ``wait`` gives; None if somebody stirs us, or has stirred us since the last wait, or when the service
        stops."""
        if self.stirred or self._stop.is_set():
            self.stirred = False
            return None
        try:
            async with asyncio.timeout(None) as self._sleeper:
                return await wait()
        except TimeoutError:
            if self._sleeper is None or not self._sleeper.expired():
                raise
            return None
        finally:
            self._sleeper = None
            self.stirred = False

    def stir(self) -> None:
        """End the present wait, or else the next one."""
        self.stirred = True
        self.interrupt()

    def interrupt(self) -> None:
        """End the present wait, if there is one; the next is not concerned."""
        if self._sleeper is not None:
            # A timeout that already fired cannot be moved again.
            with contextlib.suppress(RuntimeError):
                self._sleeper.reschedule(asyncio.get_running_loop().time())
