"""Carries one mailbox's messages, batch after batch, from claim to settlement."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace

import structlog

from mailpoller.core.component import SourceConfig
from mailpoller.core.delivery import LEAVE, Held, Outcome, Question, Settlement
from mailpoller.core.errors import LedgerUnavailable, SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, MessageRef, Page, Position
from mailpoller.core.ports import Clock, Ledger, Session, Start
from mailpoller.core.spool import MEMORY_THRESHOLD
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.absence import Absences
from mailpoller.engine.agenda import Agenda, Batch, Limits, Stop, Wanted
from mailpoller.engine.budget import Budget
from mailpoller.engine.dispatcher import Deferral, Dispatcher, put_off
from mailpoller.engine.doubt import Doubt
from mailpoller.engine.hand import UNTOLD, Hand, Pass, Telling
from mailpoller.engine.judge import Judge
from mailpoller.engine.line import Line, Place
from mailpoller.engine.numbering import APART, answer
from mailpoller.engine.observer import Observer
from mailpoller.engine.tally import Tally
from mailpoller.engine.teller import Teller

log = structlog.get_logger(__name__)

POISON_HEAD = 64_000
"""Octets that are fetched of a large message that is quarantined unparsed."""

UNDATED = 100
"""Messages that did not come whose dates are asked for in one pass."""
SAID_KEPT = 10_000
"""Messages whose last reason is remembered, so that it is said once."""

STATIONS = 6
"""Of the line that batches go along: claimed, asked for, fetched, judged, delivered, settled."""

HEIRLESS = 10_000
"""Messages that are remembered because a queue may hold them, though their names are gone."""

_SETTLED = {
    "delivered": "message.delivered",
    "quarantined": "message.quarantined",
    "discarded": "message.discarded",
    "gone": "message.gone",
    "repeated": "message.repeated",
    "skipped": "message.skipped",
    "doubtful": "message.doubtful",
}


async def _pages(
    session: Session, folder: Folder, since: Position | None, start: Start, planned: Sequence[Page], listed: bool
) -> AsyncGenerator[Page, None]:
    """What was planned earlier, then what is listed now, unless that is the same."""
    for page in planned:
        yield page
    if not listed:
        async for page in session.pending(folder, since, start):
            yield page


class Courier:
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
        ledger: Ledger,
        budget: Budget,
        clock: Clock,
        limits: Limits,
        stop: Stop,
        reachable: frozenset[str] | None = None,
        observer: Observer,
    ) -> None:
        self._mailbox = mailbox
        self._largest = config.max_message_size
        self._judge = judge
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._budget = budget
        self._clock = clock
        self._limits = limits
        self._observer = observer
        self._open: dict[str, Claim] = {}
        """Claims that are in hand, by mid: given back however a pass ends."""
        self._doubt = Doubt()
        self._absences = Absences(mailbox, config, ledger=ledger, clock=clock, observer=observer)
        self._recalled: set[Folder] = set()
        self._pass: Pass | None = None
        """The one that is under way."""
        self._said: dict[str, str] = {}
        """mid -> why it could not be fetched the last time, of the last so many."""
        self._teller = Teller(mailbox, ledger=ledger, observer=observer)
        self._agenda = Agenda(
            mailbox,
            ledger=ledger,
            dispatcher=dispatcher,
            doubt=self._doubt,
            limits=limits,
            stop=stop,
            reachable=reachable,
            largest=config.max_message_size,
            in_hand=STATIONS + UNTOLD,
            skip=self._skip,
        )

    def take_over(self, former: Courier) -> None:
        """Give back, before the next pass, the claims that ``former`` could not: it carried this mailbox's mail, and has ended."""
        self._open.update(former._open)

    @property
    def holds_claims(self) -> bool:
        """True if some are in hand; after a pass, if the ledger could not be told that they are given back."""
        return bool(self._open)

    def give_up(self, reason: str) -> bool:
        """Give up what is being fetched, as if the session were lost with it: what has come is finished, and what has not is in doubt.
        False if nothing is being fetched, or that was done in this pass already."""
        now = self._pass
        if now is None or now.given_up is not None or all(task.done() for task in now.fetching):
            return False
        now.given_up = SessionLost(reason)
        for task in now.fetching:
            task.cancel()
        return True

    def begin_anew(self, folder: Folder) -> None:
        """The folder's numbering was set back. A name that stayed in doubt here would be passed over by the listing, although nothing under
        it is recorded yet. Whoever keeps his name is to blame still, as his claim says."""
        self._doubt.forget(folder)

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
    ) -> Tally:
        """Work through all that is due and pending in the open folder, and say what it came to.

        Several batches are under way at once, one behind the other; no more than four hold octets. ``suppress``:
        this is the first full listing after an epoch change, so octets that were settled before are not delivered again.
        ``accepted``: an operator said that what is absent is gone. ``wanted``: which of the listed messages are worked on, or None for all.
        ``planned``: pages that are worked on before the folder is listed; with ``listed`` they are all of it.
        ``heirless``: what is new by name may be a message that was on its way under another (``Ledger.heirless``).
        Ends early, between batches, when the service stops. However it ends, no claim stays in hand.
        """
        tally = Tally()
        if self._open:
            await self._put_down(list(self._open.values()))
        try:
            await self._recall(folder)
            await self._carry_suspects(session, folder, suppress, tally, accepted=accepted)
            now = self._pass = Pass(session, folder, suppress, tally, accepted=accepted)
            if heirless:
                now.heirless += await self._ledger.heirless(folder, limit=HEIRLESS, earlier=suppress)
            pages = _pages(session, folder, since, start, planned, listed)
            async with aclosing(self._agenda.batches(folder, pages, tally, wanted, whole=since is None)) as batches:
                await self._carry_batches(now, batches)
            await self._conclude(now)
            if not now.absent:
                await self._absences.over(folder)
            if absolved := self._doubt.absolved():
                await self._ledger.absolve(absolved)
        finally:
            last, self._pass = self._pass, None
            if last is not None and last.unaccounted:
                # Cancelled, for even giving up did not help.
                with contextlib.suppress(LedgerUnavailable):
                    await self._to_blame([claim.ref for claim in last.unaccounted])
            if self._open:
                # A ledger that cannot commit now keeps them open; the next pass gives them back first.
                with contextlib.suppress(LedgerUnavailable):
                    await self._put_down(list(self._open.values()))
        return tally

    async def plan(self, session: Session, folder: Folder, start: Start, wanted: Wanted = None) -> list[Page]:
        """List the folder for the first time and keep what that shows, before any of it is worked on: what ``start`` wants is decided
        once, whatever becomes of the messages' flags, of the queues and of us. The pages are for :meth:`carry`."""
        pages: list[Page] = []
        position: Position | None = None
        async for page in session.pending(folder, None, start):
            if page.unwanted:
                await self._skip(page.unwanted)
            refs = page.refs if wanted is None else [ref for ref in page.refs if wanted(ref)]
            position = page.position or position
            pages.append(replace(page, refs=refs, unwanted=(), position=None))
            self._observer.progressed()
        await self._ledger.plan(folder, [ref for page in pages for ref in page.refs], position)
        return pages

    async def _recall(self, folder: Folder) -> None:
        """Once: what earlier processes lost sessions with."""
        if folder not in self._recalled:
            self._doubt.recall([ref for ref, _ in await self._ledger.blamed(folder)])
            self._recalled.add(folder)

    async def _carry_suspects(
        self, session: Session, folder: Folder, suppress: bool, tally: Tally, *, accepted: bool
    ) -> None:
        """Messages that an earlier process died with, before anything else.

        Each is parsed alone, so they may be fetched and delivered together; but one that has a strike comes after all
        innocents and is on its own all the way.
        """
        while refs := await self._agenda.suspects(folder):
            claims, _ = await self._claim(refs)
            together = [claim for claim in claims if not claim.strikes] or claims[:1]
            if len(together) < len(claims):
                await self._put_down(claims[len(together) :])
            if not together:
                return
            now = self._pass = Pass(session, folder, suppress, tally, accepted=accepted)
            await self._carry_together(now, Hand(Batch(refs), claims=together))
            if now.lost is not None:
                raise now.lost
            await self._conclude(now)
            self._doubt.cleared([claim.ref for claim in together])

    async def _carry_together(self, now: Pass, hand: Hand) -> None:
        """Suspects, with nothing else under way. Poison is alone, and not parsed."""
        suspect = hand.claims[0]
        poison = self._judge.is_poison(suspect)
        large = self._agenda.expected(suspect.ref) > MEMORY_THRESHOLD
        try:
            hand.fetching = asyncio.create_task(
                self._fetch(now.session, hand, POISON_HEAD if poison and large else self._largest),
                name=f"fetch {self._mailbox}",
            )
            now.fetching.add(hand.fetching)
            await self._receive(now, hand)
            if not hand.fetching.cancelled():
                hand.fetching.result()
            if poison:
                self._judge.condemn(hand)
            else:
                await self._judge.judge(now, hand)
            await self._deliver(now, hand)
            await self._commit(now, hand)
        finally:
            self._let_go(now, hand)
        self._observer.progressed()
        if now.lost is None:
            await self._teller.dispose(now.session, hand.settlements)

    async def _carry_batches(self, now: Pass, batches: AsyncGenerator[Batch, None]) -> None:
        """Send batch after batch along the line. What was begun is finished as far as it goes, then trouble is raised."""
        self._teller.begin(now)
        async with TaskGroup() as telling:
            telling.create_task(self._teller.tell_settled(now), name=f"tell {self._mailbox}")
            async with now.tasks:
                await self._feed(now, batches)
            await now.settled.put(None)
        if now.failure is not None:
            raise now.failure from now.lost
        if now.lost is not None:
            raise now.lost

    async def _feed(self, now: Pass, batches: AsyncGenerator[Batch, None]) -> None:
        """Start each batch as soon as there is room at the first station, until there is none or trouble."""
        line = Line(STATIONS)
        try:
            while not now.over:
                place = line.enter()
                await place.on()
                batch = None if now.over else await anext(batches, None)
                if batch is None:
                    break
                walk = now.tasks.create_task(self._walk(now, Hand(batch), place), name=f"batch {self._mailbox}")
                if batch.alone:
                    await asyncio.wait([walk])
        except Exception as error:
            now.fail(error)

    async def _walk(self, now: Pass, hand: Hand, place: Place) -> None:
        """One batch along the line: the stations are all at work at once, each on another batch, and in order.

        Octets lie at four of them, from asked for to delivered. What is delivered is settled whatever fails meanwhile.
        Never raises but CancelledError.
        """
        try:
            for station in (self._take, self._ask, self._receive, self._judge.judge, self._deliver):
                if now.failure is not None:
                    return
                await station(now, hand)
                await place.on()
            await self._commit(now, hand)
            self._observer.progressed()
            if hand.owed:
                await now.settled.put(Telling(hand.owed, owed=True))
            if hand.settlements:
                await now.settled.put(Telling(hand.settlements))
        except Exception as error:
            now.fail(error)
        finally:
            self._let_go(now, hand)
            for digest, mid in hand.digests.items():
                if now.digests.get(digest) == mid:
                    del now.digests[digest]
            place.leave()

    def _let_go(self, now: Pass, hand: Hand) -> None:
        """The end of a batch, however it comes."""
        if hand.fetching is not None:
            if now.given_up is not None and not hand.accounted:
                now.unaccounted += hand.missing.values()
            # The pass waits for its end. To wait here would be to leave the rest undone when we are cancelled.
            now.fetching.discard(hand.fetching)
            hand.fetching.cancel()
            hand.fetching.add_done_callback(lambda _: hand.release())
        hand.release()

    async def _skip(self, refs: Sequence[MessageRef]) -> None:
        """Record messages that were there before the first run and that ``start`` does not want."""
        for begin in range(0, len(refs), self._limits.batch_messages):
            claims, _ = await self._claim(refs[begin : begin + self._limits.batch_messages])
            outcomes = [Outcome(claim=claim, kind="skipped", disposition=LEAVE, receipts={}) for claim in claims]
            if outcomes:
                await self._ledger.settle(outcomes)
                self._close(claims)
            self._observer.progressed()
        log.info("folder.skipped_over", mailbox=self._mailbox, skipped=len(refs))

    # --- claim and fetch ---------------------------------------------------------------------------------------
    async def _claim(self, refs: Sequence[MessageRef], now: Pass | None = None) -> tuple[list[Claim], list[Settlement]]:
        """Claim refs: the claims, which are in hand from now on, and settlements whose disposition is still due. Questions are noted in
        the pass."""
        if not refs:
            return [], []
        answers = await self._ledger.claim(refs)
        if now is not None:
            # A listing without dates tells too little of a name that is known already.
            now.known += [
                answer.ref
                for answer in answers
                if isinstance(answer, Held) and answer.reason == "settled" and answer.ref.received is None
            ]
        claims = [answer for answer in answers if isinstance(answer, Claim)]
        self._open.update((claim.mid, claim) for claim in claims)
        if now is not None:
            now.questions += [answer for answer in answers if isinstance(answer, Question)]
        return claims, [answer for answer in answers if isinstance(answer, Settlement)]

    async def _recognise(self, now: Pass) -> None:
        """Names that were listed as new, and that the ledger has as settled: are they still those messages'?"""
        refs, now.known = now.known, []
        seen = await now.session.look(refs)
        sights = await self._ledger.recognise([ref for ref in seen if ref is not None])
        now.questions += [
            Question(sight.ref, sight.mid, sight.identity or b"", sight.left_out_at, sight.message_id)
            for sight in sights
            if sight.state == "question"
        ]

    async def _put_down(self, claims: Sequence[Claim]) -> None:
        """Give claims back unworked."""
        await self._ledger.release(claims)
        self._close(claims)

    def _close(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self._open.pop(claim.mid, None)

    async def _take(self, now: Pass, hand: Hand) -> None:
        """Claim a batch, and record how far the listing got by it."""
        hand.claims, hand.owed = await self._claim(hand.batch.refs, now)
        if now.known:
            await self._recognise(now)
        if suspects := [claim for claim in hand.claims if claim.suspect]:
            # Listed again before their time has come.
            await self._put_down(suspects)
            hand.claims = [claim for claim in hand.claims if not claim.suspect]
        down = self._dispatcher.down()
        if in_vain := [claim for claim in hand.claims if claim.waits_for in down]:
            # Listed again, where the mailbox has no position: what is due leaves them out.
            await self._put_down(in_vain)
            now.tally.put_off(len(in_vain), None)
            hand.claims = [claim for claim in hand.claims if claim.waits_for not in down]
        if hand.batch.alone:
            claimed = {claim.ref.uid for claim in hand.claims}
            self._doubt.untried([ref for ref in hand.batch.refs if ref.uid not in claimed])
        elif doubted := [claim for claim in hand.claims if claim.doubts or claim.blame]:
            # Asked for alone, at the end of the pass.
            await self._put_down(doubted)
            self._doubt.recall([claim.ref for claim in doubted])
            hand.claims = [claim for claim in hand.claims if not (claim.doubts or claim.blame)]
        if hand.batch.position is not None and not now.questions:
            await self._ledger.advance(now.folder, hand.batch.position)
        if now.last is not None:
            now.last += hand.owed
            hand.owed = []

    async def _ask(self, now: Pass, hand: Hand) -> None:
        """Begin to fetch while the batch before it is still fetched, so that the line to the server is never idle."""
        if not hand.claims:
            return
        if now.over or self._agenda.has_to_end():
            await self._put_down(hand.claims)
            hand.claims = []
            return
        hand.fetching = now.tasks.create_task(self._fetch_ahead(now, hand), name=f"fetch {self._mailbox}")
        now.fetching.add(hand.fetching)

    async def _receive(self, now: Pass, hand: Hand) -> None:
        """Wait until everything that was asked for has come, or will not."""
        if hand.fetching is not None:
            await asyncio.wait([hand.fetching])
            if hand.fetching.cancelled() and now.given_up is not None:
                hand.trouble = now.given_up
            await self._account(now, hand)

    async def _fetch_ahead(self, now: Pass, hand: Hand) -> None:
        try:
            await self._fetch(now.session, hand, self._largest)
        except Exception as error:
            now.fail(error)

    async def _fetch(self, session: Session, hand: Hand, limit: int) -> None:
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
        if left and now.failure is None:
            if lost is None:
                reason = str(hand.trouble or "the server did not answer for it")
                await self._unfetchable(left, reason, now.tally, hand.trouble)
                now.undated += [claim.ref for claim in left if claim.ref.received is None]
            elif lost.retry_after is not None:
                # The server wants to be left alone, whatever it was asked for.
                await self._put_down(left)
            elif now.lost is None and await self._to_blame([claim.ref for claim in left]):
                await self._unfetchable(left, "the session is lost whenever it is fetched", now.tally, None)
            else:
                await self._put_down(left)
        if lost is not None:
            now.fail(lost)

    async def _to_blame(self, refs: Sequence[MessageRef]) -> bool:
        """The session was lost while these had been asked for: kept, for the next process too. True if it is one that was in doubt."""
        guilty = self._doubt.lost(refs)
        await self._ledger.blame(refs)
        if guilty and (absolved := self._doubt.absolved()):
            await self._ledger.absolve(absolved)
        return guilty

    async def _unfetchable(
        self, claims: Sequence[Claim], reason: str, tally: Tally, error: TransientError | None
    ) -> None:
        for claim in claims:
            if self._said.get(claim.mid) != reason:
                self._said[claim.mid] = reason
                if len(self._said) > SAID_KEPT:
                    del self._said[next(iter(self._said))]
                log.warning("message.unfetched", mid=claim.mid, mailbox=self._mailbox, uid=claim.ref.uid, reason=reason)
                self._observer.fault("message.unfetched", reason, claim.mid)
            else:
                log.debug("message.unfetched", mid=claim.mid, mailbox=self._mailbox, uid=claim.ref.uid, reason=reason)
            until = put_off(self._clock.now(), claim.attempts, retry_after=error.retry_after if error else None)
            await self._ledger.defer([claim], until=until, reason=reason)
            tally.put_off(1, until)
        self._close(claims)
        tally.unfetched += len(claims)

    # --- deliver and settle ------------------------------------------------------------------------------------
    async def _deliver(self, now: Pass, hand: Hand) -> None:
        """Bring what is judged to its queues, and release the octets."""
        self._observer.progressed()
        now.absent += hand.gone
        hand.gone = []
        try:
            if hand.judged:
                outcomes, deferrals = await self._dispatcher.dispatch(hand.judged)
                hand.outcomes += outcomes
                hand.deferrals += deferrals
                for judged in hand.judged:
                    if judged.spilled:
                        self._observer.fault("last_resort.used", judged.spilled, judged.claim.mid)
        finally:
            hand.judged = []
            hand.release()

    async def _commit(self, now: Pass, hand: Hand) -> None:
        """Record what has become of a batch."""
        if hand.outcomes:
            settlements = await self._ledger.settle(hand.outcomes)
            self._close(outcome.claim for outcome in hand.outcomes)
            self._teller.owe(settlements)
            hand.settlements += settlements
        if hand.deferrals:
            await self._defer(hand.deferrals, now.tally)
        if hand.strangers:
            await self._replace(now, hand)
        self._tell(hand.outcomes)
        now.tally.settled += len(hand.outcomes)

    async def _replace(self, now: Pass, hand: Hand) -> None:
        """What was fetched is not what the name stood for: it is claimed anew, under another mid."""
        claims = [raw.claim for raw in hand.strangers]
        refs = [replace(raw.claim.ref, size=raw.announced, received=raw.received) for raw in hand.strangers]
        hand.strangers = []
        await self._put_down(claims)
        await self._ledger.identified([], refs)
        now.tally.again = True
        log.warning("message.replaced", mailbox=self._mailbox, folder=now.folder.name, messages=len(refs))
        self._observer.replaced(len(refs))

    # --- the end of a pass -------------------------------------------------------------------------------------
    async def _conclude(self, now: Pass) -> None:
        """What only the whole pass could show: whose names are others' now, and what is not there."""
        if now.questions:
            await self._answer(now)
        else:
            self._observer.questioned(now.folder, ())
        if now.undated:
            # An operator finds a message by its date, which comes with the fetch where the listing does not tell it.
            seen = await now.session.look(now.undated[:UNDATED])
            await self._ledger.recognise([ref for ref in seen if ref is not None])
        if not now.absent:
            return
        absence = await self._absences.conclude(now.session, now.folder, now.absent, accepted=now.accepted)
        if absence.gone:
            outcomes = [self._dispatcher.gone(claim) for claim in absence.gone]
            await self._ledger.settle(outcomes)
            self._close(absence.gone)
            self._tell(outcomes)
            now.tally.settled += len(outcomes)
        if absence.waiting:
            await self._ledger.defer(absence.waiting, until=absence.until, reason=absence.reason, cause="absent")
            self._close(absence.waiting)
            now.tally.put_off(len(absence.waiting), absence.until)

    async def _answer(self, now: Pass) -> None:
        """Questions about names that were listed. Until they are answered the position stays before them."""
        same, other, unanswered = await answer(now.session, now.questions)
        await self._ledger.identified(same, other)
        self._observer.questioned(now.folder, unanswered)
        if other:
            log.warning("message.replaced", mailbox=self._mailbox, folder=now.folder.name, messages=len(other))
            self._observer.replaced(len(other))
        if unanswered:
            log.warning("message.questioned", mailbox=self._mailbox, folder=now.folder.name, messages=len(unanswered))
            now.tally.put_off(len(unanswered), self._clock.now() + APART)
        now.tally.again = now.tally.again or bool(same or other)

    async def _defer(self, deferrals: Sequence[Deferral], tally: Tally) -> None:
        """Put off, in one commit, all that are put off alike."""
        alike: dict[tuple[object, ...], list[Deferral]] = {}
        for one in deferrals:
            key = (one.reason, one.queue, one.route, tuple((one.receipts or {}).items()), one.claim.attempts, one.cause)
            alike.setdefault(key, []).append(one)
        for several in alike.values():
            first = several[0]
            await self._ledger.defer(
                [one.claim for one in several],
                until=first.until,
                reason=first.reason,
                queue=first.queue,
                route=first.route,
                receipts=first.receipts,
                traits=[one.traits for one in several],
                cause=first.cause,
            )
            self._close(one.claim for one in several)
            tally.put_off(len(several), first.until if first.queue is None else None)
            for one in several:
                log.info(
                    "message.deferred", mid=one.claim.mid, mailbox=self._mailbox, queue=one.queue, reason=one.reason
                )

    def _tell(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            claim = outcome.claim
            log.info(
                _SETTLED[outcome.kind],
                mid=claim.mid,
                mailbox=self._mailbox,
                folder=claim.ref.folder.name,
                uid=claim.ref.uid,
                size_bytes=outcome.size,
                queues=list(outcome.receipts),
                rules=list(outcome.rules),
                reason=outcome.reason,
            )
            self._observer.settled(outcome)
