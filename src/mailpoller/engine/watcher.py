"""One mailbox: connect, carry what is due and pending, wait, and come back after every kind of trouble."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from mailpoller.core.component import SourceConfig
from mailpoller.core.delivery import QUARANTINE, Disposed, Outcome, Question
from mailpoller.core.errors import (
    ConfigError,
    CredentialsRefused,
    LedgerUnavailable,
    MailpollerError,
    SessionLost,
    TransientError,
)
from mailpoller.core.message import Folder, MessageRef, Page
from mailpoller.core.ports import Clock, FolderState, Ledger, Progressing, Session, Source, Start, Stuck, Wake
from mailpoller.engine.agenda import Stop, Wanted
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.backoff import Backoff
from mailpoller.engine.connections import Connections, Place
from mailpoller.engine.courier import Courier
from mailpoller.engine.folders import FailingFolders
from mailpoller.engine.health import Condition, Health
from mailpoller.engine.numbering import Numbering
from mailpoller.engine.tally import Tally

log = structlog.get_logger(__name__)

T = TypeVar("T")

CONNECT_DEADLINE = timedelta(minutes=5)
"""For the whole of connecting; a source keeps finer deadlines of its own."""

LONGEST_RETRY = timedelta(hours=1)
CREDENTIALS_RETRY = timedelta(minutes=5)
"""The least wait after a refused login: servers lock accounts that knock faster."""

CLOCK_MARGIN = timedelta(hours=1)
"""In a new epoch, mail that the server received so long before our first run still counts as later: its clock is not ours
and counts whole seconds. What was settled before is known by its fingerprint; what is skipped would be lost."""

LEAST = 1000
"""Octets a second that are progress."""
WINDOW = timedelta(minutes=1)
"""They are counted over so long."""
GIVEN_UP = timedelta(minutes=1)
"""How long a pass may take to end once what it fetches was given up."""
STANDSTILL = "no step got anywhere within its budget"

PRUNE_INTERVAL = timedelta(days=1)
PRUNED_LATER = timedelta(hours=1)
"""After a listing that was not whole, the next one for a pruning comes so much later."""


@dataclass(frozen=True, slots=True)
class Remainder:
    """What a drain left of a mailbox: why, in words, or nothing; messages that wait, and those whose disposition is not done."""

    trouble: str = ""
    waiting: int = 0
    undisposed: int = 0

    @property
    def nothing(self) -> bool:
        """True if all is done."""
        return not (self.trouble or self.waiting or self.undisposed)

    def __str__(self) -> str:
        parts = [self.trouble] if self.trouble and not (self.waiting or self.undisposed) else []
        parts += [f"{self.waiting} waiting"] if self.waiting else []
        parts += [f"{self.undisposed} to dispose of"] if self.undisposed else []
        return ", ".join(parts)


class Patience:
    """When the courier has to end a pass, between two batches: the service stops, or somebody else needs the connection."""

    def __init__(self, stop: Stop) -> None:
        self.place: Place | None = None
        """The connection that others may need; None: it need not be shared."""
        self.gained = False
        """Something was settled since we have it. Who gave way before that would only list the same again, for ever."""
        self._stop = stop

    def begin(self, place: Place) -> None:
        """A session begins on this connection."""
        self.place, self.gained = place, False

    def is_set(self) -> bool:
        """True if it is at its end."""
        return self._stop.is_set() or (self.place is not None and self.gained and self.place.gives_way())


class Watcher:
    """Keeps one mailbox polled for as long as the service runs.

    ``deadline`` (monotonic seconds) is when the supervisor may think that it is stuck; every step that gets somewhere
    moves it by ``budget``. ``stir`` and ``rouse`` end a wait early.
    """

    def __init__(
        self,
        mailbox: str,
        config: SourceConfig,
        source: Source,
        *,
        ledger: Ledger,
        clock: Clock,
        health: Health,
        alarm: Alarm,
        budget: timedelta,
        stop: Stop,
        connecting: asyncio.Semaphore,
        connections: Connections | None = None,
    ) -> None:
        self.mailbox = mailbox
        self.config = config
        self.source = source
        self.deadline = float("inf")
        self.leash: asyncio.Timeout | None = None
        self.courier: Courier | None = None
        self.remainder = Remainder("it was not drained")
        """What the last drain left."""
        self._ledger = ledger
        self._clock = clock
        self._health = health
        self._alarm = alarm
        self._budget = budget.total_seconds()
        self._stop = stop
        self._connecting = connecting
        self._connections = connections or Connections(clock)
        self.patience = Patience(stop)
        self._due_at = clock.monotonic()
        """When the mailbox wants to be polled next: how long it is overdue decides whose turn it is to connect."""
        self._stirred = False
        self._sleeper: asyncio.Timeout | None = None
        self._backing_off = False
        cap = min(LONGEST_RETRY, config.reconnect_interval * 30)
        self._backoff = Backoff(config.reconnect_interval, max(cap, config.reconnect_interval))
        self._refusals = Backoff(max(CREDENTIALS_RETRY, config.reconnect_interval), LONGEST_RETRY)
        self._failing = FailingFolders(
            mailbox, config, alarm=alarm, health=health.mailboxes[mailbox], group=source.account.host
        )
        self._held: set[Folder] = set()
        self._begun: set[Folder] = set()
        """Folders whose first run or new epoch was looked at and said. Their first position may be long in coming: nothing is
        listed while every queue is down."""
        self._numbering = Numbering(mailbox, config, ledger=ledger, clock=clock)
        self._disposition_failing = False
        self._gaps: dict[str, str] = {}
        """Folder -> what its listing does not show."""
        self._prune_after: dict[str, datetime] = {}
        """Folder -> when it is to be pruned at the earliest, of those whose last whole listing was none."""
        self._counted: Progressing | None = None
        """The session, if it counts octets."""
        self._mark: tuple[float, int] | None = None
        """When it had how many."""

    # --- what the courier reports -------------------------------------------------------------------------------
    def progressed(self) -> None:
        self.deadline = self._clock.monotonic() + self._budget

    def pulse(self) -> None:
        """Called by the supervisor at every look: octets that come at :data:`LEAST` a second put the deadline off."""
        if self._counted is None or self.deadline == float("inf"):
            return
        now, octets = self._clock.monotonic(), self._counted.octets_in
        at, seen = self._mark or (now, octets)
        if octets > seen and octets - seen >= LEAST * (now - at):
            self.deadline = max(self.deadline, now + self._budget)
        elif self._mark is not None and octets >= seen and now - at < WINDOW.total_seconds():
            return
        self._mark = now, octets

    def give_up(self) -> bool:
        """The deadline has passed: give up what is being fetched, and nothing else; what has come of it is delivered. False if nothing
        is, or that was done already: then only the end of the whole task is left."""
        if self.courier is None or not self.courier.give_up(STANDSTILL):
            return False
        log.error("fetch.abandoned", mailbox=self.mailbox, reason=STANDSTILL)
        self.fault("fetch.abandoned", STANDSTILL, "")
        self.deadline = self._clock.monotonic() + GIVEN_UP.total_seconds()
        return True

    def absence(self, detail: str) -> None:
        if detail:
            self._alarm.tell(Kind.MAIL_ABSENT, self.mailbox, detail, group=self._group)
            self._alarm.fault(self.mailbox, "mail.absent", detail)
        else:
            self._alarm.tell_end(Kind.MAIL_ABSENT, self.mailbox)

    def replaced(self, count: int) -> None:
        self._renumbered(f"{count} of its names stand for other messages now", "message.replaced")

    def _renumbered(self, reason: str, event: str) -> None:
        at = self._clock.now().isoformat(timespec="seconds")
        self._alarm.tell(Kind.NUMBERING_CHANGED, self.mailbox, f"{reason} ({at})", group=self._group)
        self._alarm.fault(self.mailbox, event, reason)

    def settled(self, outcome: Outcome) -> None:
        health = self._health.mailboxes[self.mailbox]
        health.settled += 1
        self.patience.gained = True
        if outcome.kind == "doubtful":
            self._alarm.tell(Kind.OCTETS_DOUBTFUL, self.mailbox, f"message {outcome.claim.mid}", group=self._group)
        if outcome.kind == "quarantined":
            health.quarantined += 1
            if outcome.reason == "poison":
                self._alarm.tell(
                    Kind.POISON_QUARANTINED, self.mailbox, f"message {outcome.claim.mid}", group=self._group
                )
            if QUARANTINE in outcome.receipts:
                self._alarm.tell_end(Kind.LAST_RESORT_USED, self.mailbox)

    def disposed(self, failed: Sequence[Disposed], applied: Sequence[Disposed]) -> None:
        if failed:
            self._disposition_failing = True
            self._alarm.tell(Kind.DISPOSITION_IMPOSSIBLE, self.mailbox, failed[0].reason, group=self._group)
            self._alarm.fault(self.mailbox, "disposition.failed", failed[0].reason, failed[0].settlement.mid)
        elif applied and self._disposition_failing:
            self._disposition_failing = False
            self._alarm.tell_end(Kind.DISPOSITION_IMPOSSIBLE, self.mailbox)

    def questioned(self, folder: Folder, questions: Sequence[Question]) -> None:
        there = {one.ref.uid for one in questions}
        questions = [*questions, *(one for one in self._numbering.unanswered(folder) if one.ref.uid not in there)]
        asked = self._health.mailboxes[self.mailbox].questioned
        known = {one.ref.uid: one.since for one in asked.pop(folder.name, ())}
        if questions:
            now = self._clock.now()
            asked[folder.name] = [
                Stuck("question", one.ref, one.mid, known.get(one.ref.uid, now), "its header cannot be had")
                for one in questions
            ]

    def rebuilt(self, event: str, detail: str) -> None:
        """The supervisor runs us again after trouble that is not ours to mend."""
        self._health.rebuilt(self.mailbox)
        self.fault(event, detail, "")

    def fault(self, event: str, detail: str, mid: str) -> None:
        self._alarm.fault(self.mailbox, event, detail, mid)
        if event == "last_resort.used":
            self._alarm.tell(Kind.LAST_RESORT_USED, self.mailbox, detail, group=self._group)

    @property
    def _group(self) -> str:
        return self.source.account.host

    # --- for as long as the service runs -----------------------------------------------------------------------
    async def run(self) -> None:
        """Session after session until the service stops; returns then. Raises only what is a bug."""
        while not self._stop.is_set():
            try:
                if await self._attend_in_turn():
                    await self._rest()
            except LedgerUnavailable as error:
                await self._trouble(Kind.LEDGER_UNWRITABLE, error, self._backoff)
            except CredentialsRefused as error:
                await self._trouble(Kind.CREDENTIALS_REFUSED, error, self._refusals)
            except (TransientError, ConfigError) as error:
                await self._trouble(Kind.MAILBOX_DOWN, error, self._backoff)

    async def _attend_in_turn(self) -> bool:
        """One session, once there may be one; True if it ended to make room for another mailbox."""
        place = await self._admitted()
        if place is None:
            return False
        with place:
            self.patience.begin(place)
            async with self._session() as session:
                await self._attend(session, place)
            return place.yielding

    async def _admitted(self) -> Place | None:
        """The right to connect, once it is our turn; None when the service stops."""
        self._health.enter(self.mailbox, Condition.QUEUING)
        self.deadline = float("inf")
        while not self._stop.is_set():
            interval = self.config.poll_interval.total_seconds()
            wish = functools.partial(self._connections.take, self.mailbox, self._group, self._due_at, interval)
            if (place := await self._unless_stirred(wish)) is not None:
                return place
        return None

    async def _rest(self) -> None:
        """Without a connection until the next poll is due, or until somebody stirs us."""
        wait = max(0.0, self._due_at - self._clock.monotonic())
        log.debug("session.yielded", mailbox=self.mailbox, rest_s=round(wait, 1))
        self._health.enter(self.mailbox, self._at_rest, "without a connection until its next poll")
        self.deadline = self._clock.monotonic() + wait + self._budget
        await self._unless_stirred(lambda: self._clock.sleep(wait))

    async def _attend(self, session: Session, place: Place) -> None:
        """Poll and wait until the session ends, wants to be renewed, or is asked to make room."""
        everything = True
        next_poll = self._clock.monotonic()
        while not self._stop.is_set():
            names = list(await session.folders())
            # The first folder comes last, so that it is the one that is open, and watched, while we wait.
            chosen = [*names[1:], names[0]] if everything else names[:1]
            tally = await self._poll(session, chosen, names)
            if place.yielding and not tally.exhausted:
                self._due_at = self._clock.monotonic()
                return
            if everything:
                await self._completed()
                next_poll = self._clock.monotonic() + self.config.poll_interval.total_seconds()
            if self._stop.is_set():
                return
            limit = max(0.0, next_poll - self._clock.monotonic())
            if tally.again:
                continue
            if tally.retry_at is not None:
                # Those that wait for a queue are fetched when it says so; see stir().
                limit = min(limit, max(1.0, (tally.retry_at - self._clock.now()).total_seconds()))
            useful = tally.exhausted and not any(folder.name == names[0] for folder in self._held)
            woken = await self._wait(session, limit, place, useful=useful)
            if woken is Wake.RENEW:
                log.info("session.renewed", mailbox=self.mailbox)
                return
            if place.yielding and woken is not Wake.NEWS:
                return
            place.busy()
            everything = woken is not Wake.NEWS or self._clock.monotonic() >= next_poll

    async def _completed(self) -> None:
        now = self._clock.monotonic()
        self._backoff.succeeded(now)
        self._refusals.reset()
        self._health.polled(self.mailbox)
        # An alarm of an earlier run ends here too, so every kind is told, and it costs nothing where there is none.
        for kind in (Kind.MAILBOX_DOWN, Kind.CREDENTIALS_REFUSED, Kind.LEDGER_UNWRITABLE):
            await self._alarm.ended(kind, self._subject(kind))

    async def _wait(self, session: Session, limit: float, place: Place, *, useful: bool) -> Wake | None:
        """Wait for news, if that is ``useful``; None when somebody stirred us, or needs our connection."""
        self._health.enter(self.mailbox, self._at_rest)
        now = self._clock.monotonic()
        self._due_at = now if self._stirred else now + limit
        self.deadline = now + limit + self._budget
        place.idle(self._interrupt)
        if place.yielding:
            self._stirred = False
            return None
        return await self._unless_stirred(lambda: self._watch(session, limit, useful))

    async def _watch(self, session: Session, limit: float, useful: bool) -> Wake:
        """Wait for news; or, if the folder that is watched may be one that cannot be polled, for ``limit`` seconds to pass.

        News that is not ``useful``, because nothing is listed now (every queue is down, the mailbox is held), would be news again at
        once.
        """
        began = self._clock.monotonic()
        try:
            woken = await session.wait(timedelta(seconds=limit))
            if useful or woken is not Wake.NEWS:
                return woken
        except SessionLost:
            raise
        except TransientError as error:
            if not self._failing or error.retry_after is not None:
                raise
        await self._clock.sleep(max(0.0, began + limit - self._clock.monotonic()))
        return Wake.LIMIT

    @property
    def _at_rest(self) -> Condition:
        return Condition.HELD if self._held else Condition.WAITING

    async def _unless_stirred(self, wait: Callable[[], Awaitable[T]]) -> T | None:
        """What ``wait`` gives; None if somebody stirs us, or has stirred us since the last wait, or when the service stops."""
        if self._stirred or self._stop.is_set():
            self._stirred = False
            return None
        try:
            async with asyncio.timeout(None) as self._sleeper:
                return await wait()
        except TimeoutError:
            if self._sleeper is None or not self._sleeper.expired():
                raise
            return None
        finally:
            self._sleeper = None
            self._stirred = False

    def rouse(self) -> None:
        """A queue takes mail again: end the wait for news. Never a back-off: a server that we wait out is not asked sooner, and
        an account not locked, because some queue comes and goes."""
        if self._backing_off:
            return
        self.stir()

    def stir(self) -> None:
        """End the present wait, for news, for back-off or for nothing: poll now, or stop."""
        self._stirred = True
        self._due_at = self._clock.monotonic()
        self._interrupt()

    def _interrupt(self) -> None:
        if self._sleeper is not None:
            # A timeout that already fired cannot be moved again.
            with contextlib.suppress(RuntimeError):
                self._sleeper.reschedule(asyncio.get_running_loop().time())

    async def _trouble(self, kind: Kind, error: MailpollerError, backoff: Backoff) -> None:
        """Say it once, wait as long as this kind of trouble wants."""
        retry_after = error.retry_after if isinstance(error, TransientError) else None
        wait = backoff.failed(at_least=retry_after)
        refused = kind is Kind.CREDENTIALS_REFUSED
        event = "mailbox.refused" if refused else "mailbox.failed"
        log.warning(event, mailbox=self.mailbox, kind=kind.value, reason=str(error), retry_s=round(wait, 1))
        self._health.enter(
            self.mailbox, Condition.REFUSED if refused else Condition.RETRYING, str(error), retry_in=wait
        )
        self._alarm.fault(self.mailbox, event, str(error), "")
        await self._alarm.raised(kind, self._subject(kind), str(error), group=self._group)
        self.deadline = self._clock.monotonic() + wait + self._budget
        self._stirred = self._stirred and self._stop.is_set()
        self._due_at = self._clock.monotonic() + wait
        self._backing_off = True
        try:
            await self._unless_stirred(lambda: self._clock.sleep(wait))
        finally:
            self._backing_off = False

    def _subject(self, kind: Kind) -> str:
        return "ledger" if kind is Kind.LEDGER_UNWRITABLE else self.mailbox

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        """An open session; closed however the block ends."""
        self._counted = None
        self._health.enter(self.mailbox, Condition.CONNECTING)
        self.progressed()
        async with self._connecting:
            try:
                async with asyncio.timeout(CONNECT_DEADLINE.total_seconds()):
                    session = await self.source.connect()
            except TimeoutError:
                raise TransientError("connecting took too long") from None
        log.info("session.opened", mailbox=self.mailbox, host=self.source.account.host)
        self.progressed()
        self._counted = session if isinstance(session, Progressing) else None
        self._mark = None
        try:
            yield session
        except BaseException:
            with contextlib.suppress(MailpollerError):
                await session.close()
            raise
        # Where dispositions count only now, a close that fails is trouble like any other.
        await session.close()
        log.info("session.closed", mailbox=self.mailbox)

    # --- once ----------------------------------------------------------------------------------------------------
    async def drain(self) -> bool:
        """Carry everything that is there now and return: False if something failed, waits or is not disposed of. ``remainder`` says what."""
        self.remainder = await self._drained()
        return self.remainder.nothing

    async def _drained(self) -> Remainder:
        try:
            trouble = await self._carry_all()
            if not self._stop.is_set() and await self._ledger.hasten(self.mailbox):
                # Whether they were carried out, only another session shows (POP3). What else came meanwhile is carried, too.
                trouble = await self._carry_all()
            if self._held:
                trouble = "it is held: an operator must decide"
            elif self._failing:
                trouble = "a folder cannot be polled"
            elif self._numbering.doubted:
                trouble = "messages stand where none was, and a further look decides"
            elif self._numbering.unanswered():
                trouble = "whether names stand for other messages cannot be told"
            counts = await self._ledger.counts(self.mailbox)
        except MailpollerError as error:
            log.error("mailbox.failed", mailbox=self.mailbox, kind="once", reason=str(error), retry_s=None)
            self._health.enter(self.mailbox, Condition.RETRYING, str(error))
            self._alarm.fault(self.mailbox, "mailbox.failed", str(error), "")
            return Remainder(str(error) or type(error).__name__)
        return Remainder(trouble, counts["claimed"] + counts["deferred"], counts["undisposed"])

    async def _carry_all(self) -> str:
        """In one session, until a poll finds nothing more to settle. Why it ended before, in words, or nothing."""
        place = await self._admitted()
        if place is None:
            return "the service stops"
        with place:
            async with self._session() as session:
                names = list(await session.folders())
                while True:
                    tally = await self._poll(session, names, names)
                    if tally.exhausted:
                        await self._completed()
                    elif self._stop.is_set():
                        return "the service stops"
                    else:
                        return "not all of it was listed"
                    if tally.again:
                        continue
                    if tally.deferred:
                        return "some messages were put off"
                    if not tally.settled:
                        return "its listing lacks messages that the server announced" if tally.partial else ""

    # --- a poll ------------------------------------------------------------------------------------------------
    async def _poll(self, session: Session, chosen: Sequence[str], names: Sequence[str]) -> Tally:
        """Carry each of the ``chosen`` folders, of all that the session has; the sum of it.

        A folder that cannot be polled does not stop the others. When none of them all can, that is the mailbox's own trouble.
        """
        self._health.enter(self.mailbox, Condition.POLLING)
        total = Tally(exhausted=True)
        polled: list[str] = []
        failed: dict[str, TransientError] = {}
        for number, name in enumerate(chosen):
            if number and self.patience.is_set():
                total.exhausted = False
                break
            self.progressed()
            try:
                total.add(await self._poll_folder(session, name))
                polled.append(name)
            except (SessionLost, LedgerUnavailable):
                raise
            except TransientError as error:
                if error.retry_after is not None:
                    raise  # a server that wants to be left alone means all folders
                failed[name] = error
        if len(failed) == len(names):
            raise next(iter(failed.values()))
        await self._failing.note(names, polled, {name: str(error) for name, error in failed.items()})
        self._health.mailboxes[self.mailbox].deferred = total.deferred
        log.debug("mailbox.polled", mailbox=self.mailbox, listed=total.listed, settled=total.settled)
        return total

    async def _poll_folder(self, session: Session, name: str) -> Tally:
        folder = await session.open(name)
        state = await self._ledger.open_folder(folder, self.source.account, formerly=self.config.formerly)
        if state.position is not None or state.complete:
            state = await self._verified(session, state)
        if await self._must_hold(session, state):
            return Tally(exhausted=True)
        assert self.courier is not None
        start = self._start(state)
        if state.first_run and state.position is None and folder not in self._begun:
            self._begun.add(folder)
            log.info("folder.started", mailbox=self.mailbox, folder=name, start=self.config.start)
        wanted = await self._wanted(state)
        position = state.position
        planned: Sequence[Page] = ()
        once = start.kind in ("now", "unseen") or state.accepted == "baseline"
        first = position is None and once and not state.complete and not state.planned
        if first:
            planned = await self.courier.plan(session, folder, start, wanted)
            listed = sum(len(page.refs) for page in planned)
            log.info("folder.listed", mailbox=self.mailbox, folder=name, listed=listed)
        elif state.planned and (refs := await self._ledger.planned(folder)):
            planned = [Page(refs)]
        tally = await self.courier.carry(
            session,
            folder,
            position,
            start,
            suppress=_suppress(state),
            accepted=state.absence_accepted,
            wanted=wanted,
            planned=planned,
            listed=first,
            heirless=state.heirless,
        )
        await self._note_gap(name, tally)
        if tally.partial or not tally.exhausted:
            return tally
        if not state.complete and await self._is_complete(tally):
            await self._ledger.complete(folder)
        if state.complete:
            await self._prune(session, state)
        return tally

    async def _note_gap(self, name: str, tally: Tally) -> None:
        """One alarm for a folder whose listing lacks messages that are there, until a listing that came to its end lacks none."""
        subject = f"{self.mailbox}/{name}"
        if tally.gap:
            if self._gaps.get(name) != tally.gap:
                self._gaps[name] = tally.gap
                self._alarm.fault(self.mailbox, "listing.incomplete", f"{name}: {tally.gap}")
            await self._alarm.raised(Kind.LISTING_GAP, subject, tally.gap, group=self._group)
        elif tally.exhausted and not tally.partial:
            self._gaps.pop(name, None)
            await self._alarm.ended(Kind.LISTING_GAP, subject)

    async def _verified(self, session: Session, state: FolderState) -> FolderState:
        """What is known of the folder, once its names still stand for what they stood for: else of a new epoch."""
        folder = state.folder
        state, reason = await self._numbering.verify(session, state)
        if not reason:
            return state
        log.warning("epoch.set_back", mailbox=self.mailbox, folder=folder.name, epoch=folder.epoch, reason=reason)
        await self._ledger.begin_anew(folder, reason)
        self._begun.discard(folder)
        if self.courier is not None:
            self.courier.begin_anew(folder)
        self._renumbered(f"{folder.name}: {reason}", "epoch.set_back")
        return await self._ledger.open_folder(folder, self.source.account)

    async def _wanted(self, state: FolderState) -> Wanted:
        """In a new epoch in which old mail is left out: what is older, unless it may be mail that an earlier epoch did not settle. In one
        that an operator baselined: nothing but that."""
        baselined = state.accepted == "baseline"
        if not (_suppress(state) and (baselined or self._leaves_out_old(state)) and state.left_before):
            return None
        left = await self._ledger.left(state.folder)
        if baselined:
            return functools.partial(_is_left, left)
        sizes = {size for size, received in left if received is None}
        dated = {(size, received) for size, received in left if received is not None}
        earliest = state.baseline_at - CLOCK_MARGIN

        def wanted(ref: MessageRef) -> bool:
            if ref.received is None or ref.received >= earliest or ref.size is None or None in sizes:
                return True
            return ref.size in sizes or (ref.size, ref.received.replace(microsecond=0)) in dated

        return wanted

    def _leaves_out_old(self, state: FolderState) -> bool:
        """In a new epoch mail that is older than the first run was settled, or was not wanted. Not so where the server was put back: mail
        that was removed before we came may be there again, and what we know keeps its name, its size and its date."""
        if state.set_back and self.config.start not in ("now", "unseen"):
            return False
        return state.accepted != "baseline" and (state.settled_before or self.config.start == "now")

    async def _is_complete(self, tally: Tally) -> bool:
        """True if a first listing that was worked through counts as complete: if all that it showed is settled.

        What waits may be mail from before the first run, which the listing of a next epoch leaves out once this one is complete; or
        settled in an earlier epoch, which is noticed only until then. But with ``start: unseen`` or ``now`` that next listing
        would leave out more while this one is not complete: what came since the first run, and somebody has read meanwhile.
        """
        if self.config.start in ("unseen", "now"):
            return not tally.unfetched
        counts = await self._ledger.counts(self.mailbox)
        return not counts["claimed"] and not counts["deferred"]

    def _start(self, state: FolderState) -> Start:
        """What a full listing of this folder shows: the mailbox's ``start`` on the first run, all that came later after that."""
        if state.complete:
            return Start("all")
        if _suppress(state):
            if state.accepted == "baseline":
                return Start("all", dated=True) if state.left_before else Start("now")
            if self._leaves_out_old(state) and state.left_before:
                return Start("all", dated=True)
            if self._leaves_out_old(state):
                return Start("since", state.baseline_at - CLOCK_MARGIN, dated=True)
        instant = self.config.starts_at()
        if instant is not None:
            return Start("since", instant, dated=_suppress(state))
        return Start(self.config.start, dated=_suppress(state))  # type: ignore[arg-type]

    async def _must_hold(self, session: Session, state: FolderState) -> bool:
        """True while an operator must decide about a new epoch with much unknown mail."""
        folder = state.folder
        undecided = _suppress(state) and state.position is None and state.accepted is None
        if not undecided:
            if folder in self._held:
                self._held.discard(folder)
                await self._alarm.ended(Kind.MAILBOX_HELD, self.mailbox)
            return False
        if folder in self._held:
            return True
        if folder in self._begun:
            return False
        refs: list[MessageRef] = []
        partial = False
        wanted = await self._wanted(state)
        async for page in session.pending(folder, None, self._start(state)):
            self.progressed()
            partial = partial or page.partial
            refs += [ref for ref in page.refs if wanted is None or wanted(ref)]
        unknown = await self._ledger.unknown(folder, refs)
        log.warning(
            "epoch.changed",
            mailbox=self.mailbox,
            folder=folder.name,
            epoch=folder.epoch,
            listed=len(refs),
            unknown=unknown,
        )
        if unknown <= self.config.hold_above:
            if not partial:  # else the next listing may show more
                self._begun.add(folder)
            return False
        reason = f"{unknown} of {len(refs)} messages in {folder.name} are unknown after its numbering (UIDVALIDITY, host or user) changed"
        if not await self._ledger.hold(folder, reason):
            return False  # an operator was faster
        self._held.add(folder)
        log.error("mailbox.held", mailbox=self.mailbox, folder=folder.name, unknown=unknown)
        advice = f"{reason}; decide with: mailpoller accept {self.mailbox} --baseline | --replay"
        await self._alarm.raised(Kind.MAILBOX_HELD, self.mailbox, advice, group=self._group)
        return True

    async def _prune(self, session: Session, state: FolderState) -> None:
        """Once a day, forget what was settled long ago and has left the mailbox. When that was, the ledger knows, for a service that is
        started anew every few minutes must do it, too."""
        folder, now = state.folder, self._clock.now()
        since = state.pruned_at or state.baseline_at
        if since <= now < since + PRUNE_INTERVAL or now < self._prune_after.get(folder.name, now):
            return
        present: set[str] = set()
        partial = False
        async for page in session.pending(folder, None, Start("all")):
            self.progressed()
            present.update(ref.uid for ref in page.refs)
            partial = partial or page.partial or bool(page.gap)
        if partial:
            # What it does not show may be there all the same. Later; to list everything at every poll would cost too much.
            self._prune_after[folder.name] = now + PRUNED_LATER
            return
        self._prune_after.pop(folder.name, None)
        forgotten = await self._ledger.prune(folder, present, before=now - self.config.keep)
        log.info("ledger.pruned", mailbox=self.mailbox, folder=folder.name, forgotten=forgotten, present=len(present))


def _suppress(state: FolderState) -> bool:
    """True in the first full listing after an epoch change."""
    return state.epoch_changed and not state.complete


def _is_left(left: Collection[tuple[int | None, datetime | None]], ref: MessageRef) -> bool:
    """Whether the message may be one of those that an earlier epoch did not settle, of which size and date are given."""
    came = None if ref.received is None else ref.received.replace(microsecond=0)
    return any(
        ref.size is None
        or size is None
        or (ref.size == size and (came is None or received is None or came == received))
        for size, received in left
    )
