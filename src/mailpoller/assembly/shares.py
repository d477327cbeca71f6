"""What a process has a bounded amount of, made once for all of its mailboxes."""

from __future__ import annotations

import asyncio
import resource
from datetime import timedelta

from mailpoller.config.model import ServiceConfig
from mailpoller.core.ports import Clock
from mailpoller.core.record import record
from mailpoller.engine.batcher import Limits
from mailpoller.engine.budget import Budget
from mailpoller.engine.connections import Connections
from mailpoller.engine.host_limits import HostLimits
from mailpoller.engine.outcomes import LogRate
from mailpoller.engine.queues import CONCURRENT_CALLS
from mailpoller.engine.turns import Turns
from mailpoller.workers.pool import Workers

CONNECTING = 48
"""Mailboxes that connect and log in at the same time."""

JUDGING = 4
"""Batches that are parsed and judged at the same time: enough to keep the processor busy, few enough that nobody
waits long."""

RECORDING = 8
"""Batches that the ledger is handed at the same time. It commits all that wait at once, so each of them waits for
all."""

KEPT_ASIDE = 8
"""An eighth of the memory is for small batches alone, so that they do not wait for large ones on slow lines."""


OWN_FILES, FILES_PER_QUEUE = 32, 4
"""File descriptors that are not for sessions: those of the loop, the ledger, the spool, relays and the control socket,
and those of a queue. Sessions that took them would stop the mail of everybody."""


def sessions_allowed(wanted: int, queues: int) -> int:
    """How many sessions there may be at once, of ``wanted`` (0: any number), under this process's limit of files."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    room = max(1, limit - OWN_FILES - FILES_PER_QUEUE * queues)
    return min(wanted or room, room)


@record
class Bounds:
    """How much of everything a process may use. ``memory`` and ``memory_per_mailbox`` are octets in hand; 0
    connections are no limit.

    ``poll_budget``: a mailbox that gets nowhere for so long is stuck.
    """

    memory: int
    memory_per_mailbox: int
    limits: Limits
    poll_budget: timedelta
    connections: int = 0
    connections_per_host: int = 0
    judging: int = JUDGING
    log_rate: int = 0
    """Settled messages that are logged one by one in a second; 0: all of them."""
    workers: int = 0
    """Processes that read what may do harm; 0: none, we do."""

    @classmethod
    def of(cls, service: ServiceConfig, queues: int) -> Bounds:
        """Those that are configured; sessions as far as this process may have files open beside its own."""
        return cls(
            memory=service.memory,
            memory_per_mailbox=service.memory_per_mailbox,
            limits=Limits(service.batch_messages, service.batch_size, service.max_strikes),
            poll_budget=service.poll_budget,
            connections=sessions_allowed(service.max_connections, queues),
            connections_per_host=service.max_connections_per_host,
            workers=service.workers,
            log_rate=service.log_rate,
        )


class Shares:
    """Whatever mailboxes wait for one another at. ``weights`` (mailbox -> weight) is looked at whenever something is
    handed out, so it may change at any time."""

    def __init__(self, bounds: Bounds, clock: Clock) -> None:
        self.bounds = bounds
        self.weights: dict[str, int] = {}
        self.budget = Budget(bounds.memory, weights=self.weights, aside=bounds.memory // KEPT_ASIDE)
        self.judging = Turns(bounds.judging, self.weights)
        self.workers = Workers(bounds.workers) if bounds.workers else None
        self.log_rate = LogRate(clock, bounds.log_rate)
        self.recording = Turns(RECORDING, self.weights)
        self.connecting = asyncio.Semaphore(CONNECTING)
        self.hosts = HostLimits(clock, bounds.connections_per_host)
        self.connections = Connections(clock, limit=bounds.connections, hosts=self.hosts, weights=self.weights)

    async def close(self) -> None:
        """Give back what outlives the mailboxes."""
        if self.workers is not None:
            await self.workers.close()

    def calls(self) -> Turns:
        """The places at one queue."""
        return Turns(CONCURRENT_CALLS, self.weights)
