"""Fetching batches, one behind the other, and what is made of what did not come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import Claim, Gone, MessageRef, RawMessage
from mailpoller.core.ports import Backlog, Progressing, Session
from mailpoller.core.spool import MEMORY_THRESHOLD
from mailpoller.engine.batcher import Batcher
from mailpoller.engine.budget import Budget
from mailpoller.engine.claimant import Claimant
from mailpoller.engine.hangup_suspects import HangupSuspects
from mailpoller.engine.in_flight import InFlight, Pass
from mailpoller.engine.side_session import SideSession

DOUBTED_S = 0.4
"""What is in doubt and silent for so long, or twice as long, is given up."""
PATIENT = 5
"""But every fifth time that a message is asked for it has all the time there is: it may only be slow. Where the source
allows it, in a session beside this one."""
BESIDE_AGAIN = timedelta(seconds=10)
"""After so long it is looked whether that one has brought it."""
SILENT = "silence in answer to what may take the session with it"
BESIDE = "it is waited for in a session of its own"


async def wary(now: Pass, in_flight: InFlight, walk: asyncio.Task[None], give_up: Callable[[str], bool]) -> None:
    """Wait for the end of a batch that may bring the session to a standstill: new mail is not to wait for it."""
    heard: int | None = None
    while not walk.done():
        await asyncio.wait([walk], timeout=DOUBTED_S)
        asked = in_flight.reservation is not None and in_flight.missing
        if walk.done() or not asked or not isinstance(now.session, Progressing):
            continue
        if any(_has_time(claim) for claim in in_flight.claims):
            continue
        if heard == now.session.octets_in:
            give_up(SILENT)
        heard = now.session.octets_in


class Fetcher:
    """The stages of one mailbox that ask for octets and receive them. ``largest``: what is fetched of one at
    most. ``beside``: for what may only be slow."""

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
        beside: SideSession | None = None,
    ) -> None:
        self._mailbox = mailbox
        self._beside = beside
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
            if self._beside is not None and self._beside.ready and _slow(in_flight):
                await self._fetch_beside(self._beside, in_flight)
            else:
                await self.fetch(now.session, in_flight, self._largest)
        except Exception as error:
            now.fail(error)

    async def _fetch_beside(self, beside: SideSession, in_flight: InFlight) -> None:
        """As :meth:`fetch`; but another session asks, and this one never waits for it."""
        (claim,) = in_flight.claims
        in_flight.missing = {claim.mid: claim}
        in_flight.beside = True
        match beside.answer(claim, self._largest, self._budget):
            case None:
                return
            case Gone():
                in_flight.gone.append(claim)
                in_flight.missing = {}
            case RawMessage() as raw:
                in_flight.fetched.append(replace(raw, claim=claim))
                in_flight.missing = {}
            case trouble:
                in_flight.trouble = trouble

    async def fetch(self, session: Session, in_flight: InFlight, limit: int) -> None:
        """Fetch every claim into the hand; what is missing then, and why, is noted there."""
        most = min(self._largest, MEMORY_THRESHOLD)
        sizes = [claim.ref.size for claim in in_flight.claims]
        room = sum([most if size is None or size > most else size for size in sizes])
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
        if in_flight.beside:
            await self._account_beside(now, in_flight, left, lost)
            return
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

    async def _account_beside(
        self, now: Pass, in_flight: InFlight, left: Sequence[Claim], lost: SessionLost | None
    ) -> None:
        """What another session was asked for; it is not this one that is lost."""
        if not left or now.failure is not None:
            return
        if lost is not None:
            await self.to_blame([claim.ref for claim in left])
            await self._claims.unfetchable(left, str(lost), now.result, None)
            return
        self._hangup_suspects.untried([claim.ref for claim in left])
        if in_flight.trouble is not None:
            await self._claims.unfetchable(left, str(in_flight.trouble), now.result, in_flight.trouble)
        else:
            await self._claims.unfetchable(left, BESIDE, now.result, None, again=BESIDE_AGAIN)

    async def to_blame(self, refs: Sequence[MessageRef]) -> bool:
        """The session was lost while these had been asked for: kept, for the next process too.
        True if it is one that was in doubt."""
        guilty = self._hangup_suspects.lost(refs)
        await self._backlog.blame(refs)
        if guilty and (absolved := self._hangup_suspects.absolved()):
            await self._backlog.absolve(absolved)
        return guilty


def _has_time(claim: Claim) -> bool:
    """True if it is asked for with all the time there is."""
    return (claim.blame + 1) % PATIENT == 0


def _slow(in_flight: InFlight) -> bool:
    """True if the batch is one message that may only be slow."""
    return in_flight.batch.doubted and len(in_flight.claims) == 1 and _has_time(in_flight.claims[0])
