"""Watermarks: an alarm when too much waits in a mailbox, a queue or an outbox, or too long, until that is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from mailpoller.core.component import Watermarks
from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.ports import Clock, Mailboxes, Outbox, Standing
from mailpoller.core.record import record
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.health import Health
from mailpoller.engine.queues import Queue
from mailpoller.engine.watcher import Watcher

log = structlog.get_logger(__name__)

PAUSE = timedelta(minutes=1)


@record
class Level:
    """How much waits, and since when the oldest of it does."""

    count: int
    oldest_at: datetime | None


class WaitingLedger(Mailboxes, Outbox, Protocol):
    """What is asked of the ledger."""


class Tide:
    """Looks once a minute how much waits on the servers, in the queues and to be sent.

    ``marks_of``: those of a mailbox; ``queue_marks``: those of every queue; ``outbox_marks``: outgoing -> those of what
    waits to be sent by it. What cannot be told (a mailbox that was not
    polled yet, a queue that does not say, a ledger that cannot be read) is no level: neither an alarm nor its end.
    """

    def __init__(
        self,
        health: Health,
        watchers: Mapping[str, Watcher],
        queues: Callable[[], Collection[Queue]],
        ledger: WaitingLedger,
        alarm: Alarm,
        clock: Clock,
        *,
        marks_of: Callable[[str], Watermarks | None],
        queue_marks: Watermarks | None,
        outbox_marks: Callable[[], Mapping[str, Watermarks]] = dict,
    ) -> None:
        self._health = health
        self._watchers = watchers
        self._queues = queues
        self._ledger = ledger
        self._alarm = alarm
        self._clock = clock
        self._marks_of = marks_of
        self._queue_marks = queue_marks
        self._outbox_marks = outbox_marks

    async def run(self, ended: asyncio.Event) -> None:
        """Until ``ended``."""
        while not ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), PAUSE.total_seconds())
                return
            try:
                await self.look()
            except LedgerUnavailable as error:
                log.debug("watermarks.unread", reason=str(error))

    async def look(self) -> None:
        """Compare every level with its marks. Raises :class:`LedgerUnavailable`."""
        marked = {name: marks for name in self._watchers if (marks := self._marks_of(name)) is not None}
        if marked:
            standings, oldest = await self._ledger.standings(), await self._ledger.oldest()
            for name, marks in marked.items():
                if (watcher := self._watchers.get(name)) is None or not watcher.polls:
                    continue
                box = self._health.mailboxes[name]
                since = [at for at in (oldest.get(name), box.unfetched_since) if at is not None]
                level = Level(box.waiting(standings.get(name, Standing()).waiting), min(since, default=None))
                await self._judge(Kind.MAILBOX_BACKLOG, name, level, marks, group=watcher.source.account.host)
        await self._forget(Kind.MAILBOX_BACKLOG, marked)
        queues = self._queues() if self._queue_marks is not None else ()
        for queue in queues:
            if (depth := queue.depth) is not None and self._queue_marks is not None:
                level = Level(depth.ready + depth.taken, depth.oldest_at)
                group = f"queue {queue.name}"
                await self._judge(Kind.QUEUE_BACKLOG, queue.name, level, self._queue_marks, group=group)
        await self._forget(Kind.QUEUE_BACKLOG, [queue.name for queue in queues])
        outboxes = self._outbox_marks()
        waiting_there = await self._ledger.outbox_waiting() if outboxes else {}
        for name, marks in outboxes.items():
            level = Level(*waiting_there.get(name, (0, None)))
            await self._judge(Kind.OUTBOX_BACKLOG, name, level, marks, group=f"outgoing {name}")
        await self._forget(Kind.OUTBOX_BACKLOG, outboxes)

    async def _judge(self, kind: Kind, name: str, level: Level, marks: Watermarks, *, group: str) -> None:
        age = self._clock.now() - level.oldest_at if level.oldest_at is not None else timedelta(0)
        late = marks.max_age is not None and age > marks.max_age
        stands = await self._alarm.stands(kind, name)
        many = marks.high is not None and level.count >= (marks.high if not stands else marks.floor + 1)
        if late or many:
            since = f", the oldest for {age.total_seconds() / 3600:.1f} h" if level.oldest_at is not None else ""
            await self._alarm.raised(kind, name, f"{level.count:,} messages wait{since}", group=group)
        elif stands:
            await self._alarm.ended(kind, name)

    async def _forget(self, kind: Kind, names: Collection[str]) -> None:
        """End the alarms of those that have no marks (any more)."""
        for name in await self._alarm.standing(kind):
            if name not in names:
                await self._alarm.ended(kind, name)
