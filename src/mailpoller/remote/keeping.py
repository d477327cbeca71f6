"""Putting messages into a mailbox of somebody else's, one after the other: what queues of that kind have in common."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from time import monotonic

from mailpoller.core.answers import Answer, in_order, sifted
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.storage.begun import Begun
from mailpoller.storage.blame import Blame
from mailpoller.storage.recent import Recent

BUDGET_S = 90.0
"""No further message of a batch is begun after so many seconds, and a connection that others use is waited for no
longer."""
_DOUBTS = 3
"""So many in a row that are put off, and nobody can tell whether it is the messages: those behind them wait."""


class MailboxKeeper(ABC):
    """One connection, one message at a time. Ids of what is begun are kept, and one that was begun before is looked for
    first.

    ``where``: where it is, in words. ``largest``: octets of a message that is put there at most.
    """

    def __init__(self, where: str, begun: Begun, largest: int) -> None:
        self.where = where
        self.recent = Recent()
        """Ids of what is there."""
        self.blame = Blame()
        self._begun = begun
        self._largest = largest
        self._lock = asyncio.Lock()
        self._absent: set[str] = set()
        """What was begun before, was looked for, and was not begun again since."""

    @abstractmethod
    def receipt(self, delivery_id: str, reference: str = "", *, repeated: bool = False) -> Receipt:
        """A receipt: only a sink makes one. ``reference``: the message's name there."""

    @abstractmethod
    def search(self, deliveries: Sequence[Delivery]) -> AsyncGenerator[tuple[str, bool]]:
        """The id of each, and whether the mailbox shows it. One that cannot be told is not shown.

        Raises :class:`TransientError`.
        """

    @abstractmethod
    async def put(self, one: Delivery) -> Answer:
        """Put one message there. Raises :class:`TransientError` for what is the queue's trouble."""

    @abstractmethod
    async def look(self) -> None:
        """Whether messages could be put there now. Raises :class:`TransientError`."""

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Answer]:
        """Put each message there. The queue's trouble ends the batch: what was taken is told, the rest is put off.

        Raises :class:`TransientError` if it took and refused nothing.
        """
        answers, fresh = sifted(batch, self.recent.__contains__, self._too_large, self._repeated)
        trouble: TransientError | None = None
        if fresh:
            ends = monotonic() + BUDGET_S
            if not await self._acquired():
                late = TransientError("others were using the connection for too long")
                answers.update({one: Refusal(one, str(late), blame="queue") for one in fresh})
                return in_order(batch, answers, late, self._repeated)
            try:
                await self._work(list(fresh.values()), answers, ends)
            except TransientError as error:
                trouble = error
            finally:
                self._lock.release()
        if trouble is not None and all(isinstance(one, Refusal) and one.blame == "queue" for one in answers.values()):
            raise trouble
        return in_order(batch, answers, trouble, self._repeated)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. While it is at work, nothing is looked at."""
        if await self._acquired():
            try:
                await self.look()
            finally:
                self._lock.release()

    def taken(self, delivery_id: str, reference: str) -> Receipt:
        """It is there: remember that, and make the receipt."""
        self.blame.taken(delivery_id)
        self.recent.add([delivery_id])
        return self.receipt(delivery_id, reference)

    async def _acquired(self) -> bool:
        try:
            async with asyncio.timeout(BUDGET_S):
                await self._lock.acquire()
        except TimeoutError:
            return False
        return True

    def _too_large(self, one: Delivery) -> str:
        size, most = one.raw.octets.size, self._largest
        return f"the message has {size:,} octets, and max_size is {most:,}" if size > most else ""

    def _repeated(self, delivery_id: str) -> Receipt:
        return self.receipt(delivery_id, repeated=True)

    async def _work(self, fresh: Sequence[Delivery], answers: dict[str, Answer], ends: float) -> None:
        ids = [one.delivery_id for one in fresh]
        before = set(await asyncio.to_thread(self._begun.among, ids)) - self._absent
        if before:
            async with aclosing(self.search([one for one in fresh if one.delivery_id in before])) as found:
                async for delivery_id, shown in found:
                    if shown:
                        self.recent.add([delivery_id])
                        answers[delivery_id] = self._repeated(delivery_id)
                    else:
                        self._absent.add(delivery_id)
                    if monotonic() > ends:
                        raise TransientError(f"{self.where}: it is slow in looking for what may be there")
        waiting = [one for one in fresh if one.delivery_id not in answers]
        await asyncio.to_thread(self._begun.add, [one.delivery_id for one in waiting])
        put_off = 0
        for one in sorted(waiting, key=lambda one: one.delivery_id in self.blame):
            if monotonic() > ends:
                raise TransientError(f"{self.where}: too slow for so many at once")
            self._absent.discard(one.delivery_id)
            answer = answers[one.delivery_id] = await self.put(one)
            put_off = 0 if isinstance(answer, Receipt) or answer.blame == "message" else put_off + 1
            if put_off == _DOUBTS:
                raise TransientError(answer.reason if isinstance(answer, Refusal) else self.where)
