"""The last stages of a batch: it is brought to its queues, and what became of it is recorded."""

from __future__ import annotations

from mailpoller.core.ports import Clock
from mailpoller.engine.claimant import Claimant
from mailpoller.engine.conclusion import Conclusions
from mailpoller.engine.dispatcher import Dispatcher
from mailpoller.engine.dispositions import Dispositions
from mailpoller.engine.in_flight import InFlight, Pass
from mailpoller.engine.observer import Observer
from mailpoller.engine.outcomes import LogRate, tell
from mailpoller.engine.records import Records


class Bringing:
    """Delivers one mailbox's batches, and settles them."""

    def __init__(
        self,
        mailbox: str,
        *,
        claims: Claimant,
        conclusions: Conclusions,
        dispatcher: Dispatcher,
        dispositions: Dispositions,
        observer: Observer,
        records: Records,
        clock: Clock,
        log_rate: LogRate | None,
    ) -> None:
        self._mailbox = mailbox
        self._claims = claims
        self._conclusions = conclusions
        self._dispatcher = dispatcher
        self._dispositions = dispositions
        self._observer = observer
        self._records = records
        self._clock = clock
        self._log_rate = log_rate

    async def deliver(self, now: Pass, in_flight: InFlight) -> None:
        """Bring what is judged to its queues, and release the octets."""
        self._observer.progressed()
        now.absent += in_flight.gone
        in_flight.gone = []
        try:
            if in_flight.judged:
                outcomes, deferrals = await self._dispatcher.dispatch(in_flight.judged)
                in_flight.outcomes += outcomes
                in_flight.deferrals += deferrals
        finally:
            in_flight.judged = []
            in_flight.release()

    async def settle(self, now: Pass, in_flight: InFlight) -> None:
        """Record what has become of a batch."""
        if in_flight.outcomes:
            settlements = await self._records.claims.settle(in_flight.outcomes)
            self._claims.close(outcome.claim for outcome in in_flight.outcomes)
            self._dispositions.owe(settlements)
            in_flight.settlements += settlements
        if in_flight.deferrals:
            await self._claims.defer(in_flight.deferrals, now.result)
        if in_flight.strangers:
            await self._conclusions.replace_strangers(now, in_flight)
        tell(in_flight.outcomes, self._mailbox, self._observer, self._clock, self._log_rate)
        now.result.settled += len(in_flight.outcomes)
