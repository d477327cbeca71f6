"""Is the ledger still there? A disk that hangs raises no error: whoever asked waits, and nobody says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import structlog

from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.ports import Clock, Ledger
from mailpoller.core.tasks import within
from mailpoller.engine.notify import STARTING

T = TypeVar("T")

log = structlog.get_logger(__name__)

PAUSE = timedelta(seconds=30)
"""Between two looks."""
HUNG = timedelta(minutes=2)
"""A ledger that did not answer for so long hangs: its longest work is done in pieces that take milliseconds."""

LOOK = timedelta(seconds=1)
AT_WORK_S = 0.01
"""Processor time within a minute or two by which a ledger that is being opened shows that it is at work."""


async def opened(opening: Awaitable[T], end: Callable[[str], None] | None) -> T:
    """The ledger that is being opened. One that hangs meanwhile ends the process, as in :class:`Lifeline`; without
    ``end``, raises :class:`LedgerUnavailable`.

    To migrate a large one may take long, so what counts is that nothing is done: no thread but ours used the
    processor for :data:`HUNG`. What works for ever (a trigger of somebody's) is ended after as long as systemd waits.
    """
    begun = since = time.monotonic()
    worked = _worked()
    task = asyncio.ensure_future(opening)
    try:
        while not task.done():
            await asyncio.wait((task,), timeout=LOOK.total_seconds())
            now = time.monotonic()
            if _worked() - worked >= AT_WORK_S:
                since, worked = now, _worked()
            if not task.done() and (now - since > HUNG.total_seconds() or now - begun > STARTING.total_seconds()):
                reason = f"the ledger could not be opened in {now - begun:.0f} s: its disk hangs"
                log.error("ledger.hung", reason=reason)
                if end is not None:
                    end(reason)
                raise LedgerUnavailable(reason)
        return task.result()
    finally:
        task.cancel()


def _worked() -> float:
    """Processor time of all threads but this one."""
    return time.process_time() - time.thread_time()


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
