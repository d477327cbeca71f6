"""How many octets of mail are in hand at once: reserved before they are fetched, per mailbox and for the process."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque


class Budget:
    """A bound on octets, handed out in order of asking.

    A wish larger than the whole is granted alone, so that every message can be worked on. ``parent`` is a wider bound
    (the process) that every grant also counts against.
    """

    def __init__(self, size: int, parent: Budget | None = None) -> None:
        self._size = size
        self._used = 0
        self._parent = parent
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Octets that are reserved now."""
        return self._used

    async def reserve(self, octets: int) -> Reservation:
        """Wait for room; in order of asking, so that a large wish is never overtaken for ever."""
        wish = min(octets, self._size)
        if self._waiting or self._used + wish > self._size:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((wish, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_back(wish)
                else:
                    # Its turn may have come, and gone, between the cancelling and now.
                    with contextlib.suppress(ValueError):
                        self._waiting.remove((wish, turn))
                    self._wake()
                raise
        else:
            self._used += wish
        above = None
        if self._parent is not None:
            try:
                above = await self._parent.reserve(octets)
            except asyncio.CancelledError:
                self._give_back(wish)
                raise
        return Reservation(self, wish, above)

    def _give_back(self, octets: int) -> None:
        self._used -= octets
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._used + self._waiting[0][0] <= self._size:
            wish, turn = self._waiting.popleft()
            if not turn.done():
                self._used += wish
                turn.set_result(None)


class Reservation:
    """Octets that somebody holds; given back once, by :meth:`release`."""

    __slots__ = ("_above", "_budget", "_octets")

    def __init__(self, budget: Budget, octets: int, above: Reservation | None) -> None:
        self._budget = budget
        self._octets = octets
        self._above = above

    def release(self) -> None:
        """Give the octets back. Harmless when repeated."""
        octets, self._octets = self._octets, 0
        self._budget._give_back(octets)
        if self._above is not None:
            self._above.release()
