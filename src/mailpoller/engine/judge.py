"""From octets to verdicts: parsing, rules and rendering, of one mailbox's batches."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import structlog

from mailpoller.core.body import Body, Contents, Undone
from mailpoller.core.errors import MailpollerError, machine_trouble
from mailpoller.core.message import Claim, Message, RawMessage
from mailpoller.core.ports import Clock, Heirless
from mailpoller.core.verdict import Quarantine
from mailpoller.engine.acknowledging import Acknowledging
from mailpoller.engine.deferral import MACHINE_AGAIN, Deferral, put_off
from mailpoller.engine.dispatcher import Dispatcher
from mailpoller.engine.in_flight import InFlight, Pass
from mailpoller.engine.judged import Judged
from mailpoller.engine.observer import Observer
from mailpoller.engine.opening import Opener, Unopened
from mailpoller.engine.pipeline import Pipeline
from mailpoller.engine.records import Records
from mailpoller.engine.threads import ThreadFinder, begun
from mailpoller.engine.turns import Turns
from mailpoller.mail.parser import UNPARSED, parse, unparsed
from mailpoller.storage.thread import Pool
from mailpoller.workers.pool import NoWorker, Unread, Workers

log = structlog.get_logger(__name__)

_parsers = Pool("parse", 4)
"""Threads of its own: whatever hangs in others, mail is parsed."""

LARGE = 1_000_000
"""A message of more octets is parsed in a thread, so that no other mailbox waits for it."""

DOUBTED_TRIES = 5
DOUBTED_FOR = timedelta(hours=1)
"""A message whose octets come without a proper end is asked for so often, and for so long, before a copy of what
comes is kept."""

SCATTERED = 1.0
"""Seconds over which the moments are scattered at which what has a strike is at risk."""

_FATE = {"died": "dies of it", "timed-out": "hangs", "out-of-memory": "runs out of memory", "too-deep": "goes too deep"}

_BREATH = 0.002
"""Seconds of parsing after which other tasks get their turn."""


class Judge:
    """Parses and judges what one mailbox's batch runner has fetched, and has the events rendered.

    ``turns``: those that all mailboxes take at the processor. ``max_strikes``: so often a message may take the
    process, or our code, with it. ``threads``: what finds the conversations of answers. ``bodies_wanted``: some rule
    or queue looks below the header. ``workers``: who reads what may do harm; None: we do. ``acknowledging``: tells
    whose sender is to be told that it has come; None: nobody's.
    """

    def __init__(
        self,
        mailbox: str,
        *,
        pipeline: Pipeline,
        dispatcher: Dispatcher,
        records: Records,
        threads: ThreadFinder,
        clock: Clock,
        turns: Turns,
        max_strikes: int,
        bodies_wanted: bool,
        observer: Observer,
        workers: Workers | None = None,
        acknowledging: Acknowledging | None = None,
    ) -> None:
        self._mailbox = mailbox
        self._pipeline = pipeline
        self._dispatcher = dispatcher
        self._records = records
        self._threads = threads
        self._clock = clock
        self._turns = turns
        self._max_strikes = max_strikes
        self._bodies_wanted = bodies_wanted
        self._observer = observer
        self._workers = workers
        self._acknowledging = acknowledging if acknowledging else None
        self._opener = Opener(mailbox, observer)

    async def judge(self, now: Pass, in_flight: InFlight) -> None:
        """Fill in what is judged, what need not be (a repeat from an earlier epoch), and what is put off. A suspect
        is read by a worker first, and marked while it is parsed and judged here.

        Nothing else is parsed meanwhile, whatever its mailbox, so that no message is struck for what another one did.
        And one that has a strike waits for a moment of its own first: a process that dies of something else dies at
        the same moment after each start, and would strike again and again whatever is at risk just then.
        """
        if in_flight.poison:
            self._condemn(in_flight)
            return
        suspects = [raw for raw in in_flight.fetched if raw.claim.suspect]
        apart = await self._read_apart([raw for raw in suspects if not raw.doubt])
        later: list[Unopened] = []
        if any(raw.claim.strikes for raw in suspects):
            await self._clock.sleep(random.uniform(0.0, SCATTERED))
        turn = self._turns.alone if suspects else self._turns.turn
        async with turn(self._mailbox, len(in_flight.fetched) + 1):
            settled, former = await self._repeats(now, in_flight)
            breath = time.perf_counter()
            for raw in in_flight.fetched:
                if raw.doubt:
                    _put(self._doubtful(raw), in_flight)
                    continue
                digest = raw.octets.digest
                if former and (stands_for := self._stands_for(now, raw, former)) is not None:
                    in_flight.outcomes.append(self._dispatcher.repeated(raw.claim, raw, stands_for))
                    continue
                if now.heirless and (former_self := await self._former_self(now, raw, known=digest in settled)):
                    raw = replace(raw, claim=await self._records.bearers.inherit(raw.claim, former_self))
                repeat_of = None if raw.truncated else settled.get(digest) or now.digests.get(digest)
                if repeat_of == raw.claim.mid:
                    repeat_of = None
                if not raw.truncated:
                    in_flight.digests[digest] = now.digests.setdefault(digest, raw.claim.mid)
                if raw.claim.suspect:
                    await self._records.backlog.at_risk(raw.claim)
                one = await self._judged(raw, repeat_of, apart.get(raw.claim.mid))
                if raw.claim.suspect:
                    await self._records.backlog.cleared(raw.claim)
                if isinstance(one, Unopened):
                    later.append(one)
                else:
                    _put(one, in_flight)
                if time.perf_counter() - breath > _BREATH:
                    await asyncio.sleep(0)
                    breath = time.perf_counter()
        if later:
            await self._judge_later(now, later, in_flight)
        if self._pipeline.tells_conversations:
            for one in in_flight.judged:
                if one.message.message_id:
                    in_flight.threads[one.message.message_id] = begun(one.message)
            now.threads.update(in_flight.threads)
        if self._acknowledging is not None and not now.quiet:
            for one in in_flight.judged:
                one.acknowledgement = self._acknowledging.owed(one.message, one.verdict, repeated=bool(one.repeat_of))

    async def _judge_later(self, now: Pass, later: Sequence[Unopened], in_flight: InFlight) -> None:
        """Have the parts opened that take a reader of their own, and the conversations found of what answers earlier
        mails, while nobody waits for us; then judge."""
        await self._threads.find([one.message for one in later], [one.message for one in in_flight.judged], now.threads)
        if self._bodies_wanted:
            await self._opener.open(self._workers, [one for one in later if one.message.closed])
        async with self._turns.turn(self._mailbox, len(later) + 1):
            for one in later:
                judged = await self._judged(one.raw, one.repeat_of, one.trouble, message=one.message)
                assert not isinstance(judged, Unopened)
                _put(judged, in_flight)
                await asyncio.sleep(0)
        order = {raw.claim.mid: number for number, raw in enumerate(in_flight.fetched)}
        in_flight.judged.sort(key=lambda one: order[one.claim.mid])

    async def judge_held(self, raw: RawMessage, repeat_of: str | None) -> Judged | Deferral:
        """Judge a message that is in quarantine, or is brought once more, by today's rules, its deliveries prepared. It
        is read by a worker, as nobody knows what it may do; nothing is claimed or put off by it.

        Raises :class:`~mailpoller.core.errors.MailpollerError` if there is no worker to read it.
        """
        if self._workers is None:
            raise MailpollerError(
                "what is brought once more is read by a worker alone, and there is none: service.workers"
            )
        raw = replace(raw, claim=replace(raw.claim, suspect=True))
        apart = await self._read_apart([raw])
        async with self._turns.turn(self._mailbox, 1):
            one = await self._judged(raw, repeat_of, apart.get(raw.claim.mid), again=True)
        assert not isinstance(one, Unopened)  # a suspect's parts were opened by the worker
        return one

    def is_poison(self, claim: Claim) -> bool:
        """True if it has killed the process too often to be parsed again."""
        return claim.strikes >= self._max_strikes

    def _condemn(self, in_flight: InFlight) -> None:
        """Judge poison: it goes to quarantine unparsed."""
        for raw in in_flight.fetched:
            claim = raw.claim
            detail = f"the process died {claim.strikes} times while this message was parsed; it was not parsed again"
            log.error(
                "message.poisonous", mid=claim.mid, mailbox=self._mailbox, uid=claim.ref.uid, strikes=claim.strikes
            )
            self._observer.fault("message.poisonous", detail, claim.mid)
            in_flight.judged.append(self._unread(raw, Quarantine("poison", detail)))

    async def _repeats(
        self, now: Pass, in_flight: InFlight
    ) -> tuple[Mapping[bytes, str], Mapping[bytes, Sequence[str]]]:
        """Digest -> mid of what was settled before, anywhere in the mailbox; digest -> mids of what was settled in
        former epochs of this folder, if those count, or under the same name by an earlier bearer."""
        whole = [raw for raw in in_flight.fetched if not raw.truncated and not raw.doubt]
        settled = (
            await self._records.claims.repeats(self._mailbox, [raw.octets.digest for raw in whole]) if whole else {}
        )
        asked = [
            raw.octets.digest for raw in whole if (now.suppress or raw.claim.bearer) and raw.octets.digest in settled
        ]
        return settled, await self._records.bearers.former(now.folder, asked) if asked else {}

    def _stands_for(self, now: Pass, raw: RawMessage, former: Mapping[bytes, Sequence[str]]) -> str | None:
        """The mid of an earlier message with equal octets that this one is, or None. Each of them is one message, and
        not all that look alike; one that has been brought to a queue already under its own mid is itself."""
        if raw.truncated or raw.claim.route or not (now.suppress or raw.claim.bearer):
            return None
        for mid in former.get(raw.octets.digest, ()):
            if mid not in now.stood_for and mid != raw.claim.mid:
                now.stood_for.add(mid)
                return mid
        return None

    async def _former_self(self, now: Pass, raw: RawMessage, *, known: bool) -> Heirless | None:
        """What this message was when its name went, if it was on its way then: taken out of the pass. Its header
        tells, where that was noted; of what a process died with only a queue can tell that holds it. ``known``: equal
        octets were noted before, so it did not die with them."""
        claim = raw.claim
        if claim.identity is not None or claim.route or claim.suspect or claim.generation or raw.truncated:
            return None
        one: Judged | Deferral | Unopened = await self._judged(raw, None, opening=False)
        if not isinstance(one, Judged) or one.message.identity is None:
            return None
        size = claim.ref.size if claim.ref.size is not None else raw.announced
        found = next((other for other in now.heirless if other.identity == one.message.identity), None)
        if found is None and not known:
            alike = [other for other in now.heirless if other.identity is None and other.size == size]
            found = await self._dispatcher.held(one, alike) if alike else None
        if found is not None:
            now.heirless.remove(found)
        return found

    def _doubtful(self, raw: RawMessage) -> Judged | Deferral:
        """Octets without a proper end are not the message. It is asked for again, alone; what never comes better goes
        to quarantine in one copy, and the original stays as it is."""
        claim, now = raw.claim, self._clock.now()
        log.warning("message.doubted", mid=claim.mid, mailbox=self._mailbox, uid=claim.ref.uid, reason=raw.doubt)
        self._observer.fault("message.doubted", raw.doubt, claim.mid)
        tries, since = claim.doubts + 1, now - (claim.doubted_at or now)
        if tries < DOUBTED_TRIES or since < DOUBTED_FOR:
            until = put_off(now, claim.doubts, at_most=DOUBTED_FOR / 2)
            return Deferral(claim, until, f"in doubt: {raw.doubt}", cause="doubtful")
        detail = f"its octets came {tries} times without a proper end: {raw.doubt}; the original is untouched"
        return self._unread(raw, Quarantine("octets-doubtful", detail))

    async def _judged(
        self,
        raw: RawMessage,
        repeat_of: str | None,
        apart: Body | Unread | NoWorker | None = None,
        *,
        message: Message | None = None,
        opening: bool = True,
        again: bool = False,
    ) -> Judged | Deferral | Unopened:
        """A message with verdict and events; or with parts that are to be opened first. ``apart``: what a worker made
        of it, if one was asked. ``message``: it is parsed, and its parts are open. ``opening``: false for a message of
        which the identity alone is asked. ``again``: see :meth:`Pipeline.judge`.

        A failure here is a bug of ours: counted, and in the end quarantined unparsed."""
        claim = raw.claim
        try:
            if apart is not None and isinstance(apart, NoWorker | Unread):
                raise apart
            if message is not None:
                opening = False
            elif raw.octets.size > LARGE:
                message = await asyncio.get_running_loop().run_in_executor(
                    _parsers, _read, raw, apart is None and (claim.suspect or self._bodies_wanted)
                )
            else:
                message = _read(raw, apart is None and claim.suspect)
            if apart is not None:
                message.take_body(apart)
            if opening:
                closed, answers = self._bodies_wanted and message.closed, self._threads.waits(message)
                if (closed or answers) and not claim.suspect:
                    return Unopened(raw, message, repeat_of)
                if closed:  # nobody opens it who could not die of it; a worker would have
                    message.take_contents(Contents.unread(message.closed, "suspect"))
                if answers:
                    await self._threads.find([message], (), {})
            judged = Judged(claim, message, self._pipeline.judge(message, again=again).verdict, repeat_of)
            self._dispatcher.prepare(judged)
            return judged
        except Unread as error:
            detail = f"whatever parses it {_FATE.get(str(error), str(error))}; it was not parsed here"
            return self._unread(raw, Quarantine("poison", detail))
        except NoWorker as error:
            log.warning("worker.lacking", mailbox=self._mailbox, mid=claim.mid, reason=str(error))
            return Deferral(claim, self._clock.now() + MACHINE_AGAIN, str(error), cause="machine")
        except MailpollerError:
            raise
        except Exception as error:
            if (trouble := machine_trouble(error)) is not None:
                until = self._clock.now() + MACHINE_AGAIN
                log.warning(
                    "message.unfetched", mid=claim.mid, mailbox=self._mailbox, uid=claim.ref.uid, reason=trouble
                )
                self._observer.fault("message.unfetched", trouble, claim.mid)
                return Deferral(claim, until, trouble, cause="machine")
            log.exception("message.unprocessable", mid=claim.mid, mailbox=self._mailbox, uid=claim.ref.uid)
            self._observer.fault("message.unprocessable", type(error).__name__, claim.mid)
            if claim.failures + 1 < self._max_strikes:
                until = put_off(self._clock.now(), claim.failures)
                return Deferral(claim, until, f"unprocessable: {type(error).__name__}", cause="unprocessable")
            detail = f"processing failed {claim.failures + 1} times with {type(error).__name__}"
            return self._unread(raw, Quarantine("unprocessable", detail))

    async def _read_apart(self, suspects: Sequence[RawMessage]) -> dict[str, Body | Unread | NoWorker]:
        """What workers make of suspects, by mid. Nobody else waits meanwhile, however long it takes."""
        found: dict[str, Body | Unread | NoWorker] = {}
        if self._workers is None:
            return found
        for raw in suspects:
            try:
                found[raw.claim.mid] = await self._opener.whole(self._workers, raw, contents=self._bodies_wanted)
            except Unread as unread:
                found[raw.claim.mid] = await self._without_body(self._workers, raw, unread)
            except NoWorker as trouble:
                found[raw.claim.mid] = trouble
            self._observer.progressed()
        return found

    async def _without_body(self, workers: Workers, raw: RawMessage, unread: Unread) -> Body | Unread | NoWorker:
        """What stands for a body that held up or killed its worker; :class:`Unread` if the header alone does, too."""
        claim = raw.claim
        log.warning("message.unread", mid=claim.mid, mailbox=self._mailbox, uid=claim.ref.uid, reason=str(unread))
        self._observer.fault("message.unread", f"its body could not be read: {unread}", claim.mid)
        try:
            await workers.read(raw, header=True)
        except (Unread, NoWorker) as trouble:
            return trouble
        return Body("", "", (), undone=(Undone("body", str(unread)),))

    def _unread(self, raw: RawMessage, verdict: Quarantine) -> Judged:
        judged = Judged(raw.claim, unparsed(raw), verdict)
        self._dispatcher.prepare(judged)
        return judged


def _put(one: Judged | Deferral, in_flight: InFlight) -> None:
    """To where the next stage looks for it."""
    if not isinstance(one, Judged):
        in_flight.deferrals.append(one)
    elif one.claim.identity is not None and _is_stranger(one):
        in_flight.strangers.append(one.message.raw)
    else:
        in_flight.judged.append(one)


def _is_stranger(one: Judged) -> bool:
    """It was fetched before under this name, and was another message then."""
    return one.message.identity != one.claim.identity and UNPARSED not in one.message.header_defects


def _read(raw: RawMessage, body: bool) -> Message:
    """The parsed message, with its body if that is wanted; otherwise it is parsed when somebody first asks."""
    message = parse(raw)
    if body:
        _ = message.body
    return message
