"""Carries one mailbox's messages, batch after batch, from claim to settlement."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

import structlog

from mailpoller.core.errors import LedgerUnavailable, Sacrificed, SessionLost
from mailpoller.core.message import Folder, Page, Position
from mailpoller.core.ports import Clock, Session, Start
from mailpoller.core.source_config import SourceConfig
from mailpoller.core.spool import MEMORY_THRESHOLD
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.ageing import Ageing
from mailpoller.engine.batcher import Batch, Batcher, Limits, Stop, Wanted, pages_of
from mailpoller.engine.bringing import Bringing
from mailpoller.engine.budget import Budget
from mailpoller.engine.claimant import Claimant
from mailpoller.engine.conclusion import Conclusions
from mailpoller.engine.dispatcher import Dispatcher
from mailpoller.engine.dispositions import Dispositions
from mailpoller.engine.fetcher import Fetcher, wary
from mailpoller.engine.hangup_suspects import HangupSuspects
from mailpoller.engine.in_flight import UNTOLD, InFlight, Pass, Telling
from mailpoller.engine.judge import Judge
from mailpoller.engine.observer import Observer
from mailpoller.engine.outcomes import LogRate
from mailpoller.engine.pass_result import PassResult
from mailpoller.engine.records import Records
from mailpoller.engine.row import row_of
from mailpoller.engine.side_session import SideSession
from mailpoller.engine.stages import Stages, StageSlot
from mailpoller.engine.taking import Taking

log = structlog.get_logger(__name__)

UNFETCHED_COUNTED = 10_000
"""Messages that wait on the server, as far as they are counted."""
MOST_ABSENT = 5000
"""Messages that were listed and are not there: with so many of them a pass ends, and the next one goes on."""
POISON_HEAD = 64_000
"""Octets that are fetched of a large message that is quarantined unparsed."""


HEIRLESS = 10_000
"""Messages that are remembered because a queue may hold them, though their names are gone."""


def _require(now: Pass) -> None:
    """Raise if the pass has lost its session."""
    if now.lost is not None and now.sacrificed:
        raise Sacrificed(str(now.lost)) from now.lost
    if now.lost is not None:
        raise now.lost


class BatchRunner:
    """Carries one mailbox's messages: claim, fetch, judge, dispatch, settle.

    ``reachable``: the names of the queues that this mailbox's mail can go to, or None if that cannot be told; when
    all of them are down, nothing new is downloaded.
    """

    def __init__(
        self,
        mailbox: str,
        config: SourceConfig,
        *,
        judge: Judge,
        dispatcher: Dispatcher,
        records: Records,
        budget: Budget,
        clock: Clock,
        limits: Limits,
        stop: Stop,
        reachable: frozenset[str] | None = None,
        observer: Observer,
        log_rate: LogRate | None = None,
        prudent: Clock | None = None,
        beside: SideSession | None = None,
    ) -> None:
        self._mailbox = mailbox
        self._largest = config.max_message_size
        self._judge = judge
        self._dispatcher = dispatcher
        self._records = records
        self._observer = observer
        self._log_rate = log_rate
        self._claims = Claimant(mailbox, records=records, clock=clock, observer=observer, at_once=limits.batch_messages)
        self._hangup_suspects = HangupSuspects()
        self._conclusions = Conclusions(
            mailbox,
            config,
            records=records,
            dispatcher=dispatcher,
            claims=self._claims,
            clock=clock,
            observer=observer,
        )
        self._recalled: set[Folder] = set()
        self._pass: Pass | None = None
        """The one that is under way."""
        self._ageing = Ageing(
            mailbox, config, records=records, dispatcher=dispatcher, clock=prudent or clock, reachable=reachable
        )
        self._dispositions = Dispositions(mailbox, records=records, observer=observer)
        self._batcher = Batcher(
            mailbox,
            backlog=records.backlog,
            dispatcher=dispatcher,
            hangup_suspects=self._hangup_suspects,
            limits=limits,
            stop=stop,
            reachable=reachable,
            largest=config.max_message_size,
            in_hand=lambda: len(self.row) + UNTOLD,
            skip=self._claims.skip,
            listed=observer.listed,
        )
        self._fetcher = Fetcher(
            mailbox,
            backlog=records.backlog,
            claims=self._claims,
            hangup_suspects=self._hangup_suspects,
            batcher=self._batcher,
            budget=budget,
            largest=config.max_message_size,
            beside=beside,
        )
        taking = Taking(self._claims, dispatcher, self._hangup_suspects, records)
        bringing = Bringing(
            mailbox,
            claims=self._claims,
            conclusions=self._conclusions,
            dispatcher=dispatcher,
            dispositions=self._dispositions,
            observer=observer,
            records=records,
            clock=clock,
            log_rate=log_rate,
        )
        self.row = row_of(taking, self._fetcher, judge, bringing)
        """What each batch goes through."""

    def take_over(self, former: BatchRunner) -> None:
        """Give back, before the next pass, the claims that ``former`` could not: it carried this mailbox's mail, and
        has ended."""
        self._claims.open.update(former._claims.open)

    @property
    def holds_claims(self) -> bool:
        """True if some are in hand; after a pass, if the ledger could not be told that they are given back."""
        return bool(self._claims.open)

    def give_up(self, reason: str) -> bool:
        """Give up what is being fetched, as if the session were lost with it: what has come is finished, what has not
        is in doubt, and what the server was being told is told again. False if nothing is being fetched, or that was
        done in this pass already."""
        now = self._pass
        if now is None or now.given_up is not None or all(task.done() for task in now.fetching):
            return False
        now.given_up = SessionLost(reason)
        for task in now.fetching:
            task.cancel()
        if now.telling is not None:
            now.telling.cancel()
        return True

    def begin_anew(self, folder: Folder) -> None:
        """The folder's numbering was set back. A name that stayed in doubt here would be passed over by the listing,
        although nothing under it is recorded yet. Whoever keeps his name is to blame still, as his claim says."""
        self._hangup_suspects.forget(folder)

    # --- a pass ------------------------------------------------------------------------------------------------
    async def carry(
        self,
        session: Session,
        folder: Folder,
        since: Position | None,
        start: Start,
        *,
        suppress: bool,
        accepted: bool = False,
        wanted: Wanted = None,
        planned: Sequence[Page] = (),
        listed: bool = False,
        heirless: bool = False,
        quiet: bool = False,
    ) -> PassResult:
        """Work through all that is due and pending in the open folder, and say what it came to.

        Several batches are under way at once, one behind the other; no more than four hold octets. ``suppress``:
        this is the first full listing after an epoch change, so octets that were settled before are not delivered
        again. ``accepted``: an operator said that what is absent is gone. ``wanted``: which of the listed messages
        are worked on, or None for all. ``planned``: pages that are worked on before the folder is listed;
        with ``listed`` they are all of it. ``heirless``: what is new by name may be a message that was on its way
        under another (``Ledger.heirless``). ``quiet``: no sender is owed an acknowledgement by it.
        Ends early, between batches, when the service stops.
        However it ends, no claim stays in hand.
        """
        result = PassResult()
        if self._claims.open:
            await self._claims.put_down(list(self._claims.open.values()))
        try:
            await self._recall(folder)
            if not suppress:
                await self._ageing.bring_due(folder)
            await self._carry_suspects(session, folder, suppress, result, accepted=accepted, quiet=quiet)
            now = self._pass = Pass(session, folder, suppress, result, quiet, accepted=accepted)
            if heirless:
                now.heirless += await self._records.bearers.heirless(folder, limit=HEIRLESS, earlier=suppress)
            pages = pages_of(session, folder, since, start, planned, listed)
            async with aclosing(self._batcher.batches(folder, pages, result, wanted, whole=since is None)) as batches:
                await self._carry_batches(now, batches)
            await self._conclusions.conclude(now)
            if not now.absent:
                await self._conclusions.over(folder)
            if absolved := self._hangup_suspects.absolved():
                await self._records.backlog.absolve(absolved)
            unfetched = 0
            if self._batcher.only_waits() and not quiet:  # a new numbering is listed once, however long that lasts
                unfetched = await self._unfetched(pages_of(session, folder, since, start, planned, listed), wanted)
            self._observer.unfetched(folder, unfetched)
        finally:
            if self._log_rate is not None:
                self._log_rate.sum_up()
            last, self._pass = self._pass, None
            if last is not None and last.unaccounted:
                # Cancelled, for even giving up did not help.
                with contextlib.suppress(LedgerUnavailable):
                    await self._fetcher.to_blame([claim.ref for claim in last.unaccounted])
            if self._claims.open:
                # A ledger that cannot commit now keeps them open; the next pass gives them back first.
                with contextlib.suppress(LedgerUnavailable):
                    await self._claims.put_down(list(self._claims.open.values()))
        return result

    async def _unfetched(self, pages: AsyncGenerator[Page, None], wanted: Wanted) -> int:
        """How much of a listing the ledger does not know yet, counted to :data:`UNFETCHED_COUNTED`: it waits on the
        server while nothing is fetched, and nobody else counts it."""
        count = 0
        async with aclosing(pages) as listing:
            async for page in listing:
                self._observer.progressed()
                refs = page.refs if wanted is None else [ref for ref in page.refs if wanted(ref)]
                count += sum(sight.state == "unknown" for sight in await self._records.bearers.recognise(refs))
                if count >= UNFETCHED_COUNTED or not self._batcher.only_waits():
                    break
        return count

    async def plan(self, session: Session, folder: Folder, start: Start, wanted: Wanted = None) -> list[Page]:
        """List the folder for the first time and keep what that shows, before any of it is worked on: what ``start``
        wants is decided once, whatever becomes of the messages' flags, of the queues and of us.
        The pages are for :meth:`carry`."""
        pages: list[Page] = []
        position: Position | None = None
        async for page in session.pending(folder, None, start):
            if page.unwanted:
                await self._claims.skip(page.unwanted)
            refs = page.refs if wanted is None else [ref for ref in page.refs if wanted(ref)]
            position = page.position or position
            pages.append(replace(page, refs=refs, unwanted=(), position=None))
            self._observer.progressed()
        await self._records.folders.plan(folder, [ref for page in pages for ref in page.refs], position)
        return pages

    async def _recall(self, folder: Folder) -> None:
        """Once: what earlier processes lost sessions with."""
        if folder not in self._recalled:
            self._hangup_suspects.recall([ref for ref, _ in await self._records.backlog.blamed(folder)])
            self._recalled.add(folder)

    async def _carry_suspects(
        self, session: Session, folder: Folder, suppress: bool, result: PassResult, *, accepted: bool, quiet: bool
    ) -> None:
        """Messages that an earlier process died with, before anything else.

        Each is parsed alone, so they may be fetched and delivered together; but one that has a strike comes after all
        innocents and is on its own all the way.
        """
        while refs := await self._batcher.suspects(folder):
            claims, _ = await self._claims.claim(refs)
            together = [claim for claim in claims if not claim.strikes] or claims[:1]
            if len(together) < len(claims):
                await self._claims.put_down(claims[len(together) :])
            if not together:
                return
            now = self._pass = Pass(session, folder, suppress, result, quiet, accepted=accepted)
            doubted = len(together) == 1 and together[0].ref.uid in self._hangup_suspects.uids(folder)
            await self._carry_together(now, InFlight(Batch(refs, doubted=doubted), claims=together))
            _require(now)
            await self._conclusions.conclude(now)
            self._hangup_suspects.cleared([claim.ref for claim in together])

    async def _carry_together(self, now: Pass, in_flight: InFlight) -> None:
        """Suspects, with nothing else under way. Poison is alone, and not parsed."""
        suspect = in_flight.claims[0]
        poison = self._judge.is_poison(suspect)
        large = self._batcher.expected(suspect.ref) > MEMORY_THRESHOLD
        try:
            in_flight.fetching = asyncio.create_task(
                self._fetcher.fetch(now.session, in_flight, POISON_HEAD if poison and large else self._largest),
                name=f"fetch {self._mailbox}",
            )
            now.fetching.add(in_flight.fetching)
            await self._fetcher.receive(now, in_flight)
            if not in_flight.fetching.cancelled():
                in_flight.fetching.result()
            in_flight.poison = poison
            for stage in self.row:
                if not stage.brings:
                    await stage.work(now, in_flight)
        finally:
            self._let_go(now, in_flight)
        self._observer.progressed()
        if now.lost is None:
            await self._dispositions.dispose(now.session, in_flight.settlements)

    async def _carry_batches(self, now: Pass, batches: AsyncGenerator[Batch, None]) -> None:
        """Send batch after batch along the line. What was begun is finished as far as it goes, then trouble is
        raised."""
        self._dispositions.begin(now)
        async with TaskGroup() as telling:
            telling.create_task(self._dispositions.tell_settled(now), name=f"tell {self._mailbox}")
            async with now.tasks:
                await self._feed(now, batches)
            await now.settled.put(None)
        if now.failure is not None:
            raise now.failure from now.lost
        _require(now)

    async def _feed(self, now: Pass, batches: AsyncGenerator[Batch, None]) -> None:
        """Start each batch as soon as there is room at the first stage, until there is none or trouble."""
        stages = Stages(len(self.row))
        try:
            while not now.over:
                place = stages.enter()
                await place.on()
                enough = now.over or len(now.absent) >= MOST_ABSENT
                batch = None if enough else await anext(batches, None)
                if batch is None:
                    break
                in_flight = InFlight(batch)
                walk = now.tasks.create_task(self._walk(now, in_flight, place), name=f"batch {self._mailbox}")
                if batch.doubted:
                    await wary(now, in_flight, walk, self.give_up)
                elif batch.alone:
                    await asyncio.wait([walk])
        except Exception as error:
            now.fail(error)

    async def _walk(self, now: Pass, in_flight: InFlight, place: StageSlot) -> None:
        """One batch along the row: the stages are all at work at once, each on another batch, and in order. It stands
        at the first one already. Never raises but CancelledError.

        Octets lie at four of them, from asked for to delivered.
        """
        try:
            for number, stage in enumerate(self.row):
                if number:
                    await place.on()
                if now.failure is not None and not stage.always:
                    return
                await stage.work(now, in_flight)
            self._observer.progressed()
            if in_flight.owed:
                await now.settled.put(Telling(in_flight.owed, owed=True))
            if in_flight.settlements:
                await now.settled.put(Telling(in_flight.settlements, owed=in_flight.beside))
        except Exception as error:
            now.fail(error)
        finally:
            self._let_go(now, in_flight)
            for digest, mid in in_flight.digests.items():
                if now.digests.get(digest) == mid:
                    del now.digests[digest]
            for message_id, conversation in in_flight.threads.items():
                if now.threads.get(message_id) == conversation:
                    del now.threads[message_id]
            place.leave()

    def _let_go(self, now: Pass, in_flight: InFlight) -> None:
        """The end of a batch, however it comes."""
        if in_flight.fetching is not None:
            if now.given_up is not None and not in_flight.accounted:
                now.unaccounted += in_flight.missing.values()
            # The pass waits for its end. To wait here would be to leave the rest undone when we are cancelled.
            now.fetching.discard(in_flight.fetching)
            in_flight.fetching.cancel()
            in_flight.fetching.add_done_callback(lambda _: in_flight.release())
        in_flight.release()
