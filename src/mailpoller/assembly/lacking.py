"""What lacks something, at the start or after a reload: the rest runs, and what is missing is looked for until it is
there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import structlog

from mailpoller.assembly.fleet import Fleet
from mailpoller.assembly.parts import MailboxPlan
from mailpoller.assembly.standins import AbsentOutgoing, AbsentSink, AbsentSource, outgoing_of
from mailpoller.core.component import OutgoingConfig, SinkConfig
from mailpoller.core.errors import ConfigError
from mailpoller.engine.alarm import Kind

log = structlog.get_logger(__name__)

LOOK_AGAIN = timedelta(minutes=1)


class Lacking:
    """Adds parts to a fleet, and replaces them. One that cannot be built, because an optional package or a file is
    missing, is stood in for, and takes its place without a restart as soon as it can be built.

    A mailbox whose place is taken is refused, a queue is down, and by an outgoing nothing is sent; each with an alarm
    that says why. What is replaced by something that cannot be built goes on as it was until then. Outgoings come
    first, then queues, then mailboxes.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._waiting: dict[str, Callable[[], Awaitable[object]]] = {}
        self.reasons: dict[str, str] = {}
        """Part -> what it lacks."""
        self._untold: dict[str, bool] = {}
        """Parts that lack something since the last look, and whether somebody else stands in their place."""
        self._woken = asyncio.Event()

    # --- joining ---------------------------------------------------------------------------------------------------
    def outgoing(self, name: str, block: OutgoingConfig) -> None:
        """One outgoing more, or one that the fleet has from the start, to look after."""
        if name not in self._fleet.outgoings:
            stand_in = outgoing_of(name, block, self._fleet.ports.runtime)
            self._fleet.add_outgoing(name, block, stand_in=stand_in)
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
            self._wait(f"mailbox {name}", str(error), partial(self._replaced, name, plan))

    # --- changing --------------------------------------------------------------------------------------------------
    async def replace_outgoing(self, name: str, block: OutgoingConfig) -> bool:
        """Another block for an outgoing; False if the former one goes on, because this one lacks something."""
        return await self._change(f"outgoing {name}", lambda: self._fleet.replace_outgoing(name, block))

    async def replace_queue(self, name: str, block: SinkConfig) -> bool:
        """Another block for a queue; False if the former one goes on, because this one lacks something."""
        return await self._change(f"queue {name}", lambda: self._fleet.replace_queue(name, block))

    async def replace_mailboxes(self, plans: Mapping[str, Callable[[], MailboxPlan]]) -> Collection[str]:
        """Other plans for mailboxes, side by side: the names of those that go on as they were, because they lack
        something."""
        for name in plans:
            self.forget(f"mailbox {name}")
        failed = await self._fleet.replace_mailboxes(plans)
        for name, error in failed.items():
            again = partial(self._replaced, name, plans[name])
            self._wait(f"mailbox {name}", str(error), again, in_place=False)
        return failed.keys()

    def forget(self, part: str) -> None:
        """Whatever it lacks: nobody waits for it any more."""
        for known in (self._waiting, self.reasons, self._untold):
            known.pop(part, None)

    async def _change(self, part: str, change: Callable[[], Awaitable[object]]) -> bool:
        self.forget(part)
        try:
            await change()
        except ConfigError as error:
            self._wait(part, str(error), change, in_place=False)
            return False
        return True

    async def _replaced(self, name: str, plan: Callable[[], MailboxPlan]) -> None:
        if failed := await self._fleet.replace_mailboxes({name: plan}):
            raise failed[name]

    def _wait(self, part: str, reason: str, come: Callable[[], Awaitable[object]], *, in_place: bool = True) -> None:
        self._waiting[part], self.reasons[part], self._untold[part] = come, reason, in_place
        log.error("part.lacking", part=part, reason=reason)
        self._woken.set()

    # --- while the service runs ------------------------------------------------------------------------------------
    async def run(self, stop: asyncio.Event) -> None:
        """Look again every minute until ``stop``, as long as something lacks something."""
        clock = self._fleet.ports.runtime.clock
        while not stop.is_set():
            self._woken.clear()
            await self._tell()
            pauses: list[Coroutine[Any, Any, object]] = [stop.wait(), self._woken.wait()]
            if self._waiting:
                pauses.append(clock.sleep(LOOK_AGAIN.total_seconds()))
            tasks = [asyncio.ensure_future(pause) for pause in pauses]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
            if not stop.is_set() and not self._woken.is_set():
                await self.look()

    async def _tell(self) -> None:
        alarm = self._fleet.ports.alarm
        while self._untold:
            part, in_place = self._untold.popitem()
            reason = self.reasons[part]
            kind, _, name = part.partition(" ")
            alarm.fault(name if kind == "mailbox" else part.replace(" ", ":", 1), "part.lacking", reason, "")
            if kind == "queue" and in_place:
                await alarm.raised(Kind.QUEUE_FAILING, name, reason, group=part)

    async def look(self) -> None:
        """Put into its place what can be built now."""
        for part, come in list(self._waiting.items()):
            if self._waiting.get(part) is not come:
                continue  # it was changed or removed meanwhile
            try:
                await come()
            except ConfigError as error:
                if self.reasons.get(part) != str(error) and self._waiting.get(part) is come:
                    self.reasons[part] = str(error)
                    log.error("part.lacking", part=part, reason=str(error))
                continue
            except KeyError:
                pass  # it was removed meanwhile
            if self._waiting.get(part) is come:
                self.forget(part)
