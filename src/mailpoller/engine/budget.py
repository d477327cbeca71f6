"""How many octets of mail are in hand at once: reserved before they are fetched, per mailbox and for the process."""

from __future__ import annotations

import asyncio

from mailpoller.engine.turns import FairShare, Weights

LEAST_CHARGE = 64
"""A reservation counts for a 64th of the whole at least: a batch of small messages is work as well."""

SMALL = 8
"""What is at most an eighth of the octets kept aside is small."""


class Budget:
    """A bound on octets, handed out fairly by the mailboxes' weights; see :class:`~mailpoller.engine.turns.FairShare`.

    A wish larger than the whole is granted alone, so that every message can be worked on. ``parent`` is a wider bound
    (the process) that every grant also counts against, on ``mailbox``'s account. ``aside`` octets of the whole are
    kept for small wishes: what is fetched in no time never waits for many large batches on slow lines.
    """

    def __init__(
        self,
        size: int,
        parent: Budget | None = None,
        *,
        mailbox: str = "",
        weights: Weights | None = None,
        aside: int = 0,
    ) -> None:
        self._mailbox = mailbox
        self._parent = parent
        self._large = FairShare(size - aside, weights)
        self._small = FairShare(aside, weights)

    @property
    def used(self) -> int:
        """Octets that are reserved now."""
        return self._large.used + self._small.used

    @property
    def waiting(self) -> int:
        """How many wishes wait here, not counting the parent's."""
        return self._large.waiting + self._small.waiting

    async def reserve(self, octets: int) -> Reservation:
        """Wait for room, in turn; a large wish is never overtaken for ever."""
        return await self._reserve(octets, self._mailbox)

    async def _reserve(self, octets: int, mailbox: str) -> Reservation:
        room = self._small if octets * SMALL <= self._small.size else self._large
        taken = await room.take(octets, mailbox, charge=max(octets, room.size / LEAST_CHARGE))
        above = None
        if self._parent is not None:
            try:
                above = await self._parent._reserve(octets, mailbox)
            except asyncio.CancelledError:
                room.give_back(taken)
                raise
        return Reservation(room, taken, above)


class Reservation:
    """Octets that somebody holds; given back once, by :meth:`release`."""

    __slots__ = ("_above", "_octets", "_room")

    def __init__(self, room: FairShare, octets: int, above: Reservation | None) -> None:
        self._room = room
        self._octets = octets
        self._above = above

    def release(self) -> None:
        """Give the octets back. Harmless when repeated."""
        octets, self._octets = self._octets, 0
        self._room.give_back(octets)
        if self._above is not None:
            self._above.release()
