"""The queues of a fleet: made, begun, put in one another's place, and ended when what they hold has been answered."""

from __future__ import annotations

from collections.abc import Callable, Collection

from mailpoller.assembly import closing
from mailpoller.assembly.closing import closed
from mailpoller.assembly.parts import NOTICES, Ports, queue_parts
from mailpoller.assembly.shares import Shares
from mailpoller.core.component import SinkConfig
from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.ports import Sink
from mailpoller.engine.alarm import Kind
from mailpoller.engine.alarm_kinds import AnyKind
from mailpoller.engine.queues import Queue
from mailpoller.engine.supervisor import Supervisor


class QueueSet:
    """``configured``: those of the configuration. ``own``: the quarantine, and those that only its notices go to.

    ``blocks`` is what each of them was made from. ``ready`` is called when one takes mail again.
    """

    def __init__(self, ports: Ports, shares: Shares, ready: Callable[[], None]) -> None:
        self.configured: dict[str, Queue] = {}
        self.own: dict[str, Queue] = {}
        self.blocks: dict[str, SinkConfig] = {}
        self.leaving: list[Queue] = []
        self.supervisor: Supervisor | None = None
        """Who looks after them, once there is somebody."""
        self.grace = closing.CLOSING
        """How long one that leaves may take to end what it has in hand."""
        self._ports = ports
        self._shares = shares
        self._ready = ready

    def every(self) -> list[Queue]:
        """All that are in use."""
        return [*self.configured.values(), *self.own.values()]

    def make(self, name: str, block: SinkConfig, sink: Sink | None = None) -> Queue:
        """A queue that has not begun. Raises :class:`~mailpoller.core.errors.ConfigError` if it cannot be built."""
        return queue_parts(name, block, self._ready, self._ports, self._shares, sink)

    def join(self, where: dict[str, Queue], queue: Queue, block: SinkConfig) -> Queue:
        """It begins, in ``configured`` or ``own``."""
        where[queue.name], self.blocks[queue.name] = queue, block
        if self.supervisor is not None:
            self.supervisor.tend(queue)
        return queue

    async def swap(self, queue: Queue, block: SinkConfig) -> None:
        """Put a queue in the place of the one that has its name, and let it begin once that has ended."""
        where = self.configured if queue.name in self.configured else self.own
        former = where[queue.name]
        queue.hold()
        where[queue.name], self.blocks[queue.name] = queue, block
        try:
            await self.see_off(former)
        finally:
            queue.open()
            if self.supervisor is not None:
                self.supervisor.tend(queue)
            self._ready()

    async def see_off(self, queue: Queue) -> None:
        """End a queue that nobody finds any more."""
        self.leaving.append(queue)
        if self.supervisor is not None:
            await self.supervisor.untend(queue)
        await queue.retire(self.grace)
        await closed(f"queue {queue.name}", queue.close)
        self.leaving.remove(queue)
        over: list[AnyKind] = [*queue.doubts, Kind.QUEUE_UNTAKEN, Kind.RECIPIENT_REFUSED]
        for kind in over:
            await self._ports.alarm.ended(kind, queue.name)
        if queue.name not in self.blocks:
            for edge in (Kind.QUEUE_FAILING, Kind.QUEUE_VANISHED):
                await self._ports.alarm.ended(edge, queue.name)

    def for_notices(self, mailbox: str, block: SinkConfig) -> str:
        """The name of the queue that this block describes; as :meth:`~mailpoller.assembly.fleet.Fleet.notices`."""
        # Blocks are compared by equality alone. A third party's need not be hashable, and a ``repr`` masks the
        # secrets that two of them may differ by.
        for name in self.own:
            if name != QUARANTINE and self.blocks[name] == block:
                return name
        name, number = NOTICES, 1
        while name in self.own:
            name = f"{NOTICES} of {mailbox}" + (f" ({number})" if number > 1 else "")
            number += 1
        self.join(self.own, self.make(name, block), block)
        return name

    async def sweep(self, used: Collection[str | None]) -> None:
        """End the queues for notices that are not ``used`` any more."""
        for name in [name for name in self.own if name not in used]:
            queue = self.own.pop(name)
            del self.blocks[name]
            await self.see_off(queue)
