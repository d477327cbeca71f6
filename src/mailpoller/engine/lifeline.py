"""Is the ledger still there? A disk that hangs raises no error: whoever asked waits, and nobody says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog

from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.ports import Clock, Ledger
from mailpoller.core.tasks import within

log = structlog.get_logger(__name__)

PAUSE = timedelta(seconds=30)
"""Between two looks."""
HUNG = timedelta(minutes=2)
"""A ledger that did not answer for so long hangs: its longest work is done in pieces that take milliseconds."""


class Lifeline:
    """Asks the ledger twice a minute. When it hangs, ``end`` is called with the reason, which ends the process: in
    the next one opening the ledger either succeeds or says what is wrong. A ledger that says that it cannot is alive.
    """

    def __init__(self, ledger: Ledger, clock: Clock, end: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._end = end

    async def run(self, stop: asyncio.Event) -> None:
        """Look until ``stop``."""
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            while not stopping.done():
                await self._look(stopping)
                pause = asyncio.ensure_future(self._clock.sleep(PAUSE.total_seconds()))
                await asyncio.wait((pause, stopping), return_when=asyncio.FIRST_COMPLETED)
                pause.cancel()
        finally:
            stopping.cancel()

    async def _look(self, stopping: asyncio.Future[Any]) -> None:
        asking = asyncio.ensure_future(within(HUNG.total_seconds(), self._ask()))
        await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            asking.cancel()
            return
        try:
            asking.result()
        except TimeoutError:
            reason = f"the ledger did not answer for {HUNG.total_seconds():.0f} s: its disk hangs"
            log.error("ledger.hung", reason=reason)
            self._end(reason)
        except LedgerUnavailable:
            pass

    async def _ask(self) -> None:
        await self._ledger.last_polls()
