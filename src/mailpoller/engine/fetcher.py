"""Fetching batches, one behind the other, and what is made of what did not come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Gone, MessageRef
from mailpoller.core.ports import Backlog, Progressing, Session
from mailpoller.core.spool import MEMORY_THRESHOLD
from mailpoller.engine.batcher import Batcher
from mailpoller.engine.budget import Budget
from mailpoller.engine.claimant import Claimant
from mailpoller.engine.hangup_suspects import HangupSuspects
from mailpoller.engine.in_flight import InFlight, Pass

DOUBTED_S = 0.4
"""What is in doubt and silent for so long, or twice as long, is given up."""
PATIENT = 5
"""But every fifth time that a message is asked for it has all the time there is: it may only be slow."""
SILENT = "silence in answer to what may take the session with it"


async def wary(now: Pass, in_flight: InFlight, walk: asyncio.Task[None], give_up: Callable[[str], bool]) -> None:
    """Wait for the end of a batch that may bring the session to a standstill: new mail is not to wait for it."""
    heard: int | None = None
    while not walk.done():
        await asyncio.wait([walk], timeout=DOUBTED_S)
        asked = in_flight.reservation is not None and in_flight.missing
        if walk.done() or not asked or not isinstance(now.session, Progressing):
            continue
        if any((claim.blame + 1) % PATIENT == 0 for claim in in_flight.claims):
            continue
        if heard == now.session.octets_in:
            give_up(SILENT)
        heard = now.session.octets_in


class Fetcher:
    """The stages of one mailbox that ask for octets and receive them. ``largest``: what is fetched of one at
    most."""

    def __init__(
        self,
        mailbox: str,
        *,
        backlog: Backlog,
        claims: Claimant,
        hangup_suspects: HangupSuspects,
        batcher: Batcher,
        budget: Budget,
        largest: int,
    ) -> None:
        self._mailbox = mailbox
        self._backlog = backlog
        self._claims = claims
        self._hangup_suspects = hangup_suspects
        self._batcher = batcher
        self._budget = budget
        self._largest = largest

    async def ask(self, now: Pass, in_flight: InFlight) -> None:
        """Begin to fetch while the batch before it is still fetched, so that the line to the server is never idle."""
        if not in_flight.claims:
            return
        if now.over or self._batcher.has_to_end():
            await self._claims.put_down(in_flight.claims)
            in_flight.claims = []
            return
        in_flight.fetching = now.tasks.create_task(self._fetch_ahead(now, in_flight), name=f"fetch {self._mailbox}")
        now.fetching.add(in_flight.fetching)

    async def receive(self, now: Pass, in_flight: InFlight) -> None:
        """Wait until everything that was asked for has come, or will not."""
        if in_flight.fetching is not None:
            await asyncio.wait([in_flight.fetching])
            if in_flight.fetching.cancelled() and now.given_up is not None:
                in_flight.trouble = now.given_up
            await self._account(now, in_flight)

    async def _fetch_ahead(self, now: Pass, in_flight: InFlight) -> None:
        try:
            await self.fetch(now.session, in_flight, self._largest)
        except Exception as error:
            now.fail(error)

    async def fetch(self, session: Session, in_flight: InFlight, limit: int) -> None:
        """Fetch every claim into the hand; what is missing then, and why, is noted there."""
        room = sum(min(self._batcher.expected(claim.ref), MEMORY_THRESHOLD) for claim in in_flight.claims)
        in_flight.missing = {claim.mid: claim for claim in in_flight.claims}
        in_flight.reservation = await self._budget.reserve(room)
        try:
            async for answer in session.fetch(in_flight.claims, limit):
                in_flight.missing.pop(answer.claim.mid, None)
                if isinstance(answer, Gone):
                    in_flight.gone.append(answer.claim)
                else:
                    in_flight.fetched.append(answer)
        except TransientError as error:
            in_flight.trouble = error

    async def _account(self, now: Pass, in_flight: InFlight) -> None:
        """What is missing is put off or, if the session was lost, given back.

        In the order of the line: when two batches were asked for, the session was lost with the first of them.
        """
        in_flight.accounted = True
        self._hangup_suspects.cleared(
            [raw.claim.ref for raw in in_flight.fetched] + [claim.ref for claim in in_flight.gone]
        )
        left = list(in_flight.missing.values())
        lost = in_flight.trouble if isinstance(in_flight.trouble, SessionLost) else None
        # What is in doubt is asked for alone: whoever was the first to notice, the session was lost with it.
        first = now.lost is None or in_flight.batch.doubted
        if left and now.failure is None:
            if lost is None:
                reason = str(in_flight.trouble or "the server did not answer for it")
                await self._claims.unfetchable(left, reason, now.result, in_flight.trouble)
                now.undated += [claim.ref for claim in left if claim.ref.received is None]
            elif lost.retry_after is not None:
                # The server wants to be left alone, whatever it was asked for.
                await self._claims.put_down(left)
            elif first and await self.to_blame([claim.ref for claim in left]):
                await self._claims.unfetchable(left, "the session is lost whenever it is fetched", now.result, None)
            else:
                await self._claims.put_down(left)
        if lost is not None:
            now.sacrificed = now.sacrificed or (in_flight.batch.doubted and lost.retry_after is None)
            now.fail(lost)

    async def to_blame(self, refs: Sequence[MessageRef]) -> bool:
        """The session was lost while these had been asked for: kept, for the next process too.
        True if it is one that was in doubt."""
        guilty = self._hangup_suspects.lost(refs)
        await self._backlog.blame(refs)
        if guilty and (absolved := self._hangup_suspects.absolved()):
            await self._backlog.absolve(absolved)
        return guilty
