"""A clock for what removes mail for its age: it does not follow the machine's when that leaps ahead."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.ports import Belief, Clock, Timekeeping
from mailpoller.core.tasks import TaskGroup

log = structlog.get_logger(__name__)

DOUBTED = timedelta(days=1)
"""A clock that is further ahead than this is not followed at all before it was so for as long."""
CATCHING_UP = 3
"""Then, and at once where it is less, so many seconds more are believed in a second."""
BELIEVED_AFTER = timedelta(days=7)
"""One that a service has run with for so long is right."""
KEPT = timedelta(minutes=10)
"""How often the ledger is told."""
_LAST_WORDS_S = 3


class PrudentClock:
    """A :class:`~mailpoller.core.ports.Clock` that is never ahead of the machine's, and never far ahead of the time
    that has passed since it was believed last, as far as services ran meanwhile.

    A machine whose clock is a year ahead for a morning loses nothing by it, and what it believes of one that is so for
    days is bounded. After a rest of some weeks, what is old is removed up to a week late. Time that services saw is
    kept: a clock that was far behind is followed at once when it is right again.
    """

    def __init__(self, clock: Clock, ledger: Timekeeping) -> None:
        self._clock = clock
        self._ledger = ledger
        self._believed = clock.now()
        self._looked_at = clock.monotonic()
        self._doubted = timedelta(0)
        self._said = False

    async def begin(self) -> None:
        """Take up what was believed last. Raises :class:`LedgerUnavailable`."""
        if (known := await self._ledger.belief()) is not None:
            self._believed, self._doubted = known.at, known.doubted
            self._looked_at = self._clock.monotonic()

    def now(self) -> datetime:
        """How late it is at least."""
        elapsed = timedelta(seconds=max(0.0, self._clock.monotonic() - self._looked_at))
        self._looked_at += elapsed.total_seconds()
        told, due = self._clock.now(), self._believed + elapsed
        if told - due <= DOUBTED:
            self._doubted = timedelta(0)
            self._believed = max(self._believed, min(told, due + CATCHING_UP * elapsed))
            return min(told, self._believed)
        self._doubted += elapsed
        self._say(told - due)
        if self._doubted > BELIEVED_AFTER:
            self._believed = told
        else:
            self._believed = due + CATCHING_UP * elapsed if self._doubted > DOUBTED else due
        return self._believed

    def monotonic(self) -> float:
        """As the machine's."""
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        """As the machine's."""
        await self._clock.sleep(seconds)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep what is believed, until ``stop``, and then once more."""
        try:
            async with TaskGroup() as group:
                keeping = group.create_task(self._keep_again_and_again(), name="keep the time")
                await stop.wait()
                keeping.cancel()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._keep()

    async def _keep_again_and_again(self) -> None:
        while True:
            await self._keep()
            await self._clock.sleep(KEPT.total_seconds())

    async def _keep(self) -> None:
        try:
            await self._ledger.believe(Belief(self.now(), self._doubted))
        except LedgerUnavailable as error:
            log.debug("clock.unkept", reason=str(error))  # which has an alarm of its own

    def _say(self, ahead: timedelta) -> None:
        if not self._said:
            self._said = True
            log.warning("clock.doubted", ahead_s=round(ahead.total_seconds()))
