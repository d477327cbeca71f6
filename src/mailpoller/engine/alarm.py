"""When trouble is worth a mail: on the edge, once, together with its like, and again when it is over.

An alarm is raised and ended by whoever has the trouble, as often as they like; only the edge counts. Edges are kept in the
ledger until their mail is sent, so that neither a crash loop nor a dead relay makes a storm or loses one:

* an alarm that was told is not told again, in this run or the next;
* one that could not be told, because the relay is down, is told when it is back; if it has ended meanwhile, one note tells both;
* one that ended before it was worth a mail is never told;
* one that comes back before its end was told has not ended.

All that is due goes in one mail, a section for each kind and host. Between two mails about the same kind and host lies
``quiet``, and there are never more than ``per_hour``: what is held back goes with the next one.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar

import structlog

from mailpoller import __version__
from mailpoller.core.errors import LedgerUnavailable, MailpollerError
from mailpoller.core.ports import Clock, Fault, Ledger, Outgoing
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.backoff import Backoff
from mailpoller.engine.notice import MANNERS, Kind, Trouble, alarm_key, section
from mailpoller.mail.compose import Section, alert_mail

__all__ = ["Alarm", "Kind", "Policy"]

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_TICK_S = 1.0
_LAST_WORDS_S = 4.0
_EVENTS_KEPT = 200
"""Events of one kind and group that wait for their mail; more are only counted."""
_FAULTS_KEPT = 2000
_SAID_KEPT = 100_000
_LEDGER_REST = 6
"""A ledger that took a while to say that it cannot is left alone for so many times as long."""
_FLOCK_PATIENCE = 5
"""An end waits for its flock so many times ``steady`` at most."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How eagerly mail is sent.

    ``window``: what becomes due within this goes together. ``quiet``: between two mails about one kind and group.
    ``steady``: an end is told once it has lasted so long. ``patience``: scales how long each kind must last before it is told.
    ``reminder``: say again after so long that a trouble lasts; None: once.
    """

    window: timedelta = timedelta(seconds=10)
    quiet: timedelta = timedelta(minutes=5)
    steady: timedelta = timedelta(minutes=1)
    patience: float = 1.0
    per_hour: int = 20
    reminder: timedelta | None = None


class Alarm:
    """Every alarm of this service.

    Callers wait for nothing but the ledger's note of an edge, and never see an error: a ledger that cannot be written is itself
    something to tell. :meth:`run` sends the mail.
    """

    def __init__(
        self,
        ledger: Ledger,
        outgoing: Outgoing | None,
        recipients: Sequence[str],
        clock: Clock,
        *,
        sender: str | None = None,
        host: str | None = None,
        policy: Policy | None = None,
    ) -> None:
        self._ledger = ledger
        self._outgoing = outgoing if recipients else None
        self._recipients = tuple(recipients)
        self._clock = clock
        self._sender = sender
        self._host = host or socket.gethostname()
        self._policy = policy or Policy()
        self._open: dict[str, Trouble] = {}
        self._told_of: dict[tuple[Kind, str], datetime] = {}
        self._uncounted: Counter[tuple[Kind, str]] = Counter()
        self._due_since: datetime | None = None
        self._sent: deque[datetime] = deque()
        self._braked = False
        self._backoff = Backoff(timedelta(seconds=30), timedelta(minutes=10))
        self._next_try = 0.0
        self._resting = False
        self._recalled_at: datetime | None = None
        self._recalling = asyncio.Lock()
        self._said: deque[tuple[bool, Kind, str, str, str]] = deque(maxlen=_SAID_KEPT)
        self._faults: deque[Fault] = deque(maxlen=_FAULTS_KEPT)
        self._ledger_rests_until = 0.0
        self._unnoted: set[str] = set()
        self._uncleared: set[str] = set()

    # --- what others say ---------------------------------------------------------------------------------------
    async def raised(self, kind: Kind, subject: str, detail: str, *, group: str = "") -> None:
        """There is trouble. Costs nothing while the alarm stands already. ``detail`` is for an operator: no secret, no content.

        ``group`` is the host that troubles of this kind are told together by.
        """
        now = self._clock.now()  # the ledger may take its time
        await self._recall()
        key = alarm_key(kind, subject, detail)
        known = self._open.get(key)
        if known is not None:
            known.recalled, known.ended_at = False, None
            if known.told_at is None and detail:
                known.detail = detail
            return
        log.warning("alarm.raised", kind=kind.value, subject=subject, group=group, reason=detail)
        trouble = Trouble(kind, subject, group, detail, now)
        if not trouble.manner.lasts and (self._outgoing is None or self._crowded(trouble)):
            self._uncounted[trouble.flock] += self._outgoing is not None
            return
        self._open[key] = trouble
        self._uncleared.discard(key)
        await self._record(trouble)

    async def ended(self, kind: Kind, subject: str) -> None:
        """The trouble is over. Costs nothing if there was none, so call it whenever all is well."""
        now = self._clock.now()
        await self._recall()
        trouble = self._open.get(alarm_key(kind, subject, ""))
        if trouble is None or trouble.ended_at is not None:
            return
        trouble.ended_at = now
        trouble.recalled = trouble.recalled and trouble.told_at is None
        lasted = trouble.ended_at - trouble.raised_at
        log.info(
            "alarm.ended",
            kind=kind.value,
            subject=subject,
            group=trouble.group,
            lasted_s=round(lasted.total_seconds(), 1),
        )

    async def stands(self, kind: Kind, subject: str, *, now: bool = False) -> bool:
        """True if this alarm is raised and has not ended, in this run or (unless only ``now`` counts) since an earlier one."""
        await self._recall()
        trouble = self._open.get(alarm_key(kind, subject, ""))
        return trouble is not None and trouble.ended_at is None and not (now and trouble.recalled)

    async def standing(self, kind: Kind) -> Sequence[str]:
        """The subjects of all alarms of this kind that have not ended, in this run or since an earlier one."""
        await self._recall()
        return [one.subject for one in self._open.values() if one.kind is kind and one.ended_at is None]

    def tell(self, kind: Kind, subject: str, detail: str, *, group: str = "") -> None:
        """As :meth:`raised`, for callers that cannot wait: it is taken up within a second."""
        self._said.append((True, kind, subject, detail, group))

    def tell_end(self, kind: Kind, subject: str) -> None:
        """As :meth:`ended`, for callers that cannot wait."""
        self._said.append((False, kind, subject, "", ""))

    def fault(self, subject: str, event: str, detail: str, mid: str = "") -> None:
        """Note a line for ``mailpoller errors``; it reaches the ledger within a second or so, in batches."""
        self._faults.append(Fault(self._clock.now(), subject, event, detail, mid))

    def send_by(self, outgoing: Outgoing) -> None:
        """Send by this one from now on: the outgoing so far was replaced. Nothing changes for an alarm that mails nobody."""
        if self._outgoing is not None:
            self._outgoing = outgoing
            self._next_try = 0.0

    # --- for as long as the service runs -----------------------------------------------------------------------
    async def run(self, stop: asyncio.Event) -> None:
        """Send what is due, until ``stop``; then what is due then. Takes eight seconds to end at most, and never raises for the mail's
        or the ledger's sake."""
        async with TaskGroup() as group:
            work = group.create_task(self._work(stop), name="alarm mail")
            await stop.wait()
            if not self._resting:  # a mail that is half said is said to its end, or else it comes twice
                await asyncio.wait({work}, timeout=_LAST_WORDS_S)
            work.cancel()
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self.step(last=True)
        except TimeoutError:
            log.warning("alert.deferred", reason="the service stops", retry_s=None, alarms=len(self._open))
        except Exception:
            log.exception("alarm.crashed")

    async def _work(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self.step()
            except Exception:
                log.exception("alarm.crashed")
            self._resting = True
            await self._clock.sleep(_TICK_S)
            self._resting = False

    async def step(self, *, last: bool = False) -> None:
        """Do what is due now: take up what was told, write what the ledger misses, send one mail. ``last``: without waiting for more."""
        await self._recall()
        while self._said:
            begins, kind, subject, detail, group = self._said.popleft()
            await (self.raised(kind, subject, detail, group=group) if begins else self.ended(kind, subject))
        now = self._clock.now()
        self._heed_the_clock(now)
        self._end_silent(now)
        await self._forget([one for one in self._open.values() if self._is_moot(one, now)])
        due = self._due(now)
        if not due:
            self._due_since = None
            return
        self._due_since = self._due_since or now
        if last or now - self._due_since >= self._policy.window:
            await self._mail(due, now)

    # --- the ledger ----------------------------------------------------------------------------------------------
    async def _ask(self, call: Callable[P, Awaitable[T]], *arguments: P.args, **named: P.kwargs) -> T:
        """What the ledger answers. Raises :class:`LedgerUnavailable`.

        Another process that holds its lock costs a wait of seconds, and there are many calls: after such a wait it is not
        asked for a while, so that alerts, which can do without it, do not wait for it at every step.
        """
        began = self._clock.monotonic()
        if began < self._ledger_rests_until:
            raise LedgerUnavailable("the ledger is not asked again so soon")
        try:
            return await call(*arguments, **named)
        except LedgerUnavailable:
            ended = self._clock.monotonic()
            self._ledger_rests_until = ended + _LEDGER_REST * (ended - began)
            raise

    async def _recall(self) -> None:
        """Once: the alarms of earlier runs."""
        if self._recalled_at is not None:
            return
        async with self._recalling:
            if self._recalled_at is not None:
                return
            try:
                edges = await self._ask(self._ledger.alarms)
            except LedgerUnavailable:
                return
            now = self._recalled_at = self._clock.now()
            for edge in edges:
                word, _, subject = edge.key.partition(":")
                try:
                    kind = Kind(word)
                except ValueError:
                    self._uncleared.add(edge.key)
                    continue
                if not MANNERS[kind].lasts:
                    subject = subject.partition(":")[0]
                    if edge.notified or self._outgoing is None:
                        self._uncleared.add(edge.key)
                        continue
                told_at = now if edge.notified else None
                known = self._open.get(edge.key)
                if known is not None:  # raised before the ledger could be read
                    known.raised_at, known.told_at, known.recorded = edge.raised_at, known.told_at or told_at, True
                    continue
                self._open[edge.key] = Trouble(
                    kind, subject, edge.group, edge.summary, edge.raised_at, told_at, recorded=True, recalled=True
                )

    async def _record(self, trouble: Trouble) -> bool:
        try:
            await self._ask(self._ledger.raise_alarm, trouble.key, trouble.group, trouble.detail)
        except LedgerUnavailable:
            return False
        trouble.recorded = True
        return True

    async def _forget(self, troubles: Iterable[Trouble]) -> None:
        for trouble in troubles:
            self._open.pop(trouble.key, None)
            self._unnoted.discard(trouble.key)
            if trouble.recorded:
                self._uncleared.add(trouble.key)
        await self._catch_up()

    async def _catch_up(self) -> None:
        """Write what the ledger has not got yet; what fails now is tried at the next step."""
        try:
            for trouble in [one for one in self._open.values() if not one.recorded]:
                if not await self._record(trouble):
                    return
            if self._unnoted:
                keys = list(self._unnoted)
                await self._ask(self._ledger.notified, keys)
                self._unnoted.difference_update(keys)
            for key in list(self._uncleared):
                if key not in self._open:
                    await self._ask(self._ledger.clear_alarm, key)
                self._uncleared.discard(key)
            await self._note()
        except LedgerUnavailable:
            return

    async def _note(self) -> None:
        if not self._faults:
            return
        batch, self._faults = self._faults, deque(maxlen=_FAULTS_KEPT)
        try:
            await self._ask(self._ledger.note, batch)
        except LedgerUnavailable:
            self._faults = deque([*batch, *self._faults], maxlen=_FAULTS_KEPT)
            raise

    # --- what is due ---------------------------------------------------------------------------------------------
    def _patience(self, trouble: Trouble) -> timedelta:
        return trouble.manner.patience * self._policy.patience

    def _crowded(self, trouble: Trouble) -> bool:
        return sum(one.flock == trouble.flock for one in self._open.values()) >= _EVENTS_KEPT

    def _heed_the_clock(self, now: datetime) -> None:
        """What lies ahead of now was noted while the clock was ahead: it was now, or nothing would be due until then."""
        for trouble in self._open.values():
            trouble.raised_at = min(trouble.raised_at, now)
            trouble.told_at = trouble.told_at and min(trouble.told_at, now)
            trouble.ended_at = trouble.ended_at and min(trouble.ended_at, now)
        self._told_of = {flock: min(at, now) for flock, at in self._told_of.items()}
        self._sent = deque(min(at, now) for at in self._sent)
        self._due_since = self._due_since and min(self._due_since, now)
        self._recalled_at = self._recalled_at and min(self._recalled_at, now)

    def _end_silent(self, now: datetime) -> None:
        """Alarms of an earlier run that nobody has raised again: what they were about is well, or no longer configured."""
        for trouble in self._open.values():
            silent = trouble.recalled and now - (self._recalled_at or now) >= trouble.manner.silence
            if silent and trouble.manner.lasts and trouble.ended_at is None:
                trouble.ended_at = now

    def _is_moot(self, trouble: Trouble, now: datetime) -> bool:
        """True if it is over for good and nobody needs to know.

        One that comes and goes within ``steady`` has lasted from its first coming: else a mailbox that is up for a moment every
        few minutes would never be worth a mail.
        """
        if trouble.ended_at is None or now - trouble.ended_at < self._policy.steady:
            return False
        brief = trouble.ended_at - trouble.raised_at < self._patience(trouble)
        return self._outgoing is None or (trouble.told_at is None and brief)

    def _due(self, now: datetime) -> list[Trouble]:
        """The troubles that a mail is due about: those that begin, those that are over, those to be reminded of."""
        if self._outgoing is None:
            return []
        ends: dict[tuple[Kind, str], datetime] = {}
        for trouble in self._open.values():
            if trouble.ended_at is not None:
                ends[trouble.flock] = max(trouble.ended_at, ends.get(trouble.flock, trouble.ended_at))
        due = [trouble for trouble in self._open.values() if self._is_due(trouble, now, ends)]
        begun = {trouble.flock for trouble in due if trouble.ended_at is None}
        # Those in the same trouble that have not lasted long enough by themselves come along.
        due += [
            one
            for one in self._open.values()
            if one.told_at is None and one.ended_at is None and one.flock in begun and not self._is_due(one, now, ends)
        ]
        return due

    def _is_due(self, trouble: Trouble, now: datetime, ends: Mapping[tuple[Kind, str], datetime]) -> bool:
        """``ends``: the latest end in each flock. What ends one by one, within a poll interval, is told when the last has ended."""
        told_of = self._told_of.get(trouble.flock)
        if told_of is not None and now - told_of < self._policy.quiet:
            return False
        if trouble.ended_at is not None:
            steady = self._policy.steady
            return now - ends[trouble.flock] >= steady or now - trouble.ended_at >= _FLOCK_PATIENCE * steady
        if trouble.recalled and trouble.manner.lasts:
            return False  # whether it is still so, its part will say
        if trouble.told_at is not None:
            return self._policy.reminder is not None and now - trouble.told_at >= self._policy.reminder
        return now - trouble.raised_at >= self._patience(trouble)

    # --- mail ------------------------------------------------------------------------------------------------------
    async def _mail(self, due: Sequence[Trouble], now: datetime) -> None:
        if self._outgoing is None or self._clock.monotonic() < self._next_try or not self._may_send(now):
            return
        # What is said now is what was so now: an end that comes while the mail is on its way is another mail.
        said = [(trouble, trouble.ended_at) for trouble in due]
        sections = self._sections([replace(trouble) for trouble in due])
        more = f" (and {len(sections) - 1} more)" if len(sections) > 1 else ""
        footer = f"mailpoller {__version__} on {self._host}"
        mail = alert_mail(
            sender=self._sender or self._outgoing.sender,
            recipients=self._recipients,
            subject=f"[mailpoller] {sections[0].headline}{more}",
            sections=sections,
            footer=footer,
            at=now,
        )
        started = self._clock.monotonic()
        try:
            answer = await self._outgoing.send(mail)
        except Exception as error:
            if not isinstance(error, MailpollerError):
                log.exception("alert.crashed")
            wait = self._backoff.failed()
            self._next_try = self._clock.monotonic() + wait
            reason = str(error) if isinstance(error, MailpollerError) else type(error).__name__
            log.warning("alert.deferred", reason=reason, retry_s=round(wait, 1), alarms=len(due))
            self.fault("alerts", "alert.deferred", reason)
            await self._catch_up()
            return
        elapsed = round(self._clock.monotonic() - started, 3)
        log.info("alert.sent", alarms=len(due), sections=len(sections), elapsed_s=elapsed)
        if never := getattr(answer, "never", None):
            domains = ", ".join(sorted({address.rpartition("@")[2] for address in never}))
            reason = f"{len(never)} of {len(self._recipients)} recipients are refused for good (at {domains}): {next(iter(never.values()))}"
            log.warning("alert.unserved", reason=reason)
            self.fault("alerts", "alert.unserved", reason)
        self._backoff.reset()
        self._next_try = 0.0
        self._sent.append(now)
        self._due_since = None
        await self._told(said, now)

    def _sections(self, due: Sequence[Trouble]) -> list[Section]:
        """One for each kind and group that begins, then one for each that is over."""
        flocks: dict[tuple[bool, int, str], list[Trouble]] = {}
        order = list(Kind)
        for trouble in due:
            place = (trouble.ended_at is not None, order.index(trouble.kind), trouble.group)
            flocks.setdefault(place, []).append(trouble)
        return [
            section(flock, uncounted=self._uncounted[flock[0].flock] if flock[0].ended_at is None else 0)
            for _, flock in sorted(flocks.items(), key=lambda item: item[0])
        ]

    async def _told(self, said: Sequence[tuple[Trouble, datetime | None]], now: datetime) -> None:
        finished = []
        for trouble, ended_at in said:
            self._told_of[trouble.flock] = now
            self._uncounted.pop(trouble.flock, None)
            if ended_at is None:
                trouble.told_at = now
                self._unnoted.add(trouble.key)
                if not trouble.manner.lasts:
                    finished.append(trouble)
            elif trouble.ended_at is None:
                # It came back while the mail that tells its end was on its way: a new alarm.
                trouble.told_at, trouble.raised_at = None, now
            else:
                finished.append(trouble)
        await self._forget(finished)
        for flock in [one for one, at in self._told_of.items() if now - at >= self._policy.quiet]:
            del self._told_of[flock]

    def _may_send(self, now: datetime) -> bool:
        """The brake: so many mails an hour and no more."""
        while self._sent and now - self._sent[0] >= timedelta(hours=1):
            self._sent.popleft()
        braked = len(self._sent) >= self._policy.per_hour
        if braked and not self._braked:
            log.warning("alert.braked", per_hour=self._policy.per_hour)
        self._braked = braked
        return not braked
