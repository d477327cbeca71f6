"""One mailbox: connect, carry what is due and pending, wait, and come back after every kind of trouble."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta

import structlog

from mailpoller.core.errors import (
    ConfigError,
    CredentialsMissing,
    CredentialsRefused,
    LedgerUnavailable,
    MachineTrouble,
    MailpollerError,
    Sacrificed,
    SessionLost,
    TransientError,
    machine_trouble,
)
from mailpoller.core.extras import without
from mailpoller.core.ports import Clock, Session, Source, Tokened, Wake
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.attended import Attended
from mailpoller.engine.batch_runner import BatchRunner
from mailpoller.engine.batcher import Stop
from mailpoller.engine.connecting import AT_ONCE_S, Connecting, Stopped
from mailpoller.engine.connections import Connections, ConnectionSlot
from mailpoller.engine.deadline import Deadline
from mailpoller.engine.health import Condition, Health
from mailpoller.engine.numbering import Numbering
from mailpoller.engine.pass_result import PassResult
from mailpoller.engine.patience import Patience
from mailpoller.engine.pauses import Pauses
from mailpoller.engine.polling import Polls
from mailpoller.engine.records import Records
from mailpoller.engine.remainder import Remainder
from mailpoller.engine.reports import Reports
from mailpoller.engine.setbacks import LONGEST_RETRY, Setbacks
from mailpoller.engine.side_session import SideSession
from mailpoller.engine.sleep import Sleep

log = structlog.get_logger(__name__)

GIVEN_UP = timedelta(minutes=1)
"""How long a pass may take to end once what it fetches was given up."""
STANDSTILL = "no step got anywhere within its budget"


class Watcher:
    """Keeps one mailbox polled for as long as the service runs.

    ``deadline`` is when the supervisor may think that it is stuck. ``stir`` and ``rouse`` end a wait early.
    """

    def __init__(
        self,
        mailbox: str,
        config: SourceConfig,
        source: Source,
        *,
        records: Records,
        clock: Clock,
        health: Health,
        alarm: Alarm,
        budget: timedelta,
        stop: Stop,
        connecting: asyncio.Semaphore,
        connections: Connections | None = None,
        require: Callable[[], None] | None = None,
        pauses: Pauses | None = None,
    ) -> None:
        self.mailbox = mailbox
        self.config = config
        self.source = source
        self.leash: asyncio.Timeout | None = None
        self.runner: BatchRunner | None = None
        self.remainder = Remainder("it was not drained")
        """What the last drain left."""
        self.polls = 0
        """Polls that were completed."""
        self.deadline = Deadline(clock, budget)
        self._pauses = pauses or Pauses()
        self.patience = Patience(stop, self._paused)
        self._records = records
        self._clock = clock
        self._health = health
        self._alarm = alarm
        self._stop = stop
        self._connecting = Connecting(connecting, stop, clock, require)
        self._connections = connections or Connections(clock)
        self._due_at = clock.monotonic()
        """When the mailbox wants to be polled next: how long it is overdue decides whose turn it is to connect."""
        self.beside = SideSession(mailbox, source, clock, self._admitted_beside)
        self._sleep = Sleep(stop)
        self._backing_off = False
        attended = Attended(mailbox, config, source, records, clock, health, alarm)
        self._setbacks = Setbacks(attended)
        numbering = Numbering(mailbox, config, records=records, clock=clock)
        self.reports = Reports(attended, deadline=self.deadline, patience=self.patience, numbering=numbering)
        """Who is to be told of the mailbox's messages."""
        self._polls = Polls(
            attended, deadline=self.deadline, patience=self.patience, numbering=numbering, reports=self.reports
        )

    # --- what the supervisor does ------------------------------------------------------------------------------
    def give_up(self) -> bool:
        """The deadline has passed: give up what is being fetched, and nothing else;
        what has come of it is delivered. False if nothing is, or that was done already: then only the end of the
        whole task is left."""
        if self.runner is None or not self.runner.give_up(STANDSTILL):
            return False
        log.error("fetch.abandoned", mailbox=self.mailbox, reason=STANDSTILL)
        self.reports.fault("fetch.abandoned", STANDSTILL, "")
        self.deadline.within(GIVEN_UP)
        return True

    def rebuilt(self, event: str, detail: str, retry_in: float = 0.0) -> None:
        """The supervisor runs us again, so many seconds from now, after trouble that is not ours to mend."""
        self._health.rebuilt(self.mailbox)
        self._health.enter(self.mailbox, Condition.RETRYING, f"{event}: {detail}", retry_in=retry_in)
        self.reports.fault(event, detail, "")

    @property
    def _group(self) -> str:
        return self.source.account.host

    # --- for as long as the service runs -----------------------------------------------------------------------
    async def run(self) -> None:
        """Session after session until the service stops; returns then. Raises only what is a bug."""
        async with self.beside:
            await self._run()

    async def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if reason := self._paused():
                    await self._rest_until_resumed(reason)
                elif await self._attend_in_turn():
                    await self._rest()
            except Stopped:
                return
            except LedgerUnavailable as error:
                await self._trouble(Kind.LEDGER_UNWRITABLE, error)
            except (ConfigError, CredentialsMissing, ModuleNotFoundError) as error:
                lack = without(error) if isinstance(error, ModuleNotFoundError) else error
                await self._trouble(Kind.MAILBOX_LACKING, lack)
            except CredentialsRefused as error:
                await self._trouble(Kind.CREDENTIALS_REFUSED, error)
            except Sacrificed as error:
                await self._again_soon(error)
            except TransientError as error:
                await self._trouble(Kind.MAILBOX_DOWN, error)
            except Exception as error:
                if (trouble := machine_trouble(error)) is None:
                    raise
                await self._trouble(Kind.MAILBOX_DOWN, MachineTrouble(trouble))

    def _paused(self) -> str:
        """Why an operator wants it not to be polled now, in words, or nothing."""
        return self._pauses.of_mailbox(self.mailbox, self._group, self.config.formerly)

    async def _rest_until_resumed(self, reason: str) -> None:
        """Without a connection until somebody stirs us; who resumes it does."""
        self._health.enter(self.mailbox, Condition.PAUSED, reason)
        self.deadline.lift()
        await self._sleep.unless_stirred(lambda: self._clock.sleep(LONGEST_RETRY.total_seconds()))

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

    async def _admitted(self) -> ConnectionSlot | None:
        """The right to connect, once it is our turn; None when the service stops, or we are paused."""
        self._health.enter(self.mailbox, Condition.QUEUING)
        self.deadline.lift()
        while not self._stop.is_set() and not self._paused():
            interval = self.config.poll_interval.total_seconds()
            wish = functools.partial(self._connections.take, self.mailbox, self._group, self._due_at, interval)
            if (place := await self._sleep.unless_stirred(wish)) is not None:
                return place
        return None

    async def _admitted_beside(self) -> ConnectionSlot:
        """The right to one more connection; nobody whose poll is due waits for it."""
        return await self._connections.take(self.mailbox, self._group, self._clock.monotonic())

    async def _rest(self) -> None:
        """Without a connection until the next poll is due, or until somebody stirs us."""
        wait = max(0.0, self._due_at - self._clock.monotonic())
        log.debug("session.yielded", mailbox=self.mailbox, rest_s=round(wait, 1))
        self._health.enter(self.mailbox, self._at_rest, "without a connection until its next poll")
        self.deadline.after(wait)
        await self._sleep.unless_stirred(lambda: self._clock.sleep(wait))

    async def _attend(self, session: Session, place: ConnectionSlot) -> None:
        """Poll and wait until the session ends, wants to be renewed, or is asked to make room."""
        everything = True
        next_poll = self._clock.monotonic()
        while not self._stop.is_set() and not self._paused():
            names = list(await session.folders())
            # The first folder comes last, so that it is the one that is open, and watched, while we wait.
            chosen = [*names[1:], names[0]] if everything else names[:1]
            result = await self._poll(session, chosen, names)
            if (place.yielding or self._paused()) and not result.exhausted:
                self._due_at = self._clock.monotonic()
                return
            if everything:
                await self._completed()
                next_poll = self._clock.monotonic() + self.config.poll_interval.total_seconds()
            if self._stop.is_set():
                return
            limit = max(0.0, next_poll - self._clock.monotonic())
            if result.again:
                continue
            if result.retry_at is not None:
                # Those that wait for a queue are fetched when it says so; see stir().
                limit = min(limit, max(1.0, (result.retry_at - self._clock.now()).total_seconds()))
            useful = result.exhausted and not self._polls.holds(names[0])
            woken = await self._wait(session, limit, place, useful=useful)
            if woken is Wake.RENEW:
                log.info("session.renewed", mailbox=self.mailbox)
                return
            if place.yielding and woken is not Wake.NEWS:
                return
            place.busy()
            everything = woken is not Wake.NEWS or self._clock.monotonic() >= next_poll

    async def _completed(self) -> None:
        self.polls += 1
        self._health.polled(self.mailbox)
        await self._setbacks.over()

    async def _wait(self, session: Session, limit: float, place: ConnectionSlot, *, useful: bool) -> Wake | None:
        """Wait for news, if that is ``useful``; None when somebody stirred us, or needs our connection."""
        self._health.enter(self.mailbox, self._at_rest)
        now = self._clock.monotonic()
        self._due_at = now if self._sleep.stirred else now + limit
        self.deadline.after(limit)
        place.idle(self._sleep.interrupt)
        if place.yielding:
            self._sleep.stirred = False
            return None
        return await self._sleep.unless_stirred(lambda: self._watch(session, limit, useful))

    async def _watch(self, session: Session, limit: float, useful: bool) -> Wake:
        """Wait for news; or, if the folder that is watched may be one that cannot be polled, for ``limit`` seconds to
        pass.

        News that is not ``useful``, because nothing is listed now (every queue is down, the mailbox is held), would
        be news again at once.
        """
        began = self._clock.monotonic()
        try:
            woken = await session.wait(timedelta(seconds=limit))
            if useful or woken is not Wake.NEWS:
                return woken
        except SessionLost:
            raise
        except TransientError as error:
            if not self._polls.failing or error.retry_after is not None:
                raise
        await self._clock.sleep(max(0.0, began + limit - self._clock.monotonic()))
        return Wake.LIMIT

    @property
    def _at_rest(self) -> Condition:
        return Condition.HELD if self._polls.holds() else Condition.WAITING

    def insist(self) -> None:
        """An operator wants a poll now: whatever is remembered of a failure is asked anew."""
        if isinstance(self.source, Tokened):
            self.source.ask_anew()
        self.stir()

    def rouse(self) -> None:
        """A queue takes mail again: end the wait for news. Never a back-off: a server that we wait out is not asked
        sooner, and an account not locked, because some queue comes and goes."""
        if self._backing_off:
            return
        self.stir()

    def stir(self) -> None:
        """End the present wait, for news, for back-off or for nothing: poll now, or stop."""
        self._due_at = self._clock.monotonic()
        self._sleep.stir()
        self._connecting.interrupt()

    async def _trouble(self, kind: Kind, error: MailpollerError) -> None:
        """Say it once, wait as long as this kind of trouble wants."""
        left = self.source.token_left() if isinstance(self.source, Tokened) else None
        await self._pause(await self._setbacks.met(kind, error, left))

    async def _pause(self, wait: float) -> None:
        self.deadline.after(wait)
        self._sleep.stirred = self._sleep.stirred and self._stop.is_set()
        self._due_at = self._clock.monotonic() + wait
        self._backing_off = True
        try:
            await self._sleep.unless_stirred(lambda: self._clock.sleep(wait))
        finally:
            self._backing_off = False

    async def _again_soon(self, error: Sacrificed) -> None:
        """The server is well, and new mail does not wait for a message that took the session with it. Only where there
        are very many of those, the server is spared."""
        spared = self._connecting.sacrificed()
        log.info("session.sacrificed", mailbox=self.mailbox, reason=str(error), spared=spared)
        if spared:
            await self._pause(self.config.reconnect_interval.total_seconds())
        else:
            await self._clock.sleep(AT_ONCE_S)

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        """An open session; closed however the block ends."""
        self.deadline.count(None)
        self._health.enter(self.mailbox, Condition.CONNECTING)
        self.deadline.progressed()
        session = await self._connecting.connect(self.source)
        self._health.mailboxes[self.mailbox].sessions += 1
        log.info("session.opened", mailbox=self.mailbox, host=self.source.account.host)
        self.deadline.progressed()
        self.deadline.count(session)
        async with self._connecting.closing(session):
            yield session
        log.info("session.closed", mailbox=self.mailbox)

    # --- once ----------------------------------------------------------------------------------------------------
    async def drain(self) -> bool:
        """Carry everything that is there now and return: False if something failed, waits or is not disposed of.
        ``remainder`` says what."""
        self.remainder = await self._drained()
        return self.remainder.nothing

    async def _drained(self) -> Remainder:
        if reason := self._paused():
            self._health.enter(self.mailbox, Condition.PAUSED, reason)
            return Remainder(reason)
        try:
            trouble = await self._carry_all()
            if not self._stop.is_set() and await self._records.mailboxes.hasten(self.mailbox):
                # Whether they were carried out, only another session shows, at some services.
                # What else came meanwhile is carried, too.
                trouble = await self._carry_all()
            trouble = self._polls.unfinished or trouble
            counts = await self._records.mailboxes.counts(self.mailbox)
        except Stopped:
            return Remainder("the service stops")
        except (MailpollerError, ModuleNotFoundError) as failure:
            error = without(failure) if isinstance(failure, ModuleNotFoundError) else failure
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
                    result = await self._poll(session, names, names)
                    if result.exhausted:
                        await self._completed()
                    elif self._stop.is_set():
                        return "the service stops"
                    else:
                        return "not all of it was listed"
                    if result.again:
                        continue
                    if result.deferred:
                        return "some messages were put off"
                    if not result.settled:
                        return "its listing lacks messages that the server announced" if result.partial else ""

    async def _poll(self, session: Session, chosen: Sequence[str], names: Sequence[str]) -> PassResult:
        assert self.runner is not None
        self._health.enter(self.mailbox, Condition.POLLING)
        return await self._polls.poll(session, self.runner, chosen, names)
