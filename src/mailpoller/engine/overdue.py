"""What should have come to its end long ago: mailboxes that complete no poll, messages that never come, dispositions
that stay pending, tasks that are built anew again and again. Said once for each reason, shown, told in time, and
taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog

from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.ports import Clock, Mailboxes, Stuck
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.health import Condition, Health, MailboxHealth
from mailpoller.engine.watcher import Watcher

log = structlog.get_logger(__name__)

PAUSE = timedelta(minutes=1)
"""Between two looks."""
SETTLING = timedelta(seconds=5)
"""The first look comes so soon: a process that dies again and again looks, too, and one that was down for long has
polled by then."""
LAST_WORDS = timedelta(seconds=3)

SHOWN_AFTER = timedelta(minutes=10)
"""A message that waits is worth a line after so long."""
TOLD_AFTER = timedelta(hours=1)
"""And an alarm after so long; or after two polls, where that is more."""

POLLS = 10
LONGEST = timedelta(hours=2)
"""A mailbox is told of after so many intervals or so long, whichever is less, but two intervals at least."""

REBUILT = 3
REBUILT_WITHIN = timedelta(hours=2)
"""A task that was built anew so often within so long keeps failing; it runs on once it was not for half of that."""

NAMED = 50
"""Messages of one mailbox that have an alarm of their own; of the others one tells how many they are."""

_KINDS = {"fetch": Kind.MAIL_STUCK, "question": Kind.MAIL_STUCK, "disposition": Kind.DISPOSITION_PENDING}
_TROUBLES = (Kind.MAILBOX_DOWN, Kind.CREDENTIALS_REFUSED, Kind.MAILBOX_LACKING, Kind.MAILBOX_HELD)
"""Alarms of a mailbox that say already why it completes no poll, and why its messages wait."""


class Overdue:
    """Looks once a minute, and keeps in the ledger when each mailbox completed a poll last.

    ``watchers``: of the mailboxes that are polled, always up to date; alarms of one server are told together.
    ``stuck``: what the last look found. ``over`` is set once :meth:`run` has said its last words.
    """

    def __init__(
        self, mailboxes: Mailboxes, health: Health, alarm: Alarm, clock: Clock, watchers: Mapping[str, Watcher]
    ) -> None:
        self.stuck: Sequence[Stuck] = ()
        self.over = asyncio.Event()
        self._mailboxes = mailboxes
        self._health = health
        self._alarm = alarm
        self._clock = clock
        self._watchers = watchers
        self._kept: dict[str, datetime] = {}
        self._said: dict[str, set[str]] = {}
        """Mailbox -> reasons that were said since it completed a poll."""
        self._shown: dict[tuple[str, str], str] = {}
        """(mid, what) -> the reason that was said last."""

    async def run(self, stop: asyncio.Event) -> None:
        """Look until ``stop``, and then once more."""
        try:
            async with TaskGroup() as group:
                looking = group.create_task(self._look_again_and_again(), name="look for what is overdue")
                await stop.wait()
                looking.cancel()
            async with asyncio.timeout(LAST_WORDS.total_seconds()):
                await self.look()
        except TimeoutError:
            log.debug("overdue.unseen", reason="the service stops")
        finally:
            if stop.is_set():
                self.over.set()

    async def _look_again_and_again(self) -> None:
        await self._clock.sleep(SETTLING.total_seconds())
        while True:
            await self.look()
            await self._clock.sleep(PAUSE.total_seconds())

    async def look(self) -> None:
        """Keep the polls, and say, raise and end what is due now. A ledger that cannot be read or written has an
        alarm of its own."""
        now = self._clock.now()
        try:
            await self._keep()
            found = await self._mailboxes.stuck(now - SHOWN_AFTER)
        except LedgerUnavailable as error:
            log.debug("overdue.unseen", reason=str(error))
            found = None
        for health in list(self._health.mailboxes.values()):
            await self._judge(health, now)
        if found is not None:
            await self._judge_messages(found, now)

    async def _keep(self) -> None:
        """In one commit, and only what is news."""
        polls = {
            name: health.last_poll_at
            for name, health in self._health.mailboxes.items()
            if health.last_poll_at is not None and self._kept.get(name) != health.last_poll_at
        }
        if polls:
            await self._mailboxes.polled(polls)
            self._kept.update(polls)

    # --- mailboxes -----------------------------------------------------------------------------------------------
    async def _judge(self, health: MailboxHealth, now: datetime) -> None:
        name, waited = health.name, health.waited(now)
        polled = health.condition not in (Condition.NOT_POLLED, Condition.PAUSED)
        late = polled and waited > 2 * health.poll_interval + timedelta(minutes=1)
        if late:
            self._say(health, waited)
        else:
            self._said.pop(name, None)
        least = 2 * health.poll_interval
        if late and waited >= max(least, min(POLLS * health.poll_interval, LONGEST)):
            if not await self._explained(name):
                detail = f"none was completed for {_words(waited)}; at present: {_doing(health)}"
                await self._alarm.raised(Kind.MAILBOX_OVERDUE, name, detail, group=self._group(name))
        elif not late:
            await self._alarm.ended(Kind.MAILBOX_OVERDUE, name)
        await self._judge_task(health, now)

    def _say(self, health: MailboxHealth, waited: timedelta) -> None:
        said, reason = self._said.setdefault(health.name, set()), _doing(health)
        if reason in said or len(said) >= NAMED:
            return
        said.add(reason)
        log.warning("mailbox.overdue", mailbox=health.name, waited_s=round(waited.total_seconds()), reason=reason)
        self._alarm.fault(health.name, "mailbox.overdue", f"no poll was completed for {_words(waited)}: {reason}")

    async def _judge_task(self, health: MailboxHealth, now: datetime) -> None:
        recent = [at for at in health.rebuilt if now - at < REBUILT_WITHIN]
        if len(recent) >= REBUILT and now - recent[-1] < REBUILT_WITHIN / 2:
            detail = (
                f"{len(recent)} times within {_words(REBUILT_WITHIN)}, the last time at {recent[-1]:%Y-%m-%d %H:%M} UTC"
            )
            await self._alarm.raised(Kind.WATCHER_FAILING, health.name, detail, group=self._group(health.name))
        else:
            await self._alarm.ended(Kind.WATCHER_FAILING, health.name)

    async def _explained(self, mailbox: str) -> bool:
        """True if another alarm tells already why nothing comes to its end."""
        if await self._alarm.stands(Kind.LEDGER_UNWRITABLE, "ledger", now=True):
            return True
        for kind in _TROUBLES:
            if await self._alarm.stands(kind, mailbox, now=True):
                return True
        return False

    # --- messages ------------------------------------------------------------------------------------------------
    async def _judge_messages(self, found: Sequence[Stuck], now: datetime) -> None:
        asked = [
            one
            for health in self._health.mailboxes.values()
            for several in health.questioned.values()
            for one in several
            if now - one.since >= SHOWN_AFTER
        ]
        known = [one for one in (*found, *asked) if one.ref.folder.mailbox in self._watchers]
        self.stuck = known
        for one in known:
            self._show(one, now)
        there = {(one.mid, one.what) for one in known}
        self._shown = {key: reason for key, reason in self._shown.items() if key in there}
        subjects: dict[tuple[Kind, str], tuple[str, str]] = {}
        for kind in (Kind.MAIL_STUCK, Kind.DISPOSITION_PENDING):
            ripe = [one for one in known if _KINDS[one.what] is kind and now - one.since >= self._patience(one)]
            subjects.update(await self._to_tell(kind, ripe))
        for (kind, subject), (detail, mailbox) in subjects.items():
            await self._alarm.raised(kind, subject, detail, group=self._group(mailbox))
        for kind in (Kind.MAIL_STUCK, Kind.DISPOSITION_PENDING):
            for subject in await self._alarm.standing(kind):
                if (kind, subject) not in subjects and not await self._explained(subject.partition(",")[0]):
                    await self._alarm.ended(kind, subject)

    def _show(self, one: Stuck, now: datetime) -> None:
        if self._shown.get((one.mid, one.what)) == one.reason:
            return
        self._shown[one.mid, one.what] = one.reason
        waited = now - one.since
        log.warning(
            "message.overdue",
            mid=one.mid,
            mailbox=one.ref.folder.mailbox,
            folder=one.ref.folder.name,
            uid=one.ref.uid,
            what=one.what,
            waited_s=round(waited.total_seconds()),
            reason=one.reason,
        )
        self._alarm.fault(one.ref.folder.mailbox, "message.overdue", described(one), one.mid)

    async def _to_tell(self, kind: Kind, ripe: Sequence[Stuck]) -> dict[tuple[Kind, str], tuple[str, str]]:
        """(kind, subject) -> detail and mailbox: one for each of the first messages of a mailbox, and one for all
        others of it."""
        told: dict[tuple[Kind, str], tuple[str, str]] = {}
        by_mailbox: dict[str, list[Stuck]] = {}
        for one in ripe:
            by_mailbox.setdefault(one.ref.folder.mailbox, []).append(one)
        for mailbox, several in by_mailbox.items():
            if await self._explained(mailbox):
                continue
            for one in several[:NAMED]:
                told[kind, f"{mailbox}, uid {one.ref.uid} of {one.ref.folder.name}"] = (described(one), mailbox)
            if (more := len(several) - NAMED) > 0:
                told[kind, f"{mailbox}, and others"] = (f"{more} messages or more beside those", mailbox)
        return told

    def _patience(self, one: Stuck) -> timedelta:
        health = self._health.mailboxes.get(one.ref.folder.mailbox)
        return TOLD_AFTER if health is None else max(TOLD_AFTER, 2 * health.poll_interval + PAUSE)

    def _group(self, mailbox: str) -> str:
        watcher = self._watchers.get(mailbox)
        return "" if watcher is None else watcher.source.account.host


def described(one: Stuck) -> str:
    """A message that waits, in words: its name, its date, its size, and why."""
    received = "" if one.ref.received is None else f", received {one.ref.received:%Y-%m-%d %H:%M} UTC"
    size = "" if one.ref.size is None else f", {one.ref.size} octets"
    what = {
        "fetch": "it is not had",
        "question": "whether the name stands for another message now cannot be told",
        "disposition": "what is to be done to it on the server is not known to be done",
    }[one.what]
    why = f": {one.reason}" if one.reason else ""
    return (
        f"uid {one.ref.uid} of {one.ref.folder.name}{received}{size}, since {one.since:%Y-%m-%d %H:%M} UTC {what}{why}"
    )


def stuck_report(found: Sequence[Stuck]) -> list[dict[str, Any]]:
    """As plain data, for ``mailpoller status``."""
    return [
        {
            "mailbox": one.ref.folder.mailbox,
            "folder": one.ref.folder.name,
            "uid": one.ref.uid,
            "mid": one.mid,
            "what": one.what,
            "since": one.since.isoformat(timespec="seconds"),
            "received": None if one.ref.received is None else one.ref.received.isoformat(timespec="seconds"),
            "size": one.ref.size,
            "reason": one.reason,
        }
        for one in found
    ]


def _doing(health: MailboxHealth) -> str:
    return health.condition.value + (f", {health.reason}" if health.reason else "")


def _words(span: timedelta) -> str:
    minutes = round(span.total_seconds() / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"
