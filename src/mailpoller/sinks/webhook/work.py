"""One batch being worked on: who is answered for, who is suspected, and whose trouble it turns out to be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from time import monotonic

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import MailpollerError, MessageRejected, TransientError
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.core.tasks import TaskGroup
from mailpoller.sinks.webhook.answers import PutOff

Unit = tuple[Delivery, ...]
"""What one request is about."""

_BUDGET_S = 90.0
"""No further request of a batch is begun after so many seconds: what is known then is told before the engine gives up
on the batch."""
_IN_A_ROW = 2
"""Requests that fail for the first time, with none taken between, are the service's trouble."""


class Suspicion:
    """What failed for a reason that may be its own, among the last ``limit`` of them, and what was taken since."""

    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._failed_at: dict[str, int] = {}
        self.taken = 0
        """Requests that the service has taken."""

    def __contains__(self, delivery_id: str) -> bool:
        return delivery_id in self._failed_at

    def took(self, unit: Unit) -> None:
        """The service took these."""
        self.taken += 1
        for one in unit:
            self._failed_at.pop(one.delivery_id, None)

    def failed(self, delivery_id: str) -> int | None:
        """It failed now. How many requests had been taken when it did so first; None if it never did."""
        before = self._failed_at.pop(delivery_id, None)
        self._failed_at[delivery_id] = self.taken if before is None else before
        if len(self._failed_at) > self._limit:
            del self._failed_at[next(iter(self._failed_at))]
        return before

    def cleared(self, delivery_id: str) -> bool:
        """True if others were taken since it failed last."""
        return self.taken > self._failed_at.get(delivery_id, self.taken)


class Work:
    """One batch. ``ask`` sends a request: it returns the answer in words, or raises; ``lanes`` of them at once.

    After :meth:`run`: ``answers`` for all of whom something is known, and for all others ``trouble``, which is the
    queue's.
    """

    def __init__(self, ask: Callable[[Unit], Awaitable[str]], suspicion: Suspicion, lanes: int) -> None:
        self.answers: dict[str, Receipt | Refusal] = {}
        self.trouble: MailpollerError | None = None
        self._ask = ask
        self._suspicion = suspicion
        self._lanes = lanes
        self._suspects: dict[str, PutOff] = {}
        self._put_off: list[Refusal] = []
        self._in_a_row = 0
        self._ends = monotonic() + _BUDGET_S

    async def run(self, units: Iterable[Unit]) -> None:
        """Do it all, until there is trouble."""
        waiting = iter(units)
        async with TaskGroup() as group:
            for number in range(self._lanes):
                group.create_task(self._lane(waiting), name=f"webhook {number}")
        for delivery_id, error in self._suspects.items():
            if self._suspicion.cleared(delivery_id):
                self.answers[delivery_id] = Refusal(delivery_id, str(error))
            else:
                self.trouble = self.trouble or error
        if len(self._put_off) == len(self.answers) > 1:
            # Nobody can tell whether it is the messages; but they have nothing in common, apart from the service.
            self.answers, self.trouble = {}, self.trouble or TransientError(self._put_off[0].reason)

    async def _lane(self, waiting: Iterator[Unit]) -> None:
        for unit in waiting:
            if monotonic() > self._ends:
                self.trouble = self.trouble or TransientError("the service is too slow for so many at once")
            if self.trouble is not None:
                return
            await self._bring(unit)

    async def _bring(self, unit: Unit) -> None:
        try:
            words = await self._ask(unit)
        except MessageRejected as error:
            if len(unit) == 1:
                self.answers[unit[0].delivery_id] = Refusal(unit[0].delivery_id, str(error), permanent=True)
                return
            # One of them is enough for that: it is not to take the others along.
            for half in (unit[: len(unit) // 2], unit[len(unit) // 2 :]):
                if self.trouble is None:
                    await self._bring(half)
        except PutOff as error:
            self._doubt(unit, error)
        except MailpollerError as error:
            self.trouble = self.trouble or error
        else:
            self._in_a_row = 0
            self._suspicion.took(unit)
            for one in unit:
                self.answers[one.delivery_id] = SealedReceipt(one.delivery_id, words)

    def _doubt(self, unit: Unit, error: PutOff) -> None:
        known = False
        for one in unit:
            before = self._suspicion.failed(one.delivery_id)
            if before is None or len(unit) > 1:
                self._suspects[one.delivery_id] = error
                continue
            known = True
            if self._suspicion.taken > before:
                self.answers[one.delivery_id] = Refusal(one.delivery_id, str(error))
            elif error.retry_after is not None:
                self.trouble = self.trouble or error
            else:
                refusal = Refusal(one.delivery_id, str(error), blame="queue")
                self.answers[one.delivery_id] = refusal
                self._put_off.append(refusal)
        self._in_a_row += not known
        if self._in_a_row >= _IN_A_ROW:
            self.trouble = self.trouble or error
