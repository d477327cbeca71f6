"""Fetching batches, one behind the other, and what is made of what did not come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Gone, MessageRef
from mailpoller.core.ports import Backlog, Progressing, Session
from mailpoller.core.spool import MEMORY_THRESHOLD
from mailpoller.engine.agenda import Agenda
from mailpoller.engine.budget import Budget
from mailpoller.engine.claims import Claimant
from mailpoller.engine.doubt import Doubt
from mailpoller.engine.hand import Hand, Pass

DOUBTED_S = 0.4
"""What is in doubt and silent for so long, or twice as long, is given up."""
PATIENT = 5
"""But every fifth time that a message is asked for it has all the time there is: it may only be slow."""
SILENT = "silence in answer to what may take the session with it"


async def wary(now: Pass, hand: Hand, walk: asyncio.Task[None], give_up: Callable[[str], bool]) -> None:
    """Wait for the end of a batch that may bring the session to a standstill: new mail is not to wait for it."""
    heard: int | None = None
    while not walk.done():
        await asyncio.wait([walk], timeout=DOUBTED_S)
        asked = hand.reservation is not None and hand.missing
        if walk.done() or not asked or not isinstance(now.session, Progressing):
            continue
        if any((claim.blame + 1) % PATIENT == 0 for claim in hand.claims):
            continue
        if heard == now.session.octets_in:
            give_up(SILENT)
        heard = now.session.octets_in


class Fetcher:
    """The stations of one mailbox that ask for octets and receive them. ``largest``: what is fetched of one at
    most."""

    def __init__(
        self,
        mailbox: str,
        *,
        backlog: Backlog,
        claims: Claimant,
        doubt: Doubt,
        agenda: Agenda,
        budget: Budget,
        largest: int,
    ) -> None:
        self._mailbox = mailbox
        self._backlog = backlog
        self._claims = claims
        self._doubt = doubt
        self._agenda = agenda
        self._budget = budget
        self._largest = largest

    async def ask(self, now: Pass, hand: Hand) -> None:
        """Begin to fetch while the batch before it is still fetched, so that the line to the server is never idle."""
        if not hand.claims:
            return
        if now.over or self._agenda.has_to_end():
            await self._claims.put_down(hand.claims)
            hand.claims = []
            return
        hand.fetching = now.tasks.create_task(self._fetch_ahead(now, hand), name=f"fetch {self._mailbox}")
        now.fetching.add(hand.fetching)

    async def receive(self, now: Pass, hand: Hand) -> None:
        """Wait until everything that was asked for has come, or will not."""
        if hand.fetching is not None:
            await asyncio.wait([hand.fetching])
            if hand.fetching.cancelled() and now.given_up is not None:
                hand.trouble = now.given_up
            await self._account(now, hand)

    async def _fetch_ahead(self, now: Pass, hand: Hand) -> None:
        try:
            await self.fetch(now.session, hand, self._largest)
        except Exception as error:
            now.fail(error)

    async def fetch(self, session: Session, hand: Hand, limit: int) -> None:
        """Fetch every claim into the hand; what is missing then, and why, is noted there."""
        room = sum(min(self._agenda.expected(claim.ref), MEMORY_THRESHOLD) for claim in hand.claims)
        hand.missing = {claim.mid: claim for claim in hand.claims}
        hand.reservation = await self._budget.reserve(room)
        try:
            async for answer in session.fetch(hand.claims, limit):
                hand.missing.pop(answer.claim.mid, None)
                if isinstance(answer, Gone):
                    hand.gone.append(answer.claim)
                else:
                    hand.fetched.append(answer)
        except TransientError as error:
            hand.trouble = error

    async def _account(self, now: Pass, hand: Hand) -> None:
        """What is missing is put off or, if the session was lost, given back.

        In the order of the line: when two batches were asked for, the session was lost with the first of them.
        """
        hand.accounted = True
        self._doubt.cleared([raw.claim.ref for raw in hand.fetched] + [claim.ref for claim in hand.gone])
        left = list(hand.missing.values())
        lost = hand.trouble if isinstance(hand.trouble, SessionLost) else None
        # What is in doubt is asked for alone: whoever was the first to notice, the session was lost with it.
        first = now.lost is None or hand.batch.doubted
        if left and now.failure is None:
            if lost is None:
                reason = str(hand.trouble or "the server did not answer for it")
                await self._claims.unfetchable(left, reason, now.tally, hand.trouble)
                now.undated += [claim.ref for claim in left if claim.ref.received is None]
            elif lost.retry_after is not None:
                # The server wants to be left alone, whatever it was asked for.
                await self._claims.put_down(left)
            elif first and await self.to_blame([claim.ref for claim in left]):
                await self._claims.unfetchable(left, "the session is lost whenever it is fetched", now.tally, None)
            else:
                await self._claims.put_down(left)
        if lost is not None:
            now.sacrificed = now.sacrificed or (hand.batch.doubted and lost.retry_after is None)
            now.fail(lost)

    async def to_blame(self, refs: Sequence[MessageRef]) -> bool:
        """The session was lost while these had been asked for: kept, for the next process too.
        True if it is one that was in doubt."""
        guilty = self._doubt.lost(refs)
        await self._backlog.blame(refs)
        if guilty and (absolved := self._doubt.absolved()):
            await self._backlog.absolve(absolved)
        return guilty
