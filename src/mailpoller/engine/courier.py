"""A batch of messages, from claim to settlement, in one task's hands."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import structlog

from mailpoller.core.component import SourceConfig
from mailpoller.core.delivery import LEAVE, Disposed, Outcome, Settlement
from mailpoller.core.errors import LedgerUnavailable, MailpollerError, SessionLost, TransientError
from mailpoller.core.message import Claim, Folder, Gone, Message, MessageRef, Position, RawMessage
from mailpoller.core.ports import Clock, Ledger, Session, Start
from mailpoller.core.spool import MEMORY_THRESHOLD
from mailpoller.core.verdict import Quarantine
from mailpoller.engine.budget import Budget, Reservation
from mailpoller.engine.dispatcher import Deferral, Dispatcher, Judged, put_off
from mailpoller.engine.doubt import Doubt
from mailpoller.engine.overlap import side_by_side
from mailpoller.engine.pipeline import Pipeline
from mailpoller.engine.turns import Turns
from mailpoller.mail.parser import parse, unparsed

log = structlog.get_logger(__name__)

LARGE = 1_000_000
"""A message of more octets is parsed in a thread, so that no other mailbox waits for it."""

POISON_HEAD = 64_000
"""Octets that are fetched of a large message that is quarantined unparsed."""

IN_HAND = 3
"""Batches that are under way at once: one fetched, one delivered, one told to the server."""

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


class Stop(Protocol):
    """What tells a courier to end its pass, such as an :class:`asyncio.Event`. Asked between two batches."""

    def is_set(self) -> bool: ...


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


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a batch and of patience."""

    batch_messages: int = 400
    batch_size: int = 8_000_000
    max_strikes: int = 3


@dataclass(slots=True)
class Tally:
    """What a pass over a folder came to: messages by what has become of them."""

    listed: int = 0
    settled: int = 0
    deferred: int = 0
    unfetched: int = 0
    """Those that could not be fetched, and were put off."""
    retry_at: datetime | None = None
    """When the first of those that wait for no queue is to be tried again."""
    exhausted: bool = False
    """The listing was worked through to its end."""

    def put_off(self, count: int, until: datetime | None) -> None:
        """Count messages that were put off; ``until`` is None for those that wait for a queue."""
        self.deferred += count
        if until is not None:
            self.retry_at = until if self.retry_at is None else min(until, self.retry_at)

    def add(self, other: Tally) -> None:
        """Count another pass's messages too."""
        self.listed += other.listed
        self.settled += other.settled
        self.unfetched += other.unfetched
        self.put_off(other.deferred, other.retry_at)
        self.exhausted = self.exhausted and other.exhausted


@dataclass(slots=True)
class _Batch:
    """Refs to be worked on together; once they are claimed the folder may advance to ``position``.

    ``alone``: nothing further is begun before what has become of this batch is known.
    """

    refs: list[MessageRef]
    position: Position | None = None
    alone: bool = False


@dataclass(slots=True)
class _Hand:
    """One batch on its way, filled from top to bottom: claimed, fetched, judged, settled."""

    claims: list[Claim] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    """What the server is to be told: dispositions of earlier days at first, then this batch's own."""
    reservation: Reservation | None = None
    fetched: list[RawMessage] = field(default_factory=list)
    gone: list[Claim] = field(default_factory=list)
    lost: SessionLost | None = None
    judged: list[Judged] = field(default_factory=list)
    repeated: list[Outcome] = field(default_factory=list)
    digests: dict[bytes, str] = field(default_factory=dict)
    """Digest -> mid of what is held whole: the ledger knows of them only once they are settled."""

    @property
    def empty(self) -> bool:
        """True if nothing remains to be done with it."""
        return not (self.claims or self.settlements)

    def release(self) -> None:
        """Give back octets and room. Harmless when repeated."""
        for raw in self.fetched:
            raw.octets.close()
        self.fetched = []
        if self.reservation is not None:
            self.reservation.release()
            self.reservation = None


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
        self._reachable = reachable
        self._bodies_wanted = bodies_wanted
        self._judging = judging or Turns(1)
        self._observer = observer
        self._open: dict[str, Claim] = {}
        """Claims that are in hand, by mid: given back however a pass ends."""
        self._untold: dict[str, Settlement] = {}
        """Settlements whose disposition is not recorded yet, by mid: after trouble they are the first thing to do."""
        self._fresh: set[bytes] = set()
        """Digests that first came in the new epoch whose first listing is worked through: a twin of theirs is no repeat of old."""
        self._hung_up = False
        """Telling the server of settlements is what lost the last session."""
        self._doubt = Doubt()

    # --- a pass ------------------------------------------------------------------------------------------------
    async def carry(
        self, session: Session, folder: Folder, since: Position | None, start: Start, *, suppress: bool
    ) -> Tally:
        """Work through all that is due and pending in the open folder, and say what it came to.

        While one batch is delivered and committed the next one is fetched; no more than these two hold octets. ``suppress``:
        this is the first full listing after an epoch change, so octets that were settled before are not delivered again.
        Ends early, between batches, when the service stops. However it ends, no claim stays in hand.
        """
        tally = Tally()
        if not suppress:
            self._fresh.clear()
        if self._open:
            await self._put_down(list(self._open.values()))
        try:
            await self._carry_suspects(session, folder, suppress, tally)
            await self._stream(session, folder, self._batches(session, folder, since, start, tally), suppress, tally)
        finally:
            if self._open:
                # A ledger that cannot commit now keeps them open; the next pass gives them back first.
                with contextlib.suppress(LedgerUnavailable):
                    await self._put_down(list(self._open.values()))
        return tally

    async def _carry_suspects(self, session: Session, folder: Folder, suppress: bool, tally: Tally) -> None:
        """Messages that an earlier process died with, before anything else and each alone."""
        while not self._stop.is_set():
            # Suspects are due before all others: where the first is none, there is none.
            refs = await self._ledger.due(folder, limit=1, down=self._dispatcher.down())
            claims, _ = await self._claim(refs)
            if not claims or not claims[0].suspect:
                if claims:
                    await self._put_down(claims)
                return
            await self._carry_suspect(session, claims[0], suppress, tally)

    async def _stream(
        self, session: Session, folder: Folder, batches: AsyncIterator[_Batch], suppress: bool, tally: Tally
    ) -> None:
        """A line of four stations, all at work at once: one batch is claimed, the next fetched and judged, the next
        delivered and committed, and of the last, which is settled, the server is told. Only two of them hold octets.
        """
        # Where telling the server is what loses the session, as a move may do again and again, what is overdue is told
        # last: else it would keep new mail from its queue for ever.
        last = self._hung_up
        overdue = {mid: one for mid, one in self._untold.items() if one.ref.folder == folder}
        line = [_Hand(), _Hand(), _Hand(settlements=[] if last else list(overdue.values()))]
        lost: SessionLost | None = None

        async def tell(settlements: Sequence[Settlement]) -> None:
            nonlocal lost
            if lost is None and settlements:
                try:
                    await self._dispose(session, settlements)
                    self._hung_up = False
                except SessionLost as error:
                    self._hung_up, lost = True, error

        async def move_on(batch: _Batch | None = None) -> None:
            nonlocal lost
            line.insert(0, _Hand())
            claimed, fetched, delivered, settled = line
            await side_by_side(
                claim=self._take(folder, batch, claimed),
                fetch=self._fetch_and_judge(
                    session, fetched, delivered.digests, suppress, tally, stopped=lost is not None
                ),
                deliver=self._deliver(delivered, tally),
                dispose=tell(settled.settlements),
            )
            line.pop()
            if last:
                overdue.update((one.mid, one) for one in claimed.settlements)
                claimed.settlements = []
            lost = lost or fetched.lost
            self._observer.progressed()

        try:
            async for batch in batches:
                await move_on(batch)
                while batch.alone and lost is None and not all(hand.empty for hand in line):
                    await move_on()
                if lost is not None:
                    break
            while not all(hand.empty for hand in line):
                await move_on()
            if last:
                await tell(list(overdue.values()))
            if lost is not None:
                raise lost
        finally:
            for hand in line:
                hand.release()

    async def _batches(
        self, session: Session, folder: Folder, since: Position | None, start: Start, tally: Tally
    ) -> AsyncIterator[_Batch]:
        """What is due, then what is pending, cut to size.

        Each batch is cut when it is asked for, because a queue that went down meanwhile changes what is worth fetching. What may
        take the session with it comes last.
        """
        doubted = self._doubt.uids(folder)
        worked = set(doubted)
        while not self._stop.is_set():
            probing = self._dispatcher.probing()
            limit = 1 if probing else self._limits.batch_messages
            asked = limit if probing else limit * (1 + IN_HAND)  # what is in hand looks due still, and comes first
            due = await self._ledger.due(folder, limit=asked + len(doubted), down=self._dispatcher.down())
            waiting = deque(ref for ref in due if ref.uid not in worked)
            if not waiting:
                break
            piece = self._cut(waiting, limit, rest=True)
            worked.update(ref.uid for ref in piece)
            yield _Batch(piece, alone=bool(probing))
        if self._has_to_end():
            return
        listed = yielded = 0
        waiting = deque()
        covered: deque[tuple[int, Position]] = deque()
        async for page in session.pending(folder, since, start):
            if since is None and not tally.listed and page.listed is not None:
                log.info("folder.listed", mailbox=self._mailbox, folder=folder.name, listed=page.listed)
            if page.unwanted:
                await self._skip(page.unwanted)
            refs = [ref for ref in page.refs if ref.uid not in worked] if worked else list(page.refs)
            tally.listed += len(page.refs)
            listed += len(refs)
            waiting += refs
            if page.position is not None:
                covered.append((listed, page.position))
            while piece := self._cut(waiting, self._new_at_once(), rest=False):
                yielded += len(piece)
                yield _Batch(piece, _reached(covered, yielded), alone=self._new_at_once() == 1)
                if self._has_to_end():
                    return
        while waiting or covered:
            piece = self._cut(waiting, self._new_at_once(), rest=True)
            yielded += len(piece)
            yield _Batch(piece, _reached(covered, yielded), alone=self._new_at_once() == 1)
            if waiting and self._has_to_end():
                return
        for refs in self._doubt.pieces(folder):
            waiting = deque(refs)
            while waiting:
                if self._has_to_end():
                    return
                yield _Batch(self._cut(waiting, len(refs), rest=True), alone=True)
        tally.exhausted = True

    def _has_to_end(self) -> bool:
        """True if the service stops, or there is no point in fetching new mail: every queue that it could go to is down."""
        if self._stop.is_set():
            return True
        if self._reachable and self._reachable <= self._dispatcher.down():
            log.debug("mailbox.waiting", mailbox=self._mailbox, queues=sorted(self._reachable))
            return True
        return False

    def _new_at_once(self) -> int:
        """How many new messages a batch may have: one, while every queue that they could go to wants one message first."""
        doubtful = self._dispatcher.down() | self._dispatcher.probing()
        return 1 if self._reachable and self._reachable <= doubtful else self._limits.batch_messages

    async def _skip(self, refs: Sequence[MessageRef]) -> None:
        """Record messages that were there before the first run and that ``start`` does not want."""
        for begin in range(0, len(refs), self._limits.batch_messages):
            claims, _ = await self._claim(refs[begin : begin + self._limits.batch_messages])
            outcomes = [Outcome(claim=claim, kind="skipped", disposition=LEAVE, receipts={}) for claim in claims]
            if outcomes:
                await self._ledger.settle(outcomes)
                self._close(claims)
        log.info("folder.skipped_over", mailbox=self._mailbox, skipped=len(refs))

    def _cut(self, waiting: deque[MessageRef], limit: int, *, rest: bool) -> list[MessageRef]:
        """Take the next piece off ``waiting``: at most ``limit`` messages and, by the sizes that the server announced, so many
        octets. Without ``rest`` a piece that could still grow is left there."""
        octets = count = 0
        for ref in waiting:
            octets += self._expected(ref)
            if count and (count >= limit or octets > self._limits.batch_size):
                break
            count += 1
        else:
            if not rest:
                return []
        return [waiting.popleft() for _ in range(count)]

    def _expected(self, ref: MessageRef) -> int:
        limit = self._config.max_message_size
        return limit if ref.size is None else min(ref.size, limit)

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

    async def _take(self, folder: Folder, batch: _Batch | None, hand: _Hand) -> None:
        """Claim a batch, and record how far the listing got by it."""
        if batch is None:
            return
        hand.claims, hand.settlements = await self._claim(batch.refs)
        if batch.position is not None:
            await self._ledger.advance(folder, batch.position)

    async def _fetch_and_judge(
        self,
        session: Session,
        hand: _Hand,
        before: Mapping[bytes, str],
        suppress: bool,
        tally: Tally,
        *,
        stopped: bool,
    ) -> None:
        """Fetch what was claimed and judge it. A lost session is noted in the hand: what it holds is finished first.

        ``before``: the digests of the batch that is being delivered. ``stopped``: the session is lost; then, and
        when there is no point in fetching any more, the claims are given back.
        """
        if not hand.claims:
            return
        if stopped or self._has_to_end():
            await self._put_down(hand.claims)
            hand.claims = []
            return
        await self._fetch(session, hand.claims, hand, self._config.max_message_size, tally)
        async with self._judging.turn(self._mailbox, len(hand.fetched) + 1):
            await self._judge_batch(hand, before, suppress, tally)

    async def _fetch(self, session: Session, claims: Sequence[Claim], hand: _Hand, limit: int, tally: Tally) -> None:
        """Fetch every claim into the hand. Those that cannot be fetched are put off or, if the session is lost, given back."""
        room = sum(min(self._expected(claim.ref), MEMORY_THRESHOLD) for claim in claims)
        hand.reservation = await self._budget.reserve(room)
        missing = {claim.mid: claim for claim in claims}
        trouble: TransientError | None = None
        try:
            async for answer in session.fetch(claims, limit):
                missing.pop(answer.claim.mid, None)
                if isinstance(answer, Gone):
                    hand.gone.append(answer.claim)
                else:
                    hand.fetched.append(answer)
        except SessionLost as error:
            hand.lost = error
        except TransientError as error:
            trouble = error
        if not missing:
            return
        left = list(missing.values())
        if hand.lost is None:
            await self._unfetchable(left, str(trouble or "the server did not answer for it"), tally, trouble)
        elif self._doubt.lost([claim.ref for claim in left]):
            await self._unfetchable(left, "the session is lost whenever it is fetched", tally, None)
        else:
            await self._put_down(left)

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

    async def _carry_suspect(self, session: Session, claim: Claim, suppress: bool, tally: Tally) -> None:
        """One message that an earlier process died with: alone, and marked while it is parsed and judged."""
        poison = claim.strikes >= self._limits.max_strikes
        large = self._expected(claim.ref) > MEMORY_THRESHOLD
        hand = _Hand([claim])
        try:
            limit = POISON_HEAD if poison and large else self._config.max_message_size
            await self._fetch(session, [claim], hand, limit, tally)
            if not poison and hand.fetched:
                await self._ledger.at_risk(claim)
                async with self._judging.turn(self._mailbox):
                    await self._judge_batch(hand, {}, suppress, tally, thorough=True)
                await self._ledger.cleared(claim)
            else:
                hand.judged = [self._poison(raw) for raw in hand.fetched]
            await self._deliver(hand, tally)
        finally:
            hand.release()
        self._observer.progressed()
        if hand.lost is not None:
            raise hand.lost
        await self._dispose(session, hand.settlements)

    def _poison(self, raw: RawMessage) -> Judged:
        claim = raw.claim
        detail = f"the process died {claim.strikes} times while this message was parsed; it was not parsed again"
        log.error("message.poisonous", mid=claim.mid, mailbox=self._mailbox, uid=claim.ref.uid, strikes=claim.strikes)
        self._observer.fault("message.poisonous", detail, claim.mid)
        judged = Judged(claim, unparsed(raw), Quarantine("poison", detail))
        self._dispatcher.prepare(judged)
        return judged

    # --- judge, dispatch, settle -------------------------------------------------------------------------------
    async def _judge_batch(
        self, hand: _Hand, before: Mapping[bytes, str], suppress: bool, tally: Tally, *, thorough: bool = False
    ) -> None:
        """Parse, judge and render what was fetched. ``thorough``: bodies too, wanted or not."""
        whole = [raw.octets.digest for raw in hand.fetched if not raw.truncated]
        known = {**before, **await self._ledger.repeats(self._mailbox, whole)} if whole else {}
        breath = time.perf_counter()
        for raw in hand.fetched:
            digest = raw.octets.digest
            repeat_of = None if raw.truncated else known.get(digest)
            if repeat_of == raw.claim.mid:
                repeat_of = None
            if repeat_of is not None and suppress and not raw.claim.route and digest not in self._fresh:
                hand.repeated.append(self._dispatcher.repeated(raw.claim, raw, repeat_of))
                continue
            if suppress:
                self._fresh.add(digest)
            if not raw.truncated:
                hand.digests[digest] = known.setdefault(digest, raw.claim.mid)
            one = await self._judge(raw, repeat_of, tally, thorough)
            if one is not None:
                hand.judged.append(one)
            if time.perf_counter() - breath > _BREATH:
                await asyncio.sleep(0)
                breath = time.perf_counter()

    async def _judge(self, raw: RawMessage, repeat_of: str | None, tally: Tally, thorough: bool) -> Judged | None:
        """A message with verdict and events. A failure here is a bug of ours: counted, and in the end quarantined unparsed."""
        claim = raw.claim
        try:
            bodies = thorough or self._bodies_wanted
            if raw.octets.size > LARGE:
                message = await asyncio.to_thread(_read, raw, bodies)
            else:
                message = _read(raw, thorough)
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

    async def _deliver(self, hand: _Hand, tally: Tally) -> None:
        """Deliver what is judged, commit what has become of it, and release the octets."""
        try:
            outcomes = [*hand.repeated, *(self._dispatcher.gone(claim) for claim in hand.gone)]
            deferrals: list[Deferral] = []
            if hand.judged:
                done, deferrals = await self._dispatcher.dispatch(hand.judged)
                outcomes += done
            if outcomes:
                settlements = await self._ledger.settle(outcomes)
                self._close(outcome.claim for outcome in outcomes)
                self._untold.update((one.mid, one) for one in settlements if not one.disposition.leaves)
                hand.settlements += settlements
            if deferrals:
                await self._defer(deferrals, tally)
            for outcome in outcomes:
                self._tell(outcome)
            tally.settled += len(outcomes)
        finally:
            hand.claims = []
            hand.release()

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


def _reached(covered: deque[tuple[int, Position]], yielded: int) -> Position | None:
    """The furthest position all of whose messages are among the first ``yielded`` of the listing."""
    position = None
    while covered and covered[0][0] <= yielded:
        position = covered.popleft()[1]
    return position


def _read(raw: RawMessage, body: bool) -> Message:
    """The parsed message, with its body if that is wanted; otherwise it is parsed when somebody first asks."""
    message = parse(raw)
    if body:
        _ = message.body
    return message
