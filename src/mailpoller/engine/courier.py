"""A batch of messages, from claim to settlement, in one task's hands."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from mailpoller.core.component import SourceConfig
from mailpoller.core.delivery import LEAVE, Disposed, Outcome, Settlement
from mailpoller.core.errors import LedgerUnavailable, MailpollerError, SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, Message, MessageRef, Position, RawMessage
from mailpoller.core.ports import Clock, Ledger, Session, Start
from mailpoller.core.spool import MEMORY_THRESHOLD
from mailpoller.core.verdict import Quarantine
from mailpoller.engine.agenda import Agenda, Batch, Limits, Stop
from mailpoller.engine.budget import Budget, Reservation
from mailpoller.engine.dispatcher import Deferral, Dispatcher, Judged, put_off
from mailpoller.engine.doubt import Doubt
from mailpoller.engine.line import Line, Place
from mailpoller.engine.pipeline import Pipeline
from mailpoller.engine.tally import Tally
from mailpoller.engine.turns import Turns
from mailpoller.mail.parser import parse, unparsed

log = structlog.get_logger(__name__)

LARGE = 1_000_000
"""A message of more octets is parsed in a thread, so that no other mailbox waits for it."""

POISON_HEAD = 64_000
"""Octets that are fetched of a large message that is quarantined unparsed."""

STATIONS = 6
"""Of the line that batches go along: claimed, asked for, fetched, judged, delivered, settled."""

UNTOLD = 4
"""Settled batches that wait until the server is told of them."""

_SETTLED = {
    "delivered": "message.delivered",
    "quarantined": "message.quarantined",
    "discarded": "message.discarded",
    "gone": "message.gone",
    "repeated": "message.repeated",
    "skipped": "message.skipped",
}

_BREATH = 0.002
"""Seconds of parsing after which other tasks get their turn."""


class Observer(Protocol):
    """Who wants to know how one mailbox's messages fare. Called from the courier's task; never blocks, never raises."""

    def progressed(self) -> None:
        """A step got somewhere."""

    def settled(self, outcome: Outcome) -> None:
        """An outcome was committed."""

    def disposed(self, failed: Sequence[Disposed], applied: Sequence[Disposed]) -> None:
        """What the server said to a batch of dispositions."""

    def fault(self, event: str, detail: str, mid: str) -> None:
        """Something about one message went wrong that an operator should find again."""


@dataclass(slots=True)
class _Hand:
    """One batch on its way, filled from top to bottom: claimed, fetched, judged, delivered, settled."""

    claims: list[Claim] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    """What the server is to be told: dispositions of earlier days at first, then this batch's own."""
    reservation: Reservation | None = None
    fetched: list[RawMessage] = field(default_factory=list)
    gone: list[Claim] = field(default_factory=list)
    missing: dict[str, Claim] = field(default_factory=dict)
    """Claims that were asked for and not answered, by mid."""
    trouble: TransientError | None = None
    """Why; :class:`SessionLost` among others."""
    judged: list[Judged] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    deferrals: list[Deferral] = field(default_factory=list)
    digests: dict[bytes, str] = field(default_factory=dict)
    """Digest -> mid of what is held whole: the ledger knows of them only once they are settled."""

    def release(self) -> None:
        """Give back octets and room. Harmless when repeated."""
        for raw in self.fetched:
            raw.octets.close()
        self.fetched = []
        if self.reservation is not None:
            self.reservation.release()
            self.reservation = None


@dataclass(slots=True)
class _Pass:
    """What the batches of one pass over a folder share."""

    session: Session
    folder: Folder
    suppress: bool
    tally: Tally
    digests: dict[bytes, str] = field(default_factory=dict)
    """Digest -> mid of what was judged and is not settled yet."""
    last: list[Settlement] | None = None
    """Overdue settlements, where the server is told of them after everything else."""
    settled: asyncio.Queue[Sequence[Settlement] | None] = field(default_factory=lambda: asyncio.Queue(UNTOLD))
    """What the server is to be told next; None after the last."""
    lost: SessionLost | None = None
    """The session: nothing more is fetched or told, and what was fetched is finished."""
    failure: Exception | None = None
    """Anything else: what is not on its way to a queue yet is given up."""
    fetching: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def over(self) -> bool:
        """True if nothing new is begun."""
        return self.lost is not None or self.failure is not None

    def fail(self, error: Exception) -> None:
        """Note what ends the pass; the first failure counts."""
        if isinstance(error, SessionLost):
            self.lost = self.lost or error
            return
        self.failure = self.failure or error
        for task in self.fetching:
            task.cancel()


class Courier:
    """Carries one mailbox's messages: claim, fetch, judge, dispatch, settle.

    ``reachable``: the names of the queues that this mailbox's mail can go to, or None if that cannot be told; when
    all of them are down, nothing new is downloaded. ``bodies_wanted``: some rule or queue looks below the header.
    ``judging``: the turns that all mailboxes take at the processor.
    """

    def __init__(
        self,
        mailbox: str,
        config: SourceConfig,
        *,
        pipeline: Pipeline,
        dispatcher: Dispatcher,
        ledger: Ledger,
        budget: Budget,
        clock: Clock,
        limits: Limits,
        stop: Stop,
        reachable: frozenset[str] | None = None,
        bodies_wanted: bool = True,
        judging: Turns | None = None,
        observer: Observer,
    ) -> None:
        self._mailbox = mailbox
        self._config = config
        self._pipeline = pipeline
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._budget = budget
        self._clock = clock
        self._limits = limits
        self._stop = stop
        self._bodies_wanted = bodies_wanted
        self._judging = judging or Turns(1)
        self._observer = observer
        self._open: dict[str, Claim] = {}
        """Claims that are in hand, by mid: given back however a pass ends."""
        self._untold: dict[str, Settlement] = {}
        """Settlements whose disposition is not recorded yet, by mid: after trouble they are the first thing to do."""
        self._hung_up = False
        """Telling the server of settlements is what lost the last session."""
        self._doubt = Doubt()
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

    # --- a pass ------------------------------------------------------------------------------------------------
    async def carry(
        self, session: Session, folder: Folder, since: Position | None, start: Start, *, suppress: bool
    ) -> Tally:
        """Work through all that is due and pending in the open folder, and say what it came to.

        Several batches are under way at once, one behind the other; no more than four hold octets. ``suppress``:
        this is the first full listing after an epoch change, so octets that were settled before are not delivered again.
        Ends early, between batches, when the service stops. However it ends, no claim stays in hand.
        """
        tally = Tally()
        if self._open:
            await self._put_down(list(self._open.values()))
        try:
            await self._carry_suspects(session, folder, suppress, tally)
            await self._stream(
                session, folder, self._agenda.batches(session, folder, since, start, tally), suppress, tally
            )
        finally:
            if self._open:
                # A ledger that cannot commit now keeps them open; the next pass gives them back first.
                with contextlib.suppress(LedgerUnavailable):
                    await self._put_down(list(self._open.values()))
        return tally

    async def _carry_suspects(self, session: Session, folder: Folder, suppress: bool, tally: Tally) -> None:
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
            await self._carry_together(_Pass(session, folder, suppress, tally), together)
            self._doubt.cleared([claim.ref for claim in together])

    async def _stream(
        self, session: Session, folder: Folder, batches: AsyncIterator[Batch], suppress: bool, tally: Tally
    ) -> None:
        """Send batch after batch along the line. What was begun is finished as far as it goes, then trouble is raised."""
        now = _Pass(session, folder, suppress, tally)
        overdue = [one for one in self._untold.values() if one.ref.folder == folder]
        async with asyncio.TaskGroup() as telling:
            telling.create_task(self._tell_settled(now), name=f"tell {self._mailbox}")
            if self._hung_up:
                # Where telling the server is what loses the session, as a move may do again and again, what is overdue
                # is told last: else it would keep new mail from its queue for ever.
                now.last = overdue
            else:
                await now.settled.put(overdue)
            async with asyncio.TaskGroup() as walking:
                await self._feed(now, batches, walking)
            await now.settled.put(None)
        if now.last and not now.over:
            await self._tell_server(now, now.last)
        if now.failure is not None:
            raise now.failure from now.lost
        if now.lost is not None:
            raise now.lost

    async def _feed(self, now: _Pass, batches: AsyncIterator[Batch], group: asyncio.TaskGroup) -> None:
        """Start each batch as soon as there is room at the first station, until there is none or trouble."""
        line = Line(STATIONS)
        try:
            while not now.over:
                place = line.enter()
                await place.on()
                batch = None if now.over else await anext(batches, None)
                if batch is None:
                    break
                walk = group.create_task(self._walk(now, batch, place, group), name=f"batch {self._mailbox}")
                if batch.alone:
                    await asyncio.wait([walk])
        except Exception as error:
            now.fail(error)

    async def _tell_settled(self, now: _Pass) -> None:
        """Tell the server of what is settled. On a far line each time takes a round trip, behind all that is being
        fetched; what has gathered meanwhile is told together."""
        ended = False
        while not ended:
            several = [await now.settled.get()]
            while not now.settled.empty():
                several.append(now.settled.get_nowait())
            ended = None in several
            settlements = [one for batch in several if batch is not None for one in batch]
            try:
                await self._tell_server(now, settlements)
            except Exception as error:
                now.fail(error)

    async def _walk(self, now: _Pass, batch: Batch, place: Place, group: asyncio.TaskGroup) -> None:
        """One batch along the line: the stations are all at work at once, each on another batch, and in order.

        Octets lie at four of them, from asked for to delivered. Never raises but CancelledError.
        """
        hand = _Hand()
        fetching: asyncio.Task[None] | None = None
        try:
            await self._take(now, batch, hand)
            await place.on()
            if hand.claims and not await self._given_up(now, hand):
                fetching = group.create_task(self._fetch_ahead(now, hand), name=f"fetch {self._mailbox}")
                now.fetching.add(fetching)
            await place.on()
            if fetching is not None:
                await asyncio.wait([fetching])
                await self._account(now, hand)
            await place.on()
            if now.failure is None:
                async with self._judging.turn(self._mailbox, len(hand.fetched) + 1):
                    await self._judge_batch(hand, now)
            await place.on()
            if now.failure is None:
                self._observer.progressed()
                await self._deliver(hand)
                await place.on()
                await self._settle(hand, now.tally)
                self._observer.progressed()
                await now.settled.put(hand.settlements)
        except Exception as error:
            now.fail(error)
        finally:
            if fetching is not None:
                now.fetching.discard(fetching)
                fetching.cancel()
                await asyncio.wait([fetching])
            for digest, mid in hand.digests.items():
                if now.digests.get(digest) == mid:
                    del now.digests[digest]
            hand.release()
            place.leave()

    async def _skip(self, refs: Sequence[MessageRef]) -> None:
        """Record messages that were there before the first run and that ``start`` does not want."""
        for begin in range(0, len(refs), self._limits.batch_messages):
            claims, _ = await self._claim(refs[begin : begin + self._limits.batch_messages])
            outcomes = [Outcome(claim=claim, kind="skipped", disposition=LEAVE, receipts={}) for claim in claims]
            if outcomes:
                await self._ledger.settle(outcomes)
                self._close(claims)
        log.info("folder.skipped_over", mailbox=self._mailbox, skipped=len(refs))

    # --- claim and fetch ---------------------------------------------------------------------------------------
    async def _claim(self, refs: Sequence[MessageRef]) -> tuple[list[Claim], list[Settlement]]:
        """Claim refs: the claims, which are in hand from now on, and settlements whose disposition is still due."""
        if not refs:
            return [], []
        answers = await self._ledger.claim(refs)
        claims = [answer for answer in answers if isinstance(answer, Claim)]
        self._open.update((claim.mid, claim) for claim in claims)
        return claims, [answer for answer in answers if isinstance(answer, Settlement)]

    async def _put_down(self, claims: Sequence[Claim]) -> None:
        """Give claims back unworked."""
        await self._ledger.release(claims)
        self._close(claims)

    def _close(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self._open.pop(claim.mid, None)

    async def _take(self, now: _Pass, batch: Batch, hand: _Hand) -> None:
        """Claim a batch, and record how far the listing got by it."""
        hand.claims, hand.settlements = await self._claim(batch.refs)
        if suspects := [claim for claim in hand.claims if claim.suspect]:
            # Listed again before their time has come.
            await self._put_down(suspects)
            hand.claims = [claim for claim in hand.claims if not claim.suspect]
        if batch.position is not None:
            await self._ledger.advance(now.folder, batch.position)
        if now.last is not None:
            now.last += hand.settlements
            hand.settlements = []

    async def _given_up(self, now: _Pass, hand: _Hand) -> bool:
        """True if there is no point in fetching what was claimed: the claims are given back."""
        if not now.over and not self._agenda.has_to_end():
            return False
        if now.failure is None:
            await self._put_down(hand.claims)
        hand.claims = []
        return True

    async def _fetch_ahead(self, now: _Pass, hand: _Hand) -> None:
        """Fetch while the batch before it is still worked on, so that the line to the server is never idle."""
        try:
            await self._fetch(now.session, hand, self._config.max_message_size)
        except Exception as error:
            now.fail(error)

    async def _fetch(self, session: Session, hand: _Hand, limit: int) -> None:
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

    async def _account(self, now: _Pass, hand: _Hand) -> None:
        """What is missing is put off or, if the session was lost, given back.

        In the order of the line: when two batches were asked for, the session was lost with the first of them.
        """
        left = list(hand.missing.values())
        lost = hand.trouble if isinstance(hand.trouble, SessionLost) else None
        if left and now.failure is None:
            if lost is None:
                reason = str(hand.trouble or "the server did not answer for it")
                await self._unfetchable(left, reason, now.tally, hand.trouble)
            elif now.lost is None and self._doubt.lost([claim.ref for claim in left]):
                await self._unfetchable(left, "the session is lost whenever it is fetched", now.tally, None)
            else:
                await self._put_down(left)
        if lost is not None:
            now.fail(lost)

    async def _unfetchable(
        self, claims: Sequence[Claim], reason: str, tally: Tally, error: TransientError | None
    ) -> None:
        for claim in claims:
            log.warning("message.unfetched", mid=claim.mid, mailbox=self._mailbox, uid=claim.ref.uid, reason=reason)
            self._observer.fault("message.unfetched", reason, claim.mid)
            until = put_off(self._clock.now(), claim.attempts, retry_after=error.retry_after if error else None)
            await self._ledger.defer([claim], until=until, reason=reason)
            tally.put_off(1, until)
        self._close(claims)
        tally.unfetched += len(claims)

    async def _carry_together(self, now: _Pass, suspects: list[Claim]) -> None:
        """Suspects, with nothing else under way: each marked while it is parsed and judged. Poison is alone, and not parsed."""
        poison = suspects[0].strikes >= self._limits.max_strikes
        large = self._agenda.expected(suspects[0].ref) > MEMORY_THRESHOLD
        hand = _Hand(suspects)
        try:
            await self._fetch(now.session, hand, POISON_HEAD if poison and large else self._config.max_message_size)
            await self._account(now, hand)
            if poison:
                hand.judged = [self._poison(raw) for raw in hand.fetched]
            else:
                async with self._judging.turn(self._mailbox, len(hand.fetched) + 1):
                    await self._judge_batch(hand, now)
            await self._deliver(hand)
            await self._settle(hand, now.tally)
        finally:
            hand.release()
        self._observer.progressed()
        if now.lost is not None:
            raise now.lost
        await self._dispose(now.session, hand.settlements)

    def _poison(self, raw: RawMessage) -> Judged:
        claim = raw.claim
        detail = f"the process died {claim.strikes} times while this message was parsed; it was not parsed again"
        log.error("message.poisonous", mid=claim.mid, mailbox=self._mailbox, uid=claim.ref.uid, strikes=claim.strikes)
        self._observer.fault("message.poisonous", detail, claim.mid)
        judged = Judged(claim, unparsed(raw), Quarantine("poison", detail))
        self._dispatcher.prepare(judged)
        return judged

    # --- judge, dispatch, settle -------------------------------------------------------------------------------
    async def _judge_batch(self, hand: _Hand, now: _Pass) -> None:
        """Parse, judge and render what was fetched."""
        whole = [raw.octets.digest for raw in hand.fetched if not raw.truncated]
        settled = await self._ledger.repeats(self._mailbox, whole) if whole else {}
        former: Mapping[bytes, str] = {}
        if now.suppress and settled:
            former = await self._ledger.repeats(self._mailbox, list(settled), former_of=now.folder)
        breath = time.perf_counter()
        for raw in hand.fetched:
            digest = raw.octets.digest
            repeat_of = None if raw.truncated else settled.get(digest) or now.digests.get(digest)
            if repeat_of == raw.claim.mid:
                repeat_of = None
            if digest in former and repeat_of is not None and not raw.claim.route:
                hand.outcomes.append(self._dispatcher.repeated(raw.claim, raw, repeat_of))
                continue
            if not raw.truncated:
                hand.digests[digest] = now.digests.setdefault(digest, raw.claim.mid)
            if raw.claim.suspect:
                await self._ledger.at_risk(raw.claim)
            one = await self._judge(raw, repeat_of, now.tally)
            if raw.claim.suspect:
                await self._ledger.cleared(raw.claim)
            if one is not None:
                hand.judged.append(one)
            if time.perf_counter() - breath > _BREATH:
                await asyncio.sleep(0)
                breath = time.perf_counter()

    async def _judge(self, raw: RawMessage, repeat_of: str | None, tally: Tally) -> Judged | None:
        """A message with verdict and events. A failure here is a bug of ours: counted, and in the end quarantined unparsed."""
        claim = raw.claim
        try:
            if raw.octets.size > LARGE:
                message = await asyncio.to_thread(_read, raw, claim.suspect or self._bodies_wanted)
            else:
                message = _read(raw, claim.suspect)
            judged = Judged(claim, message, self._pipeline.judge(message).verdict, repeat_of)
            self._dispatcher.prepare(judged)
        except MailpollerError:
            raise
        except Exception as error:
            log.exception("message.unprocessable", mid=claim.mid, mailbox=self._mailbox, uid=claim.ref.uid)
            self._observer.fault("message.unprocessable", type(error).__name__, claim.mid)
            if claim.attempts + 1 < self._limits.max_strikes:
                until = put_off(self._clock.now(), claim.attempts)
                await self._ledger.defer([claim], until=until, reason=f"unprocessable: {type(error).__name__}")
                self._close([claim])
                tally.put_off(1, until)
                return None
            detail = f"processing failed {claim.attempts + 1} times with {type(error).__name__}"
            judged = Judged(claim, unparsed(raw), Quarantine("unprocessable", detail))
            self._dispatcher.prepare(judged)
        return judged

    async def _deliver(self, hand: _Hand) -> None:
        """Bring what is judged to its queues, and release the octets."""
        hand.outcomes += [self._dispatcher.gone(claim) for claim in hand.gone]
        try:
            if hand.judged:
                done, hand.deferrals = await self._dispatcher.dispatch(hand.judged)
                hand.outcomes += done
        finally:
            hand.judged = []
            hand.release()

    async def _settle(self, hand: _Hand, tally: Tally) -> None:
        """Commit what has become of a batch."""
        if hand.outcomes:
            settlements = await self._ledger.settle(hand.outcomes)
            self._close(outcome.claim for outcome in hand.outcomes)
            self._untold.update((one.mid, one) for one in settlements if not one.disposition.leaves)
            hand.settlements += settlements
        if hand.deferrals:
            await self._defer(hand.deferrals, tally)
        for outcome in hand.outcomes:
            self._tell(outcome)
        tally.settled += len(hand.outcomes)

    async def _defer(self, deferrals: Sequence[Deferral], tally: Tally) -> None:
        """Put off, in one commit, all that are put off alike."""
        alike: dict[tuple[object, ...], list[Deferral]] = {}
        for one in deferrals:
            key = (one.reason, one.queue, one.route, tuple(one.receipts.items()), one.claim.attempts)
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
            )
            self._close(one.claim for one in several)
            tally.put_off(len(several), first.until if first.queue is None else None)
            for one in several:
                log.info(
                    "message.deferred", mid=one.claim.mid, mailbox=self._mailbox, queue=one.queue, reason=one.reason
                )

    async def _tell_server(self, now: _Pass, settlements: Sequence[Settlement]) -> None:
        """Carry out dispositions unless the session is lost; that it is lost by this very thing is remembered."""
        if now.over or not settlements:
            return
        try:
            await self._dispose(now.session, settlements)
            self._hung_up = False
        except SessionLost:
            self._hung_up = True
            raise

    async def _dispose(self, session: Session, settlements: Sequence[Settlement]) -> None:
        """Carry out what is due on the server and record its word."""
        wanted = [settlement for settlement in settlements if not settlement.disposition.leaves]
        if not wanted:
            return
        results = await session.settle(wanted)
        await self._ledger.disposed(results)
        for settlement in wanted:
            self._untold.pop(settlement.mid, None)
        failed = [result for result in results if result.state == "failed"]
        for result in failed:
            log.warning("disposition.failed", mid=result.settlement.mid, mailbox=self._mailbox, reason=result.reason)
        self._observer.disposed(failed, [result for result in results if result.state == "applied"])

    def _tell(self, outcome: Outcome) -> None:
        log.info(
            _SETTLED[outcome.kind],
            mid=outcome.claim.mid,
            mailbox=self._mailbox,
            folder=outcome.claim.ref.folder.name,
            uid=outcome.claim.ref.uid,
            size_bytes=outcome.size,
            queues=list(outcome.receipts),
            rules=list(outcome.rules),
            reason=outcome.reason,
        )
        self._observer.settled(outcome)


def _read(raw: RawMessage, body: bool) -> Message:
    """The parsed message, with its body if that is wanted; otherwise it is parsed when somebody first asks."""
    message = parse(raw)
    if body:
        _ = message.body
    return message
