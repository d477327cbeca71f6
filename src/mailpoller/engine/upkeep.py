"""What a sink does and says although nothing is brought to it: its turn every minute, its doubts, what it is worth."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta

import structlog

from mailpoller.core.durability import Durability
from mailpoller.core.errors import MailpollerError, QueueVanished, machine_trouble
from mailpoller.core.ports import Clock, Consumed, Deep, Depth, DoubtKind, Durable, Sink, SinkDoubt, Unserving, Upkept
from mailpoller.core.tasks import within
from mailpoller.engine.availability import Availability, State
from mailpoller.engine.recognition import Recognition

log = structlog.get_logger(__name__)

UPKEEP_INTERVAL = timedelta(minutes=1)
UPKEEP_DEADLINE = timedelta(minutes=10)
"""For one turn of a sink's."""

Doubted = Callable[[DoubtKind, str | None], Awaitable[None]]
Concerned = Callable[[str, str | None], Awaitable[None]]


def say_crashed(queue: str, error: Exception) -> None:
    """Log what ended a queue's care, unless it is the machine's trouble."""
    if (trouble := machine_trouble(error)) is not None:
        log.debug("queue.unkept", queue=queue, reason=trouble)
    else:
        log.exception("queue.crashed", queue=queue, batch=0)


class Upkeep:
    """One sink's turns, and what it had to say at the last of them.

    ``doubted`` is told every minute, of each kind of doubt that the sink has, how it is in words, or None;
    ``concerned`` (kind, words or None) is told ``untaken`` every minute, and ``unserved`` when it changes.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        availability: Availability,
        clock: Clock,
        doubted: Doubted,
        concerned: Concerned,
        recognition: Recognition | None,
    ) -> None:
        self.concerns: dict[str, str] = {}
        """What an operator should know although it takes mail, by kind: ``sink``, ``untaken``, ``unserved``."""
        self.depth: Depth | None = None
        """What it held a minute ago at most; None if it cannot tell."""
        self._name = name
        self._sink = sink
        self._availability = availability
        self._clock = clock
        self._doubted = doubted
        self._concerned = concerned
        self._recognition = recognition
        self._unserved_said: str | None = None

    @property
    def durability(self) -> Durability | None:
        """What a receipt is worth in a power cut; None if the sink does not say, or nobody looked yet."""
        return self._sink.durability if isinstance(self._sink, Durable) else None

    @property
    def doubts(self) -> Collection[DoubtKind]:
        """Every kind of doubt that the sink may have."""
        return self._sink.doubts if isinstance(self._sink, Upkept) else ()

    async def weigh_receipts(self) -> None:
        """At the start: a server whose answers are worth too little is told of before there is mail for it."""
        if not isinstance(self._sink, Durable):
            return
        if self.durability is None:
            trouble = await self._availability.trouble()
            found = self.durability
            if trouble is not None and found is not None and found.doubt() and self._availability.state is State.UP:
                await self._availability.failed(trouble, None)
            return  # who asks a server logs what it said, whenever that is another thing
        if (found := self.durability) is not None:
            log.info("queue.durability", queue=self._name, finding=found.finding, setting=found.setting)
            if words := found.doubt():
                log.warning("queue.doubted", queue=self._name, reason=words)

    async def keep_up(self) -> None:
        """Give the sink its turn every minute, and pass on what it has to say. Never returns."""
        while True:
            await self._clock.sleep(UPKEEP_INTERVAL.total_seconds())
            if self._recognition is not None:
                self._recognition.doubt()
            await self._availability.recognise()
            if self._availability.vanished:
                continue
            try:
                await within(UPKEEP_DEADLINE.total_seconds(), self.turn())
            except QueueVanished as error:
                await self._availability.lost(error)
            except (TimeoutError, MailpollerError) as error:
                # A queue that is really down is found out by the next delivery.
                log.debug("queue.unkept", queue=self._name, reason=str(error))
            except Exception as error:
                say_crashed(self._name, error)

    async def turn(self) -> None:
        """One turn of the sink's."""
        if self._recognition is not None:
            await self._recognition.note()
        if isinstance(self._sink, Upkept):
            await self._doubt(await self._sink.upkeep())
        if isinstance(self._sink, Consumed):
            await self._concern("untaken", await self._sink.untaken())
        if isinstance(self._sink, Deep):
            self.depth = await self._sink.depth()
        await self.hear_of_unserved()

    async def hear_of_unserved(self) -> None:
        """Told when it changes. What an earlier process told stands until it is known better."""
        if not isinstance(self._sink, Unserving):
            return
        words = self._sink.unserved()
        if words is not None and words != self._unserved_said:
            self._unserved_said = words
            await self._concern("unserved", words or None)

    async def _doubt(self, doubts: Collection[SinkDoubt]) -> None:
        """Tell what the sink says, and that what it does not say is over. A kind that it never spoke of before is a
        bug of the sink: nobody would know how to end it."""
        said = {doubt.kind: doubt.detail for doubt in doubts}
        if unknown := said.keys() - set(self.doubts):
            names = ", ".join(sorted(kind.name for kind in unknown))
            raise RuntimeError(f"the sink has doubts that are not among its kinds: {names}")
        self._show("sink", "; ".join(said.values()) or None)
        for kind in self.doubts:
            await self._doubted(kind, said.get(kind))

    async def _concern(self, kind: str, words: str | None) -> None:
        self._show(kind, words)
        await self._concerned(kind, words)

    def _show(self, kind: str, words: str | None) -> None:
        if words is None:
            self.concerns.pop(kind, None)
        else:
            self.concerns[kind] = words
