"""Whose turn it is: what is scarce goes round among the mailboxes in shares of 4 : 2 : 1, and nobody starves.

Wherever mailboxes wait for one another (octets in hand, judging, a queue's calls), they wait in a
:class:`FairShare`.
While there is enough for all it costs nothing and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import insort
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from mailpoller.core.component import MailboxPriority

WEIGHTS: Mapping[MailboxPriority, int] = {"high": 4, "medium": 2, "low": 1}

Weights = Mapping[str, int]
"""mailbox -> its weight, now; of one that is missing, that of ``medium``."""


@dataclass(order=True, slots=True)
class _Wish:
    """One who waits. Ordered by ``end``, then by arrival."""

    end: float
    number: int
    start: float = field(compare=False)
    size: int = field(compare=False)
    granted: asyncio.Future[None] = field(compare=False)


class FairShare:
    """So much of something scarce, handed out by weighted fair queueing.

    A wish starts, in virtual time, where its mailbox's last one ended, or now if that is past; it ends ``charge /
    weight`` later. The wish that ends first is granted first, once it fits; virtual time is the latest start that was
    granted. So mailboxes that always wait get shares by weight; one that seldom asks, and for little, is before all
    backlogs however many there are; and since each grant moves its mailbox's next one back, a large wish is overtaken
    a bounded number of times.
    """

    def __init__(self, size: int, weights: Weights | None = None) -> None:
        self.size = size
        self._weights: Weights = {} if weights is None else weights
        self._used = 0
        self._now = 0.0
        self._ends: dict[str, float] = {}
        self._waiting: list[_Wish] = []
        self._arrivals = 0

    @property
    def used(self) -> int:
        """How much is taken now."""
        return self._used

    @property
    def waiting(self) -> int:
        """How many wishes wait."""
        return len(self._waiting)

    async def take(self, size: int, mailbox: str = "", *, charge: float | None = None) -> int:
        """Wait for room: how much was taken, to be given back. A wish larger than the whole is granted alone, and
        gets the whole.

        ``charge``: what counts against the mailbox's share; ``size`` unless it says otherwise. A wish that is cancelled
        leaves no trace.
        """
        size = min(size, self.size)
        cost = (size if charge is None else charge) / self._weights.get(mailbox, WEIGHTS["medium"])
        start = max(self._now, self._ends.get(mailbox, 0.0))
        end = self._ends[mailbox] = start + cost
        if not self._waiting and self._fits(size):
            self._grant(start, size)
            return size
        self._arrivals += 1
        wish = _Wish(end, self._arrivals, start, size, asyncio.get_running_loop().create_future())
        insort(self._waiting, wish)
        try:
            await wish.granted
        except asyncio.CancelledError:
            self._ends[mailbox] -= cost
            if wish in self._waiting:
                self._waiting.remove(wish)
                self._hand_out()
            else:
                self.give_back(size)
            raise
        return size

    def give_back(self, size: int) -> None:
        """Return what :meth:`take` gave."""
        self._used -= size
        self._hand_out()

    def _fits(self, size: int) -> bool:
        return self._used + size <= self.size

    def _grant(self, start: float, size: int) -> None:
        self._used += size
        self._now = max(self._now, start)

    def _hand_out(self) -> None:
        while self._waiting and self._fits(self._waiting[0].size):
            wish = self._waiting.pop(0)
            self._grant(wish.start, wish.size)
            if not wish.granted.cancelled():
                wish.granted.set_result(None)


class Turns:
    """So many places; each is somebody's for as long as a block of code takes."""

    def __init__(self, places: int, weights: Weights | None = None) -> None:
        self._room = FairShare(places, weights)

    @property
    def taken(self) -> int:
        """Places that are somebody's now."""
        return self._room.used

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return self._room.waiting

    @contextlib.asynccontextmanager
    async def turn(self, mailbox: str, charge: float = 1.0) -> AsyncIterator[None]:
        """Wait for a place and keep it for the block. ``charge``: how much work it is, say in messages."""
        async with self._places(1, mailbox, charge):
            yield

    @contextlib.asynccontextmanager
    async def alone(self, mailbox: str, charge: float = 1.0) -> AsyncIterator[None]:
        """As :meth:`turn`, with every place there is: nobody else has one meanwhile."""
        async with self._places(self._room.size, mailbox, charge):
            yield

    @contextlib.asynccontextmanager
    async def _places(self, size: int, mailbox: str, charge: float) -> AsyncIterator[None]:
        await self._room.take(size, mailbox, charge=charge)
        try:
            yield
        finally:
            self._room.give_back(size)
