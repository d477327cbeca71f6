"""Every alarm of the service: one mail when it begins, together with its like, and one when it is over.

An alarm is raised and ended by whoever has the trouble, as often as they like; only the edge counts.
Edges are kept in the ledger until their mail is sent, so that neither a crash loop nor a dead relay makes a storm or
loses one:

* an alarm that was told is not told again, in this run or the next;
* one that could not be told, because the relay is down, is told when it is back;
if it has ended meanwhile, one note tells both;
* one that ended before it was worth a mail is never told;
* one that comes back before its end was told has not ended.

All that is due goes in one mail, a section for each kind and host. Between two mails about the same kind and host lies
``quiet``, and there are never more than ``per_hour``: what is held back goes with the next one.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from mailpoller import __version__
from mailpoller.core.errors import MailpollerError, machine_trouble
from mailpoller.core.ports import AlarmEdge, Answer, Clock, DoubtKind, Fault, Journal, Outgoing
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.alarm_kinds import AnyKind, Kind, word_of
from mailpoller.engine.alarm_texts import Flock, Trouble, alarm_key, sections_of
from mailpoller.engine.backoff import Backoff
from mailpoller.engine.open_alarms import OpenAlarms
from mailpoller.engine.schedule import Policy, due, is_moot, is_silent
from mailpoller.mail.compose import alert_mail

__all__ = ["Alarm", "Kind", "Policy"]

log = structlog.get_logger(__name__)

_TICK_S = 1.0
_LAST_WORDS_S = 4.0
_EVENTS_KEPT = 200
"""Events of one kind and group that wait for their mail; more are only counted."""
_SAID_KEPT = 100_000


class Alarm:
    """Every alarm of this service.

    Callers wait for nothing but the ledger's note of an edge, and never see an error: a ledger that cannot be written
    is itself something to tell. :meth:`run` sends the mail.
    """

    def __init__(
        self,
        journal: Journal,
        outgoing: Outgoing | None,
        recipients: Sequence[str],
        clock: Clock,
        *,
        sender: str | None = None,
        host: str | None = None,
        policy: Policy | None = None,
    ) -> None:
        self._alarms = OpenAlarms(journal, clock)
        self._outgoing = outgoing if recipients else None
        self._recipients = tuple(recipients)
        self.addressees: Callable[[AnyKind, str], Sequence[str]] = lambda kind, subject: ()
        """Who is told of a trouble of this kind and subject in place of the usual recipients; nobody: these."""
        self._clock = clock
        self._sender = sender
        self._host = host or socket.gethostname()
        self._policy = policy or Policy()
        self._told_of: dict[Flock, datetime] = {}
        self._uncounted: Counter[Flock] = Counter()
        self._due_since: datetime | None = None
        self._sent: deque[datetime] = deque()
        self._braked = False
        self._backoff = Backoff(timedelta(seconds=30), timedelta(minutes=10))
        self._next_try = 0.0
        self._resting = False
        self._said: deque[tuple[bool, AnyKind, str, str, str]] = deque(maxlen=_SAID_KEPT)

    def learn(self, kinds: Iterable[DoubtKind]) -> None:
        """A sink may have such doubts, so alarms of them that an earlier run left can be told. To be called before
        anything is raised or ended. Raises :class:`ConfigError` if a name is one of the service's own."""
        self._alarms.learn(kinds)

    # --- what others say ---------------------------------------------------------------------------------------
    async def raised(self, kind: AnyKind, subject: str, detail: str, *, group: str = "") -> None:
        """There is trouble. Costs nothing while the alarm stands already. ``detail`` is for an operator: no secret,
        no content.

        ``group`` is the host that troubles of this kind are told together by.
        """
        now = self._clock.now()  # the ledger may take its time
        await self._recall()
        key = alarm_key(kind, subject, detail)
        known = self._alarms.open.get(key)
        if known is not None:
            known.recalled, known.ended_at = False, None
            if known.told_at is None and detail:
                known.detail = detail
            return
        log.warning("alarm.raised", kind=word_of(kind), subject=subject, group=group, reason=detail)
        trouble = Trouble(kind, subject, group, detail, now)
        if not trouble.manner.lasts and (self._outgoing is None or self._crowded(trouble)):
            self._uncounted[trouble.flock] += self._outgoing is not None
            return
        self._alarms.open[key] = trouble
        await self._alarms.record(trouble)

    async def ended(self, kind: AnyKind, subject: str) -> None:
        """The trouble is over. Costs nothing if there was none, so call it whenever all is well."""
        now = self._clock.now()
        await self._recall()
        trouble = self._alarms.open.get(alarm_key(kind, subject, ""))
        if trouble is None or trouble.ended_at is not None:
            return
        trouble.ended_at = now
        trouble.recalled = trouble.recalled and trouble.told_at is None
        lasted = trouble.ended_at - trouble.raised_at
        log.info(
            "alarm.ended",
            kind=word_of(kind),
            subject=subject,
            group=trouble.group,
            lasted_s=round(lasted.total_seconds(), 1),
        )

    async def stands(self, kind: AnyKind, subject: str, *, now: bool = False) -> bool:
        """True if this alarm is raised and has not ended, in this run or (unless only ``now`` counts) since an
        earlier one."""
        await self._recall()
        trouble = self._alarms.open.get(alarm_key(kind, subject, ""))
        return trouble is not None and trouble.ended_at is None and not (now and trouble.recalled)

    @property
    def unrecorded(self) -> Sequence[AlarmEdge]:
        """The alarms that stand and that the ledger could not be told of yet."""
        return [
            AlarmEdge(key, one.group, one.detail, one.raised_at, one.told_at is not None)
            for key, one in self._alarms.open.items()
            if not one.recorded and one.ended_at is None
        ]

    def count(self) -> dict[str, int]:
        """How many alarms stand, by kind, in this run or since an earlier one."""
        return Counter(word_of(one.kind) for one in self._alarms.open.values() if one.ended_at is None)

    async def standing(self, kind: AnyKind) -> Sequence[str]:
        """The subjects of all alarms of this kind that have not ended, in this run or since an earlier one."""
        await self._recall()
        return [one.subject for one in self._alarms.open.values() if one.kind is kind and one.ended_at is None]

    def tell(self, kind: AnyKind, subject: str, detail: str, *, group: str = "") -> None:
        """As :meth:`raised`, for callers that cannot wait: it is taken up within a second."""
        self._said.append((True, kind, subject, detail, group))

    def tell_end(self, kind: AnyKind, subject: str) -> None:
        """As :meth:`ended`, for callers that cannot wait."""
        self._said.append((False, kind, subject, "", ""))

    def fault(self, subject: str, event: str, detail: str, mid: str = "") -> None:
        """Note a line for ``mailpoller errors``; it reaches the ledger within a second or so, in batches."""
        self._alarms.fault(Fault(self._clock.now(), subject, event, detail, mid))

    def send_by(self, outgoing: Outgoing) -> None:
        """Send by this one from now on: the outgoing so far was replaced. Nothing changes for an alarm that mails
        nobody."""
        if self._outgoing is not None:
            self._outgoing = outgoing
            self._next_try = 0.0

    def address(
        self, outgoing: Outgoing | None, recipients: Sequence[str], *, sender: str | None, policy: Policy
    ) -> None:
        """Mail these from now on, as :class:`Alarm` has it. What stands and was told is not told again."""
        self._outgoing = outgoing if recipients else None
        self._recipients, self._sender, self._policy = tuple(recipients), sender, policy
        self._next_try = 0.0

    # --- for as long as the service runs -----------------------------------------------------------------------
    async def run(self, stop: asyncio.Event) -> None:
        """Send what is due, until ``stop``; then what is due then. Takes eight seconds to end at most, and never
        raises for the mail's or the ledger's sake."""
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
            log.warning("alert.deferred", reason="the service stops", retry_s=None, alarms=len(self._alarms.open))
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
        """Do what is due now: take up what was told, write what the ledger misses, send one mail.
        ``last``: without waiting for more."""
        await self._recall()
        while self._said:
            begins, kind, subject, detail, group = self._said.popleft()
            await (self.raised(kind, subject, detail, group=group) if begins else self.ended(kind, subject))
        now = self._clock.now()
        self._heed_the_clock(now)
        for trouble in self._alarms.open.values():
            if is_silent(trouble, now, self._alarms.recalled_at or now):
                trouble.ended_at = now
        mails = self._outgoing is not None
        moot = [one for one in self._alarms.open.values() if is_moot(one, now, self._policy, mails=mails)]
        await self._alarms.forget(moot)
        worthy = due(self._alarms.open.values(), now, self._policy, self._told_of) if mails else []
        if not worthy:
            self._due_since = None
            return
        self._due_since = self._due_since or now
        if last or now - self._due_since >= self._policy.window:
            for recipients, several in self._by_recipients(worthy).items():
                await self._mail(several, now, recipients)

    def _by_recipients(self, worthy: Sequence[Trouble]) -> Mapping[tuple[str, ...], Sequence[Trouble]]:
        found: dict[tuple[str, ...], list[Trouble]] = {}
        for trouble in worthy:
            own = self.addressees(trouble.kind, trouble.subject)
            found.setdefault(tuple(own) or self._recipients, []).append(trouble)
        return found

    async def _recall(self) -> None:
        await self._alarms.recall(mails=self._outgoing is not None)

    # --- what is due ---------------------------------------------------------------------------------------------
    def _crowded(self, trouble: Trouble) -> bool:
        return sum(one.flock == trouble.flock for one in self._alarms.open.values()) >= _EVENTS_KEPT

    def _heed_the_clock(self, now: datetime) -> None:
        """What lies ahead of now was noted while the clock was ahead: it was now, or nothing would be due until
        then."""
        for trouble in self._alarms.open.values():
            trouble.raised_at = min(trouble.raised_at, now)
            trouble.told_at = trouble.told_at and min(trouble.told_at, now)
            trouble.ended_at = trouble.ended_at and min(trouble.ended_at, now)
        self._told_of = {flock: min(at, now) for flock, at in self._told_of.items()}
        self._sent = deque(min(at, now) for at in self._sent)
        self._due_since = self._due_since and min(self._due_since, now)
        self._alarms.recalled_at = self._alarms.recalled_at and min(self._alarms.recalled_at, now)

    # --- mail ------------------------------------------------------------------------------------------------------
    async def _mail(self, worthy: Sequence[Trouble], now: datetime, recipients: tuple[str, ...]) -> None:
        if self._outgoing is None or self._clock.monotonic() < self._next_try or not self._may_send(now):
            return
        # What is said now is what was so now: an end that comes while the mail is on its way is another mail.
        said = [(trouble, trouble.ended_at) for trouble in worthy]
        sections = sections_of([replace(trouble) for trouble in worthy], self._uncounted)
        more = f" (and {len(sections) - 1} more)" if len(sections) > 1 else ""
        footer = f"mailpoller {__version__} on {self._host}"
        mail = alert_mail(
            sender=self._sender or self._outgoing.sender,
            recipients=recipients,
            subject=f"[mailpoller] {sections[0].headline}{more}",
            sections=sections,
            footer=footer,
            at=now,
        )
        started = self._clock.monotonic()
        try:
            answer = await self._outgoing.send(mail)
        except Exception as error:
            trouble = str(error) if isinstance(error, MailpollerError) else machine_trouble(error)
            if trouble is None:
                log.exception("alert.crashed")
            wait = self._backoff.failed()
            self._next_try = self._clock.monotonic() + wait
            reason = type(error).__name__ if trouble is None else trouble
            log.warning("alert.deferred", reason=reason, retry_s=round(wait, 1), alarms=len(worthy))
            self.fault("alerts", "alert.deferred", reason)
            await self._alarms.catch_up()
            return
        elapsed = round(self._clock.monotonic() - started, 3)
        log.info("alert.sent", alarms=len(worthy), sections=len(sections), elapsed_s=elapsed)
        if isinstance(answer, Answer) and (never := answer.never):
            domains = ", ".join(sorted({address.rpartition("@")[2] for address in never}))
            refused = f"{len(never)} of {len(recipients)} recipients are refused for good (at {domains})"
            reason = f"{refused}: {next(iter(never.values()))}"
            log.warning("alert.unserved", reason=reason)
            self.fault("alerts", "alert.unserved", reason)
        self._backoff.reset()
        self._next_try = 0.0
        self._sent.append(now)
        self._due_since = None
        await self._told(said, now)

    async def _told(self, said: Sequence[tuple[Trouble, datetime | None]], now: datetime) -> None:
        finished = []
        for trouble, ended_at in said:
            self._told_of[trouble.flock] = now
            self._uncounted.pop(trouble.flock, None)
            if ended_at is None:
                trouble.told_at = now
                self._alarms.told(trouble)
                if not trouble.manner.lasts:
                    finished.append(trouble)
            elif trouble.ended_at is None:
                # It came back while the mail that tells its end was on its way: a new alarm.
                trouble.told_at, trouble.raised_at = None, now
            else:
                finished.append(trouble)
        await self._alarms.forget(finished)
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
