"""A configured queue, as the rest of the engine sees it: its sink, its state, and who may bring it mail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta

import structlog

from mailpoller.core.delivery import Delivery, Payload, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import MailpollerError, TransientError
from mailpoller.core.ports import BlobStore, Clock, Depth, DoubtKind, QueueRecord, Sink
from mailpoller.core.tasks import TaskGroup
from mailpoller.engine.availability import Availability, State
from mailpoller.engine.handover import Handover
from mailpoller.engine.recognition import Recognition
from mailpoller.engine.turns import Turns
from mailpoller.engine.upkeep import UPKEEP_INTERVAL, Upkeep, say_crashed

log = structlog.get_logger(__name__)

CONCURRENT_CALLS = 8
"""Batches that one sink is handed at once, from different mailboxes."""

GONE = "the queue is no longer configured, or no longer so"

Listener = Callable[["Queue", bool, str], Awaitable[None]]
Concern = Callable[["Queue", str | None], Awaitable[None]]
Doubts = Callable[["Queue", DoubtKind, str | None], Awaitable[None]]


async def _ignore(queue: Queue, words: str | None) -> None:
    return None


async def _doubt_nothing(queue: Queue, kind: DoubtKind, words: str | None) -> None:
    return None


def _nothing() -> None:
    return None


class Queue:
    """One named queue.

    ``listener`` is told of both edges (queue, is it up, why). ``on_ready`` is called whenever the queue takes mail
    again, for those who wait with mail for it. ``doubts`` is told every minute, of each kind of doubt that the sink
    has, how it is in words, or None; ``untaken`` since when nobody takes from it, or None; ``unserved``, after a
    delivery too, whenever it is others that the sink does not serve, or nobody any more. ``recognition`` knows whether
    it is the queue that it was; without one it is never in doubt.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        payload: Payload,
        octets_wanted: bool,
        retry_interval: timedelta,
        clock: Clock,
        listener: Listener | None = None,
        on_ready: Callable[[], None] = _nothing,
        doubts: Doubts = _doubt_nothing,
        untaken: Concern = _ignore,
        unserved: Concern = _ignore,
        recognition: Recognition | None = None,
        calls: Turns | None = None,
        formerly: str | None = None,
        paused: Callable[[], str] = str,
        blobs: BlobStore | None = None,
        blobs_above: int = 0,
    ) -> None:
        self.name = name
        self.formerly = formerly
        """The name that it had before, if it was another."""
        self.sink = sink
        self.payload = payload
        self.octets_wanted = octets_wanted
        self.blobs = blobs
        """Where octets lie of messages that are larger than ``blobs_above``; None: with the event, whatever their
        size."""
        self.blobs_above = blobs_above
        self.paused = paused
        """Why an operator wants nothing to be brought, in words, or nothing."""
        self.recognition = recognition
        self._clock = clock
        self._listener = listener
        self._on_ready = on_ready
        self._doubts = doubts
        self._concerned = {"untaken": untaken, "unserved": unserved}
        self.availability = Availability(
            name,
            sink,
            retry_interval=retry_interval,
            clock=clock,
            told=self._tell,
            ready=self.resumed,
            recognition=recognition,
            blobs=blobs,
        )
        self.upkeep = Upkeep(
            name,
            sink,
            availability=self.availability,
            clock=clock,
            doubted=self._doubt,
            concerned=self._concern,
            recognition=recognition,
        )
        self.handover = Handover(
            name,
            sink,
            availability=self.availability,
            upkeep=self.upkeep,
            recognition=recognition,
            calls=calls or Turns(CONCURRENT_CALLS),
            paused=paused,
            blobs=blobs,
        )
        self._opened = asyncio.Event()
        self._opened.set()
        self._retired = False
        self._under_way = 0
        self._empty = asyncio.Event()

    @property
    def id_name(self) -> str:
        """What delivery ids are made of. A queue that was renamed after a kill may hold what nobody has noted yet, and
        knows it again by no other id."""
        return self.formerly or self.name

    @property
    def takes_mail(self) -> bool:
        """False while there is no point in bringing anything."""
        return self.handover.takes_mail

    @property
    def state(self) -> State:
        return self.availability.state

    @property
    def reason(self) -> str:
        """Why it is down; empty while it is not."""
        return self.availability.reason

    @property
    def vanished(self) -> bool:
        """True while it is down because what lies in its place is not the queue that was delivered to."""
        return self.availability.vanished

    @property
    def failures(self) -> int:
        """How often it went down."""
        return self.availability.failures

    @property
    def receipts(self) -> int:
        """Since the start."""
        return self.handover.receipts

    @property
    def refusals(self) -> Counter[str]:
        """``permanent`` and ``passing`` ones, since the start."""
        return self.handover.refusals

    @property
    def concerns(self) -> dict[str, str]:
        """What an operator should know although it takes mail, by kind: ``sink``, ``untaken``, ``unserved``."""
        return self.upkeep.concerns

    @property
    def depth(self) -> Depth | None:
        """What it held a minute ago at most; None if it cannot tell."""
        return self.upkeep.depth

    @property
    def durability(self) -> Durability | None:
        """What a receipt is worth in a power cut; None if the sink does not say, or nobody looked yet."""
        return self.upkeep.durability

    @property
    def doubts(self) -> Collection[DoubtKind]:
        """Every kind of doubt that the sink may have."""
        return self.upkeep.doubts

    async def deliver(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        """Bring a batch: same order and length. Raises :class:`TransientError` when the queue is down or goes down by
        it, and nothing of the batch is known to be held.

        A failure that is no :class:`MailpollerError` (a bug, or one message that the sink cannot stomach) is tried
        again one by one, so that one message never defers the others; what still fails alone is refused, not for good.
        So is a message at which a call failed, once others were taken since and it fails again, alone, while the
        queue passes its check. Ten different messages that are refused in a row are the queue's trouble, and count
        against none of them; what goes to a quarantine is not counted, as there is a next place for it.
        """
        if self._retired:
            raise TransientError(GONE)
        if reason := self.paused():
            raise TransientError(reason)
        self._under_way += 1
        try:
            if not self._opened.is_set():
                await self._opened.wait()
            return await self.handover.bring(batch)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._empty.set()

    def resumed(self) -> None:
        """It is paused no more, or up again: whoever waits with mail may bring it."""
        self._on_ready()

    def hold(self) -> None:
        """Let whoever brings something wait until :meth:`open`: another queue of this name has to end first."""
        self._opened.clear()

    def open(self) -> None:
        """Take what is brought."""
        self._opened.set()

    async def retire(self, grace: timedelta) -> bool:
        """Take nothing more, and wait until the sink has answered for all that it was handed: False if that takes too
        long.

        Nobody is told any more how it fares. The sink may be closed afterwards.
        """
        self._retired = True
        self._listener, self._on_ready = None, _nothing
        self._doubts, self._concerned = _doubt_nothing, {}
        self._empty.clear()
        if self._under_way:
            try:
                async with asyncio.timeout(grace.total_seconds()):
                    await self._empty.wait()
            except TimeoutError:
                log.warning("queue.abandoned", queue=self.name, batches=self._under_way)
                return False
        return True

    async def tend(self) -> None:
        """Look after the queue for as long as the service runs."""
        async with TaskGroup() as group:
            group.create_task(self._whatever_fails(self.availability.retry), name=f"retry {self.name}")
            group.create_task(self._whatever_fails(self._look_once), name=f"look at {self.name}")
            group.create_task(self._whatever_fails(self.upkeep.keep_up), name=f"upkeep {self.name}")

    async def trouble(self) -> str | None:
        """Why a delivery could not succeed now, as far as can be told without one; None if it could."""
        return await self.availability.trouble()

    async def adopt(self) -> QueueRecord | None:
        """From now on what lies in the queue's place is the queue, or what is begun there: what was known of the one
        before.

        Raises :class:`MailpollerError` if it did not vanish.
        """
        if self.recognition is None:
            raise MailpollerError(f"the queue {self.name} bears no mark: there is nothing to adopt")
        record = await self.recognition.adopt()
        log.info("queue.adopted", queue=self.name, receipts=record.receipts if record else 0)
        await self.availability.adopted()
        return record

    async def close(self) -> None:
        """Have noted how far the queue has got, and free what the sink holds."""
        if self.recognition is not None:
            await self.recognition.note()
        await self.sink.close()

    async def _whatever_fails(self, work: Callable[[], Awaitable[None]]) -> None:
        """One queue's bug ends neither the rest of its care nor the service."""
        while True:
            try:
                return await work()
            except Exception as error:
                say_crashed(self.name, error)
                await self._clock.sleep(UPKEEP_INTERVAL.total_seconds())

    async def _look_once(self) -> None:
        """Is it the queue that it was, and what are its receipts worth?"""
        await self.availability.recognise()
        await self.upkeep.weigh_receipts()
        await self.availability.prove_in_time()

    async def _tell(self, up: bool, reason: str) -> None:
        if self._listener is not None:
            await self._listener(self, up, reason)

    async def _doubt(self, kind: DoubtKind, words: str | None) -> None:
        await self._doubts(self, kind, words)

    async def _concern(self, kind: str, words: str | None) -> None:
        await self._concerned.get(kind, _ignore)(self, words)
