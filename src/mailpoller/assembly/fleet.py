"""Everything that runs: the mailboxes, the queues, and what they share."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta

from mailpoller.assembly.parts import (
    MailboxParts,
    MailboxPlan,
    Ports,
    RouteQueues,
    mailbox_parts,
    queue_parts,
)
from mailpoller.assembly.shares import Bounds, Shares
from mailpoller.core.component import SinkConfig
from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.ports import Expiring
from mailpoller.engine.dispatcher import LAST_RESORT
from mailpoller.engine.notify import Notifier
from mailpoller.engine.queues import Queue
from mailpoller.engine.supervisor import Service, Supervisor
from mailpoller.engine.turns import WEIGHTS
from mailpoller.engine.watcher import Watcher


class Fleet:
    """The mailboxes and queues of a process.

    ``queues`` are those that are configured; ``own`` those that only quarantined mail goes to, the last resort among them.
    ``watchers`` and ``parts`` are by mailbox, ``expiring`` by what the alarm calls a part that knows of dates.
    """

    def __init__(self, ports: Ports, bounds: Bounds, last_resort: SinkConfig) -> None:
        self.ports = ports
        self.shares = Shares(bounds, ports.runtime.clock)
        self.queues: dict[str, Queue] = {}
        self.own: dict[str, Queue] = {}
        self.watchers: dict[str, Watcher] = {}
        self.parts: dict[str, MailboxParts] = {}
        self.expiring: dict[str, Expiring] = {}
        self._closing = AsyncExitStack()
        # A list and not a mapping: blocks are compared by equality alone. A third party's need not be hashable, and a ``repr``
        # masks the secrets that two of them may differ by.
        self._quarantines: list[tuple[SinkConfig, str]] = []
        for name, outgoing in ports.runtime.outgoings.items():
            self._closing.push_async_callback(outgoing.close)
            self._note_expiring(f"outgoing {name}", outgoing)
        self.own[LAST_RESORT] = self._queue(LAST_RESORT, last_resort)

    async def close(self) -> None:
        """Close the queues and the outgoings, those last that were made first."""
        await self._closing.aclose()

    # --- queues --------------------------------------------------------------------------------------------------
    def add_queue(self, name: str, block: SinkConfig) -> Queue:
        """Have one more queue; raises :class:`~mailpoller.core.errors.ConfigError` if it cannot be built."""
        self.queues[name] = self._queue(name, block)
        return self.queues[name]

    def quarantine(self, mailbox: str, block: SinkConfig) -> str:
        """The name of the queue that this block describes. Mailboxes with equal blocks share one, and its back-off."""
        for made, name in self._quarantines:
            if made == block:
                return name
        name = QUARANTINE if not self._quarantines else f"{QUARANTINE} of {mailbox}"
        self.own[name] = self._queue(name, block)
        self._quarantines.append((block, name))
        return name

    def _queue(self, name: str, block: SinkConfig) -> Queue:
        queue = queue_parts(name, block, self._ready, self.ports, self.shares)
        self._closing.push_async_callback(queue.sink.close)
        return queue

    def _ready(self) -> None:
        for watcher in self.watchers.values():
            watcher.rouse()

    # --- mailboxes -----------------------------------------------------------------------------------------------
    def add_mailbox(self, plan: MailboxPlan) -> MailboxParts:
        """Have one more mailbox; raises :class:`~mailpoller.core.errors.ConfigError` if it cannot be built."""
        name = plan.name
        self.ports.health.register(name, plan.block.poll_interval)
        self.shares.weights[name] = WEIGHTS[plan.block.priority]
        parts = mailbox_parts(plan, RouteQueues(self.queues, self.own, plan.quarantine), self.ports, self.shares)
        self.parts[name], self.watchers[name] = parts, parts.watcher
        self._note_expiring(f"mailbox {name}", parts.source)
        return parts

    def _note_expiring(self, name: str, part: object) -> None:
        if isinstance(part, Expiring):
            self.expiring[name] = part

    # --- all of them ---------------------------------------------------------------------------------------------
    def supervisor(self, *, notifier: Notifier, grace: timedelta, services: Mapping[str, Service]) -> Supervisor:
        """What runs them."""
        return Supervisor(
            list(self.watchers.values()),
            [*self.queues.values(), *self.own.values()],
            health=self.ports.health,
            notifier=notifier,
            clock=self.ports.runtime.clock,
            grace=grace,
            stop=self.ports.stop,
            services=services,
        )
