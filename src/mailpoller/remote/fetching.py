"""Fetching for somebody who takes what has come when he likes: reading never waits for whoever consumes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from mailpoller.core.errors import MachineTrouble, SessionLost, TransientError
from mailpoller.core.message import Claim, Gone, RawMessage
from mailpoller.core.tasks import TaskGroup
from mailpoller.remote.throttle import Busy


class Fetching(ABC):
    """The fetching of some claims; a subclass says how. What could not be had is in ``failed``: uid -> why."""

    def __init__(self, claims: Sequence[Claim]) -> None:
        self.failed: dict[str, TransientError] = {}
        self._count = len(claims)
        self._arrived: deque[RawMessage | Gone] = deque()
        self._news = asyncio.Event()

    async def answers(self, name: str) -> AsyncGenerator[RawMessage | Gone, None]:
        """Every answer as it comes; all is read to the end, in a task called ``name``, however slowly it is taken.

        Raises :class:`SessionLost` and :class:`CredentialsRefused`, and :class:`TransientError` after all that could
        be had if something could not.
        """
        reading = asyncio.create_task(self._run(), name=name)
        try:
            while True:
                while self._arrived:
                    yield self._arrived.popleft()
                if reading.done():
                    break
                self._news.clear()
                await self._news.wait()
            await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            self._drop()
        if self.failed:
            error = next(iter(self.failed.values()))
            kind = (
                MachineTrouble
                if any(isinstance(one, MachineTrouble) for one in self.failed.values())
                else TransientError
            )
            raise kind(
                f"{len(self.failed)} of {self._count} messages cannot be fetched: {error}",
                retry_after=error.retry_after,
            )

    @abstractmethod
    async def _fetch_all(self) -> None:
        """Fetch everything: give each answer to :meth:`_arrive`, or put the reason why there is none into ``failed``.

        Raises :class:`SessionLost` and :class:`CredentialsRefused`.
        """

    def _arrive(self, answer: RawMessage | Gone) -> None:
        self._arrived.append(answer)
        self._news.set()

    async def _run(self) -> None:
        try:
            await self._fetch_all()
        finally:
            self._news.set()

    def _drop(self) -> None:
        """Close what nobody will take."""
        while self._arrived:
            answer = self._arrived.popleft()
            if isinstance(answer, RawMessage):
                answer.octets.close()


class FetchingAbreast(Fetching):
    """One request for each message, ``at_once`` of them under way."""

    def __init__(self, claims: Sequence[Claim], at_once: int) -> None:
        super().__init__(claims)
        self._at_once = at_once
        self._waiting = deque(claims)

    @abstractmethod
    async def _fetch(self, claim: Claim) -> RawMessage | Gone:
        """Fetch one. Raises as :meth:`_fetch_all`; :class:`Busy` if no other would be had now, else
        :class:`TransientError`."""

    async def _fetch_all(self) -> None:
        try:
            async with TaskGroup() as group:
                for number in range(min(self._at_once, len(self._waiting))):
                    group.create_task(self._work(), name=f"fetch a message {number}")
        except ExceptionGroup as several:
            lost = next((one for one in several.exceptions if isinstance(one, SessionLost)), None)
            raise lost or several.exceptions[0] from None

    async def _work(self) -> None:
        while self._waiting:
            claim = self._waiting.popleft()
            try:
                self._arrive(await self._fetch(claim))
            except SessionLost:
                raise
            except Busy as error:
                # Nobody is served now: what is left is not asked for.
                self.failed[claim.ref.uid] = error
                while self._waiting:
                    self.failed[self._waiting.popleft().ref.uid] = error
            except TransientError as error:
                self.failed[claim.ref.uid] = error
