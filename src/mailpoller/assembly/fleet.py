"""Everything that runs: the mailboxes, the queues and the outgoings. Each may be added, replaced and removed while
the rest runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta

import structlog

from mailpoller.assembly.closing import closed
from mailpoller.assembly.parts import MailboxParts, MailboxPlan, Ports, RouteQueues, mailbox_parts
from mailpoller.assembly.queue_set import QueueSet
from mailpoller.assembly.shares import Bounds, Shares
from mailpoller.assembly.standins import built
from mailpoller.assembly.users import brings_to, sending_by
from mailpoller.core.component import OutgoingConfig, SinkConfig
from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.errors import ConfigError
from mailpoller.core.ports import Expiring, Outgoing, QuarantineStore, Sink, Source
from mailpoller.core.standing import USUAL_STANDING, Standing
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.alarm import Kind
from mailpoller.engine.notices import Unknown
from mailpoller.engine.notify import Notifier
from mailpoller.engine.queues import Queue
from mailpoller.engine.release import Way
from mailpoller.engine.retrieval import Retrieval
from mailpoller.engine.supervisor import Service, Supervisor
from mailpoller.engine.turns import WEIGHTS
from mailpoller.engine.watcher import Watcher

log = structlog.get_logger(__name__)


class Fleet:
    """The mailboxes, queues and outgoings of a process.

    ``queues`` are those that are configured; ``own`` the quarantine, which ``quarantine`` describes and ``store`` is,
    if it is given, and those that only its notices go to. ``watchers`` and ``parts`` are by mailbox, ``expiring`` by
    what the alarm calls a part that knows of dates. All of them are always up to date, and may be held by others.

    A part that is added works as soon as the service does. One that is removed ends what it has in hand within the
    grace; one that is replaced does so before its successor begins. If a method raises, the fleet is what it was. If
    its caller is cancelled, the part may have ended already and not be replaced or forgotten yet: call it again.
    Changes wait for one another.
    """

    def __init__(
        self, ports: Ports, bounds: Bounds, quarantine: SinkConfig, store: QuarantineStore | None = None
    ) -> None:
        self.outgoings: dict[str, Outgoing] = dict(ports.runtime.outgoings)
        self.alerts = ports.alerts
        """The outgoing that the alarm sends by; empty if it mails nobody. Changed by whoever tells the alarm so."""
        self.shares = Shares(bounds, ports.runtime.clock)
        runtime = replace(ports.runtime, outgoings=self.outgoings, pacer=self.shares.hosts.pacer)
        self.ports = replace(ports, runtime=runtime)
        self._all_queues = QueueSet(self.ports, self.shares, self._ready)
        self.queues = self._all_queues.configured
        self.own = self._all_queues.own
        self.watchers: dict[str, Watcher] = {}
        self.parts: dict[str, MailboxParts] = {}
        self.expiring: dict[str, Expiring] = {}
        self._blocks = self._all_queues.blocks
        self._left: dict[str, MailboxParts] = {}
        """Mailboxes that left while the ledger could not be told that their claims are given back."""
        self._supervisor: Supervisor | None = None
        self._changing = asyncio.Lock()
        for name, outgoing in self.outgoings.items():
            self._note_expiring(f"outgoing {name}", outgoing)
        self.usual_notices: str | None = ""
        """The queue that is told of quarantined mail of mailboxes that are not here (any more). As in a plan."""
        self.awaited: frozenset[str] = frozenset()
        """Mailboxes that are configured and whose notices wait while they are not here: they have a place of their own,
        or what is wrong with them leaves that open."""
        self.store = store
        self._all_queues.join(self.own, self._all_queues.make(QUARANTINE, quarantine, store), quarantine)

    def supervisor(self, *, notifier: Notifier, grace: timedelta, services: Mapping[str, Service]) -> Supervisor:
        """What runs them, and whoever joins. ``grace``: how long a part that leaves may take to end what it has in
        hand."""
        self._all_queues.grace = grace
        self._supervisor = Supervisor(
            list(self.watchers.values()),
            self._all_queues.every(),
            health=self.ports.health,
            notifier=notifier,
            clock=self.ports.runtime.clock,
            grace=grace,
            stop=self.ports.stop,
            services=services,
        )
        self._all_queues.supervisor = self._supervisor
        return self._supervisor

    async def close(self) -> None:
        """Close the queues, then the outgoings, then what the mailboxes shared. Nothing may be running."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(closed, "workers", self.shares.close)
            for name, outgoing in self.outgoings.items():
                stack.push_async_callback(closed, f"outgoing {name}", outgoing.close)
            for queue in [*self._all_queues.every(), *self._all_queues.leaving]:
                stack.push_async_callback(closed, f"queue {queue.name}", queue.close)

    # --- mailboxes -----------------------------------------------------------------------------------------------
    def add_mailbox(self, plan: MailboxPlan, *, stand_in: Source | None = None) -> MailboxParts:
        """One mailbox more; with ``stand_in`` in place of its source, which cannot be built.

        Raises :class:`~mailpoller.core.errors.ConfigError` if it cannot be built, :class:`ValueError` if there is one
        of this name."""
        if plan.name in self.parts:
            raise ValueError(f"there is a mailbox {plan.name}")
        health = self.ports.health
        # The source is built by mailbox_parts, and a watcher wants to know where to say how it fares.
        known = health.mailboxes.get(plan.name)
        health.register(plan.name, plan.block.poll_interval)
        try:
            parts = self._make_mailbox(plan, stand_in)
        except BaseException:
            if known is None:
                del health.mailboxes[plan.name]
            else:
                health.mailboxes[plan.name] = known
            raise
        if (left := self._left.pop(plan.name, None)) is not None:
            parts.runner.take_over(left.runner)
        self._begin(parts)
        self._say_added(f"mailbox {plan.name}")
        return parts

    async def replace_mailbox(self, plan: MailboxPlan) -> MailboxParts:
        """Another plan for a mailbox, which begins when the former one has ended: never are there two sessions of it.

        Raises :class:`~mailpoller.core.errors.ConfigError` if it cannot be built, :class:`KeyError` if there is no
        such mailbox.
        """
        if failed := await self.replace_mailboxes({plan.name: lambda: plan}):
            raise failed[plan.name]
        return self.parts[plan.name]

    async def replace_mailboxes(self, plans: Mapping[str, Callable[[], MailboxPlan]]) -> dict[str, ConfigError]:
        """Other plans for several mailboxes, by name: they end side by side, and each begins when its former one has
        ended. Those that cannot be built stay what they were; why, is returned.

        Raises :class:`KeyError` if there is no such mailbox; then none is replaced.
        """
        async with self._changing:
            formers = {name: self.parts[name] for name in plans}
            made: dict[str, MailboxParts] = {}
            failed: dict[str, ConfigError] = {}
            for name, plan in plans.items():
                try:
                    # Asked for now: a quarantine that it makes would be swept away by whoever changed something first.
                    made[name] = self._make_mailbox(plan())
                except ConfigError as error:
                    failed[name] = error

            async def one(name: str) -> None:
                try:
                    await self._succeed(formers[name], made[name])
                except Exception as error:  # it may have ended without a successor; another try begins where this was
                    log.exception("fleet.crashed", part=f"mailbox {name}")
                    failed[name] = ConfigError(f"{type(error).__name__}; the log has more")

            async with TaskGroup() as group:
                for name in made:
                    group.create_task(one(name), name=f"replace {name}")
            await self._sweep()
            return failed

    async def _succeed(self, former: MailboxParts, parts: MailboxParts) -> None:
        name, alarm, health = parts.plan.name, self.ports.alarm, self.ports.health.mailboxes[parts.plan.name]
        await self._end(former)
        health.poll_interval = parts.plan.block.poll_interval
        kept = tuple(parts.plan.block.named_folders())
        await self._forget_folders(name, [folder for folder in health.failing if folder not in kept])
        # The new watcher says these again if they are still so; what the former one knew of them is gone.
        await alarm.ended(Kind.MAILBOX_HELD, name)
        alarm.tell_end(Kind.DISPOSITION_IMPOSSIBLE, name)
        parts.runner.take_over(former.runner)
        self._begin(parts)
        log.info("fleet.changed", change="replaced", part=f"mailbox {name}")

    async def remove_mailbox(self, name: str) -> None:
        """:meth:`remove_mailboxes` of one."""
        await self.remove_mailboxes([name])

    async def remove_mailboxes(self, names: Iterable[str]) -> None:
        """These mailboxes less, which end side by side, and nothing is said of them any more; what the ledger knows
        of them stays.

        Raises :class:`KeyError` if there is no such mailbox; then all stay."""
        async with self._changing:
            leaving = [self.parts[name] for name in names]
            async with TaskGroup() as group:
                for parts in leaving:
                    group.create_task(self._end(parts), name=f"remove {parts.plan.name}")
            for parts in leaving:
                await self._forget(parts)
            await self._sweep()

    async def _forget(self, parts: MailboxParts) -> None:
        name, alarm, health = parts.plan.name, self.ports.alarm, self.ports.health
        await self._forget_folders(name, list(health.mailboxes[name].failing))
        for kind in (Kind.MAILBOX_DOWN, Kind.CREDENTIALS_REFUSED, Kind.MAILBOX_LACKING, Kind.MAILBOX_HELD):
            await alarm.ended(kind, name)
        alarm.tell_end(Kind.DISPOSITION_IMPOSSIBLE, name)  # behind what was told and is not taken up yet
        if parts.runner.holds_claims:
            self._left[name] = parts
        del self.parts[name], self.watchers[name], health.mailboxes[name]
        self.shares.weights.pop(name, None)
        self.expiring.pop(f"mailbox {name}", None)
        log.info("fleet.changed", change="removed", part=f"mailbox {name}")

    def _make_mailbox(self, plan: MailboxPlan, source: Source | None = None) -> MailboxParts:
        unknown = {*(plan.reachable or ()), plan.notices or QUARANTINE} - self.queues.keys() - self.own.keys()
        if unknown:
            raise ConfigError(f"mailbox {plan.name}: there is no queue named {', '.join(sorted(unknown))}")
        queues = RouteQueues(self.queues, self.own)
        return mailbox_parts(plan, queues, self.ports, self.shares, self.parts, source)

    def _begin(self, parts: MailboxParts) -> None:
        name = parts.plan.name
        self.shares.weights[name] = WEIGHTS[parts.plan.block.priority]
        self.parts[name], self.watchers[name] = parts, parts.watcher
        self.expiring.pop(f"mailbox {name}", None)
        self._note_expiring(f"mailbox {name}", parts.source)
        if self._supervisor is not None:
            self._supervisor.join(parts.watcher)

    async def _end(self, parts: MailboxParts) -> None:
        parts.ending.set()
        if self._supervisor is not None:
            await self._supervisor.leave(parts.watcher)

    async def _forget_folders(self, mailbox: str, folders: Iterable[str]) -> None:
        for folder in folders:
            self.ports.health.mailboxes[mailbox].failing.pop(folder, None)
            await self.ports.alarm.ended(Kind.FOLDER_FAILING, f"{mailbox}/{folder}")

    # --- queues --------------------------------------------------------------------------------------------------
    def add_queue(self, name: str, block: SinkConfig, *, stand_in: Sink | None = None) -> Queue:
        """One queue more; with ``stand_in`` in place of its sink, which cannot be built.

        Raises :class:`~mailpoller.core.errors.ConfigError` if it cannot be built, :class:`ValueError` if there is one
        of this name."""
        if name in self.queues:
            raise ValueError(f"there is a queue {name}")
        queue = self._all_queues.join(self.queues, self._all_queues.make(name, block, stand_in), block)
        self._say_added(f"queue {name}")
        return queue

    def notices(self, mailbox: str, block: SinkConfig) -> str:
        """The name of the queue that this block describes, for notices of quarantined mail. Mailboxes with equal
        blocks share one, and its back-off.

        One that no mailbox has goes when a mailbox is next replaced or removed.
        """
        return self._all_queues.for_notices(mailbox, block)

    def told_of(self, mailbox: str) -> Queue | None:
        """The queue that is told of quarantined mail of a mailbox; None if nobody is. Raises :class:`Unknown`."""
        parts = self.parts.get(mailbox)
        name = self.usual_notices if parts is None else parts.plan.notices
        if name is None or (parts is None and mailbox in self.awaited):
            raise Unknown
        return self.queues.get(name) or self.own.get(name) if name else None

    def way_of(self, mailbox: str) -> Way | None:
        """What a mailbox's mail goes through; None if it is not here."""
        if (parts := self.parts.get(mailbox)) is None:
            return None
        block = parts.plan.block
        retrieval = Retrieval(parts.source, self.ports.ledger, block.max_message_size)
        return Way(parts.judge, block.default_queue, block.default_topic, block.standing(), retrieval)

    def standing_of(self, mailbox: str) -> Standing:
        """What its configuration says of a mailbox; of one that is not here, what holds where nothing is said."""
        parts = self.parts.get(mailbox)
        return USUAL_STANDING if parts is None else parts.plan.block.standing()

    async def replace_queue(self, name: str, block: SinkConfig) -> Queue:
        """Another block for a configured queue. Mail for it waits until the former sink has answered and is closed.

        Raises :class:`~mailpoller.core.errors.ConfigError` if it cannot be built, :class:`KeyError` if there is no
        such queue.
        """
        async with self._changing:
            if name not in self.queues:
                raise KeyError(name)
            queue = self._all_queues.make(name, block)
            await self._all_queues.swap(queue, block)
            log.info("fleet.changed", change="replaced", part=f"queue {name}")
            return queue

    async def remove_queue(self, name: str) -> None:
        """One configured queue less. Raises :class:`~mailpoller.core.errors.ConfigError` while a mailbox's mail can
        go to it, and :class:`KeyError` if there is no such queue."""
        async with self._changing:
            queue = self.queues[name]
            if users := [mailbox for mailbox, parts in self.parts.items() if brings_to(parts.plan, name)]:
                raise ConfigError(f"the queue {name} cannot go: mail of {', '.join(sorted(users))} is brought to it")
            del self.queues[name], self._blocks[name]
            await self._all_queues.see_off(queue)
            self._ready()  # what was owed to it goes elsewhere, now
            log.info("fleet.changed", change="removed", part=f"queue {name}")

    async def _sweep(self) -> None:
        """End the queues for notices that no mailbox has any more."""
        used = {QUARANTINE, self.usual_notices, *(parts.plan.notices for parts in self.parts.values())}
        await self._all_queues.sweep(used)

    def _ready(self) -> None:
        for one in self.watchers.values():
            one.rouse()

    # --- outgoings -----------------------------------------------------------------------------------------------
    def add_outgoing(self, name: str, block: OutgoingConfig, *, stand_in: Outgoing | None = None) -> Outgoing:
        """One outgoing more; with ``stand_in`` in its place, if it cannot be built.

        Raises :class:`~mailpoller.core.errors.ConfigError` if it cannot be built, :class:`ValueError` if there is one
        of this name."""
        if name in self.outgoings:
            raise ValueError(f"there is an outgoing {name}")
        outgoing = self.outgoings[name] = stand_in or built(block, lambda: block.build(name, self.ports.runtime))
        self._note_expiring(f"outgoing {name}", outgoing)
        self._say_added(f"outgoing {name}")
        return outgoing

    async def replace_outgoing(self, name: str, block: OutgoingConfig) -> Outgoing:
        """Another block for an outgoing. The queues that send by it are replaced by equal ones, the alarm changes
        over, and the former one is closed last.

        Raises :class:`~mailpoller.core.errors.ConfigError` if it or one of the queues cannot be built,
        :class:`KeyError` if there is no such outgoing."""
        async with self._changing:
            former = self.outgoings[name]
            outgoing = self.outgoings[name] = built(block, lambda: block.build(name, self.ports.runtime))
            try:
                queues = [self._all_queues.make(queue, self._blocks[queue]) for queue in sending_by(self._blocks, name)]
            except BaseException:
                self.outgoings[name] = former
                raise
            self.expiring.pop(f"outgoing {name}", None)
            self._note_expiring(f"outgoing {name}", outgoing)
            if name == self.alerts:
                self.ports.alarm.send_by(outgoing)
            for queue in queues:
                await self._all_queues.swap(queue, self._blocks[queue.name])
            await closed(f"outgoing {name}", former.close)
            log.info("fleet.changed", change="replaced", part=f"outgoing {name}")
            return outgoing

    async def remove_outgoing(self, name: str) -> None:
        """One outgoing less. Raises :class:`~mailpoller.core.errors.ConfigError` while a queue or the alarm sends by
        it, and :class:`KeyError` if there is no such outgoing."""
        async with self._changing:
            outgoing = self.outgoings[name]
            users = [f"queue {queue}" for queue in sending_by(self._blocks, name)]
            users += ["alerts"] if name == self.alerts else []
            if users:
                raise ConfigError(f"the outgoing {name} cannot go: {', '.join(users)} send by it")
            del self.outgoings[name]
            self.expiring.pop(f"outgoing {name}", None)
            await closed(f"outgoing {name}", outgoing.close)
            log.info("fleet.changed", change="removed", part=f"outgoing {name}")

    def _say_added(self, part: str) -> None:
        if self._supervisor is not None:  # what is there from the start is no change
            log.info("fleet.changed", change="added", part=part)

    def _note_expiring(self, name: str, part: object) -> None:
        if isinstance(part, Expiring):
            self.expiring[name] = part
