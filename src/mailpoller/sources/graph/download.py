"""Fetching messages: four at a time, each straight into the spool, and cut at the limit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import quote

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Gone, RawMessage
from mailpoller.core.spool import Spool
from mailpoller.sources.graph.listing import PROPERTIES, item_of
from mailpoller.transport.graph import Ask, Busy, Denied, GraphClient, Missing
from mailpoller.transport.graph.client import BATCHED
from mailpoller.transport.graph.gate import AT_ONCE

Facts = tuple[datetime | None, tuple[str, ...]]
"""When the service received a message, and its flags."""

DOING = "fetch a message"


class Download:
    """The fetching of some claims. :meth:`run` reads to the end whatever becomes of the consumer, who takes from ``arrived`` whenever
    ``news`` is set; what could not be had is in ``failed``: uid -> why. ``facts``: of those that were listed lately.
    """

    def __init__(
        self, client: GraphClient, spool: Spool, claims: Sequence[Claim], limit: int, facts: Mapping[str, Facts]
    ) -> None:
        self.arrived: deque[RawMessage | Gone] = deque()
        self.news = asyncio.Event()
        self.failed: dict[str, TransientError] = {}
        self._client = client
        self._spool = spool
        self._limit = limit
        self._facts = {claim.ref.uid: found for claim in claims if (found := facts.get(claim.ref.uid)) is not None}
        self._waiting = deque(claims)

    async def run(self) -> None:
        """Fetch everything. Raises :class:`SessionLost` and :class:`CredentialsRefused`, the first that occurs."""
        try:
            await self._learn()
            async with asyncio.TaskGroup() as group:
                for number in range(min(AT_ONCE, len(self._waiting))):
                    group.create_task(self._work(), name=f"{DOING} {number}")
        except ExceptionGroup as several:
            lost = next((one for one in several.exceptions if isinstance(one, SessionLost)), None)
            raise lost or several.exceptions[0] from None
        finally:
            self.news.set()

    def drop(self) -> None:
        """Close what nobody will take."""
        while self.arrived:
            answer = self.arrived.popleft()
            if isinstance(answer, RawMessage):
                answer.octets.close()

    async def _learn(self) -> None:
        """Ask about those that were not listed lately: they were put off before, or an earlier process listed them."""
        unknown = [claim for claim in self._waiting if claim.ref.uid not in self._facts]
        for first in range(0, len(unknown), BATCHED):
            asked = unknown[first : first + BATCHED]
            asks = [Ask("GET", f"/messages/{quote(one.ref.uid, safe='')}?$select={PROPERTIES}") for one in asked]
            for claim, answer in zip(asked, await self._client.batch(asks, "look at messages"), strict=True):
                if answer.gone:
                    self._waiting.remove(claim)
                    self._arrive(Gone(claim))
                elif answer.ok:
                    item = item_of(answer.body)
                    self._facts[claim.ref.uid] = item.received, item.flags

    async def _work(self) -> None:
        while self._waiting:
            claim = self._waiting.popleft()
            try:
                self._arrive(await self._fetch(claim))
            except SessionLost:
                raise
            except Denied as error:
                # Rights and labels may keep one message from us, which must not stop the others.
                self.failed[claim.ref.uid] = TransientError(str(error))
            except Busy as error:
                # Nobody is served now: what is left is not asked for.
                self.failed[claim.ref.uid] = error
                while self._waiting:
                    self.failed[self._waiting.popleft().ref.uid] = error
            except TransientError as error:
                self.failed[claim.ref.uid] = error

    async def _fetch(self, claim: Claim) -> RawMessage | Gone:
        intake = self._spool.begin(self._limit)
        try:
            await self._client.download(claim.ref.uid, intake, DOING)
        except BaseException as error:
            intake.abort()
            if isinstance(error, Missing) and error.item:
                return Gone(claim)
            raise
        if not intake.size and not intake.overflowed:
            intake.abort()
            raise TransientError("the service gives no content for it")
        received, flags = self._facts.get(claim.ref.uid, (None, ()))
        return RawMessage(claim, intake.finish(), truncated=intake.overflowed, received=received, flags=flags)

    def _arrive(self, answer: RawMessage | Gone) -> None:
        self.arrived.append(answer)
        self.news.set()
