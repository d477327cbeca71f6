"""What one mailbox consists of while it is polled, and what one queue does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import field
from functools import partial
from typing import Any, Literal

import structlog

from mailpoller.assembly.shares import Shares
from mailpoller.assembly.standins import built
from mailpoller.config.fields import require_secrets, secrets_of
from mailpoller.core.component import Runtime, SinkConfig
from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.ports import BlobStore, Clock, DoubtKind, Ledger, Marked, Sink, Source
from mailpoller.core.record import record
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.acknowledging import Acknowledging
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.batch_runner import BatchRunner
from mailpoller.engine.budget import Budget
from mailpoller.engine.dispatcher import Dispatcher
from mailpoller.engine.ending import Ending
from mailpoller.engine.health import Health
from mailpoller.engine.judge import Judge
from mailpoller.engine.observer import Observer
from mailpoller.engine.pauses import Pauses
from mailpoller.engine.pipeline import Pipeline
from mailpoller.engine.queues import Queue
from mailpoller.engine.recognition import Recognition
from mailpoller.engine.records import records_of
from mailpoller.engine.threads import ThreadFinder
from mailpoller.engine.watcher import Watcher

log = structlog.get_logger(__name__)


NOTICES = "notices"
"""What a queue is called that only notices of quarantined mail go to."""


class Bystander:
    """Sees what the parts tell one another, and changes nothing. This one does not look; tests have others."""

    def observer(self, mailbox: str, observer: Observer) -> Observer:
        """Who is told of a mailbox's messages: ``observer``, or somebody who passes all on to it."""
        return observer

    def edge(self, queue: Queue, up: bool) -> None:
        """A queue went down, or takes mail again."""


@record
class Ports:
    """What a process has one of, and every part is given."""

    ledger: Ledger
    alarm: Alarm
    health: Health
    runtime: Runtime
    stop: asyncio.Event
    """Set when the service is to stop."""
    alerts: str = ""
    """The outgoing that the alarm sends by; empty if it mails nobody."""
    bystander: Bystander = field(default_factory=Bystander)
    pauses: Pauses = field(default_factory=Pauses)
    blobs: BlobStore | None = None
    """Where octets lie that events refer to; None: nowhere."""
    prudent: Clock | None = None
    """By which mail is removed for its age; None: by the runtime's."""


Scope = Literal["mailbox", "departments", "all"]


@record
class MailboxPlan:
    """A mailbox that is to be polled. ``notices``: the name of the queue that is told of what is quarantined; empty:
    nobody is told; None: that is not known yet, and the notices wait.

    ``reachable``: the queues that its mail can go to, None if that cannot be told. ``bodies_wanted``: some rule or
    queue looks below the header. ``scope``: among whose mail the conversations of answers are looked for.
    """

    name: str
    block: SourceConfig
    pipeline: Pipeline
    notices: str | None = ""
    reachable: frozenset[str] | None = None
    bodies_wanted: bool = True
    scope: Scope = "mailbox"


@record
class MailboxParts:
    """A mailbox's engine, put together. Nothing of it runs yet."""

    plan: MailboxPlan
    source: Source
    watcher: Watcher
    runner: BatchRunner
    judge: Judge
    dispatcher: Dispatcher
    budget: Budget
    ending: Ending
    """Set to end this mailbox alone."""


def mailbox_parts(
    plan: MailboxPlan,
    queues: Mapping[str, Queue],
    ports: Ports,
    shares: Shares,
    beside: Mapping[str, MailboxParts],
    source: Source | None = None,
) -> MailboxParts:
    """Build the mailbox's source (unless one is given), and an engine around it that brings mail to ``queues``, by the
    names that routes have.

    ``beside``: the mailboxes that run, whenever one asks.
    The mailbox must be registered with the health. Raises :class:`~mailpoller.core.errors.ConfigError` if the source
    cannot be built; nothing is connected.
    """
    name, block, clock, bounds = plan.name, plan.block, ports.runtime.clock, shares.bounds
    if source is None:
        source = built(block, lambda: block.build(name, ports.runtime))
    ending = Ending(ports.stop)
    records = records_of(ports.ledger, shares.recording, name)
    watcher = Watcher(
        name,
        block,
        source,
        records=records,
        clock=clock,
        health=ports.health,
        alarm=ports.alarm,
        budget=bounds.poll_budget,
        stop=ending,
        connecting=shares.connecting,
        connections=shares.connections,
        require=partial(require_secrets, block) if any(secrets_of(block)) else None,
        pauses=ports.pauses,
    )
    ports.health.mailboxes[name].costs = plan.pipeline.costs
    observer = ports.bystander.observer(name, watcher.reports)
    dispatcher = Dispatcher(block, queues, clock)
    judge = Judge(
        name,
        pipeline=plan.pipeline,
        dispatcher=dispatcher,
        records=records,
        threads=ThreadFinder(plan.pipeline, records.threads, partial(_related, plan, beside)),
        clock=clock,
        turns=shares.judging,
        max_strikes=bounds.limits.max_strikes,
        bodies_wanted=plan.bodies_wanted,
        observer=observer,
        workers=shares.workers,
        acknowledging=Acknowledging(block, clock),
    )
    budget = Budget(bounds.memory_per_mailbox, shares.budget, mailbox=name)
    runner = watcher.runner = BatchRunner(
        name,
        block,
        judge=judge,
        dispatcher=dispatcher,
        records=records,
        budget=budget,
        clock=clock,
        limits=bounds.limits,
        stop=watcher.patience,
        reachable=plan.reachable,
        observer=observer,
        log_rate=shares.log_rate,
        prudent=ports.prudent,
        beside=watcher.beside,
    )
    return MailboxParts(plan, source, watcher, runner, judge, dispatcher, budget, ending)


def _related(plan: MailboxPlan, beside: Mapping[str, MailboxParts]) -> Collection[str] | None:
    """The mailboxes whose mail one of this mailbox may answer; None: any."""
    if plan.scope == "all":
        return None
    related = {plan.name}
    if plan.scope == "departments":
        departments = frozenset(plan.block.departments)
        related.update(name for name, one in beside.items() if not departments.isdisjoint(one.plan.block.departments))
    return related


class RouteQueues(Mapping[str, Queue]):
    """The queues by the names that routes have: all that are configured, and the quarantine.

    A view: a queue that joins or leaves does so here too.
    """

    def __init__(self, configured: Mapping[str, Queue], own: Mapping[str, Queue]) -> None:
        self._configured = configured
        self._own = own

    def __getitem__(self, name: str) -> Queue:
        return self._own[QUARANTINE] if name == QUARANTINE else self._configured[name]

    def get(self, name: str, default: Any = None) -> Any:
        """As every mapping has it; asked several times for each message, so without the detour over an exception."""
        found = self._configured.get(name)
        return found if found is not None and name != QUARANTINE else super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        yield from self._configured
        yield QUARANTINE

    def __len__(self) -> int:
        return len(self._configured) + 1


def queue_parts(
    name: str, block: SinkConfig, ready: Callable[[], None], ports: Ports, shares: Shares, sink: Sink | None = None
) -> Queue:
    """Build a queue and its sink, unless one is given. ``ready`` is called whenever it takes mail again; the
    alarm hears of its troubles.

    Raises :class:`~mailpoller.core.errors.ConfigError` if the sink cannot be built; nothing is opened.
    """
    alarm = ports.alarm

    async def edge(queue: Queue, up: bool, reason: str) -> None:
        ports.bystander.edge(queue, up)
        kind, other = Kind.QUEUE_FAILING, Kind.QUEUE_VANISHED
        if queue.vanished:
            kind, other = other, kind
        await alarm.ended(other, queue.name)
        if up:
            await alarm.ended(kind, queue.name)
        else:
            alarm.fault(f"queue:{queue.name}", "queue.vanished" if queue.vanished else "queue.failed", reason, "")
            await alarm.raised(kind, queue.name, reason, group=f"queue {queue.name}")

    async def doubts(queue: Queue, kind: DoubtKind, words: str | None) -> None:
        if words is None:
            await alarm.ended(kind, queue.name)
        else:
            await alarm.raised(kind, queue.name, words, group=f"queue {queue.name}")

    async def untaken(queue: Queue, since: str | None) -> None:
        if since is None:
            await alarm.ended(Kind.QUEUE_UNTAKEN, queue.name)
        elif not await alarm.stands(Kind.QUEUE_UNTAKEN, queue.name):
            log.warning("queue.untaken", queue=queue.name, reason=since)
            alarm.fault(f"queue:{queue.name}", "queue.untaken", since, "")
            await alarm.raised(Kind.QUEUE_UNTAKEN, queue.name, since, group=f"queue {queue.name}")

    async def unserved(queue: Queue, words: str | None) -> None:
        if words is None:
            alarm.tell_end(Kind.RECIPIENT_REFUSED, queue.name)
            return
        log.warning("queue.unserved", queue=queue.name, reason=words)
        alarm.fault(f"queue:{queue.name}", "queue.unserved", words, "")
        alarm.tell(Kind.RECIPIENT_REFUSED, queue.name, words, group=f"queue {queue.name}")

    if sink is None:
        sink = built(block, lambda: block.build(name, ports.runtime))
    queue = Queue(
        name,
        sink,
        payload=block.payload,
        octets_wanted=block.octets_wanted,
        blobs=ports.blobs if block.blobs_above is not None else None,
        blobs_above=block.blobs_above or 0,
        retry_interval=block.retry_interval,
        clock=ports.runtime.clock,
        listener=edge,
        on_ready=ready,
        doubts=doubts,
        untaken=untaken,
        unserved=unserved,
        recognition=Recognition(_known_as(name, sink), sink, ports.ledger, ports.runtime.clock),
        calls=shares.calls(),
        formerly=block.formerly,
        paused=partial(ports.pauses.of_queue, name, block.formerly),
    )
    alarm.learn(queue.doubts)
    return queue


def _known_as(name: str, sink: Sink) -> str:
    """What the ledger knows a queue by: its name; the place of the quarantine, and of one for notices, whose name only
    says whose it was first."""
    quarantine = name in (QUARANTINE, NOTICES) or name.startswith(f"{NOTICES} of ")
    return f"{QUARANTINE} at {sink.place()}" if quarantine and isinstance(sink, Marked) else name
