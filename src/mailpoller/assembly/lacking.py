"""What lacks something at the start: the rest runs, and what is missing is looked for until it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from mailpoller.assembly.fleet import Fleet
from mailpoller.assembly.parts import MailboxPlan
from mailpoller.assembly.standins import AbsentOutgoing, AbsentSink, AbsentSource
from mailpoller.core.component import OutgoingConfig, SinkConfig
from mailpoller.core.errors import ConfigError
from mailpoller.engine.alarm import Kind

log = structlog.get_logger(__name__)

LOOK_AGAIN = timedelta(minutes=1)


class Lacking:
    """Adds parts to a fleet. One that cannot be built, because an optional package or a file is missing, is stood in
    for, and takes its place without a restart as soon as it can be built.

    A mailbox whose place is taken is refused, a queue is down, and by an outgoing nothing is sent; each with an alarm
    that says why. Outgoings come first, then queues, then mailboxes.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._waiting: dict[str, Callable[[], Awaitable[object]]] = {}
        self._reasons: dict[str, str] = {}

    def outgoing(self, name: str, block: OutgoingConfig) -> None:
        """Look after an outgoing that the fleet has."""
        if isinstance(found := self._fleet.outgoings[name], AbsentOutgoing):
            self._wait(f"outgoing {name}", found.reason, lambda: self._fleet.replace_outgoing(name, block))

    def queue(self, name: str, block: SinkConfig) -> None:
        """One queue more."""
        try:
            self._fleet.add_queue(name, block)
        except ConfigError as error:
            self._fleet.add_queue(name, block, stand_in=AbsentSink(str(error)))
            self._wait(f"queue {name}", str(error), lambda: self._fleet.replace_queue(name, block))

    def mailbox(self, name: str, plan: Callable[[], MailboxPlan], bare: MailboxPlan) -> None:
        """One mailbox more. ``bare``: its plan without rules and a quarantine of its own, which may be what cannot be
        built; nothing is ever judged by it."""
        try:
            self._fleet.add_mailbox(plan())
        except ConfigError as error:
            self._fleet.add_mailbox(bare, stand_in=AbsentSource(str(error), bare.block.polled_account()))
            self._wait(f"mailbox {name}", str(error), lambda: self._fleet.replace_mailbox(plan()))

    def _wait(self, part: str, reason: str, come: Callable[[], Awaitable[object]]) -> None:
        self._waiting[part], self._reasons[part] = come, reason
        log.error("part.lacking", part=part, reason=reason)

    async def run(self, stop: asyncio.Event) -> None:
        """Look again every minute until ``stop``, or until nothing lacks anything."""
        alarm, clock = self._fleet.ports.alarm, self._fleet.ports.runtime.clock
        for part, reason in self._reasons.items():
            kind, _, name = part.partition(" ")
            alarm.fault(name if kind == "mailbox" else part.replace(" ", ":", 1), "part.lacking", reason, "")
            if kind == "queue":
                await alarm.raised(Kind.QUEUE_FAILING, name, reason, group=part)
        while self._waiting and not stop.is_set():
            sleeping = asyncio.ensure_future(clock.sleep(LOOK_AGAIN.total_seconds()))
            stopping = asyncio.ensure_future(stop.wait())
            try:
                await asyncio.wait((sleeping, stopping), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeping.cancel()
                stopping.cancel()
            if not stop.is_set():
                await self.look()

    async def look(self) -> None:
        """Put into its place what can be built now."""
        for part, come in list(self._waiting.items()):
            try:
                await come()
            except ConfigError as error:
                if self._reasons.get(part) != str(error):
                    self._reasons[part] = str(error)
                    log.error("part.lacking", part=part, reason=str(error))
                continue
            except KeyError:
                pass  # it was removed meanwhile
            del self._waiting[part]
