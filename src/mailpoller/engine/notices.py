"""Notices: who is to be told of quarantined mail is told, however long his relay or queue is away.

The quarantine holds the mail and owes the notice; both became durable together. A notice is a delivery under the id
that the message has in the quarantine, so that a queue knows a repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog

from mailpoller.core.delivery import QUARANTINE, Delivery, Receipt
from mailpoller.core.errors import MailpollerError, MessageGone, TransientError, machine_trouble
from mailpoller.core.ports import Clock, QuarantineStore
from mailpoller.core.quarantined import Quarantined
from mailpoller.core.spool import Octets
from mailpoller.core.standing import USUAL_STANDING, Standing
from mailpoller.core.tasks import within
from mailpoller.engine.deferral import MACHINE_AGAIN, put_off
from mailpoller.engine.dispatcher import REFUSED_LIMIT
from mailpoller.engine.holding import body_of, delivery_of, raw_of, verdict_of
from mailpoller.engine.queues import Queue
from mailpoller.mail.parser import parse, unparsed
from mailpoller.workers.pool import NoWorker, Workers

log = structlog.get_logger(__name__)

LOOK_AGAIN = timedelta(minutes=1)
QUEUE_AGAIN = timedelta(seconds=10)
"""After so long what met a queue's own trouble is looked at again; whether the queue is asked then is its back-off's
matter."""
LAST_WORDS = timedelta(seconds=4)
"""At the end: what is not told within this is told by the next process."""
AT_ONCE = 50
OCTETS_AT_ONCE = 8_000_000
"""Of what is brought to one queue in one call; a larger message travels alone."""


class Unknown(Exception):
    """Who is to be told cannot be said yet."""


Places = Callable[[str], Queue | None]
"""mailbox -> the queue that its notices go to; None if nobody is to be told. Raises :class:`Unknown`."""
Refused = Callable[[Quarantined, str], None]
Taken = Callable[[str], None]


class Notices:
    """Brings owed notices to where they belong. ``refused`` is told of each that never will be taken, ``taken`` of
    each mailbox of which one was taken. ``standing``: what its configuration says of a mailbox. ``workers``: who reads
    bodies, which may do harm; None: we do."""

    def __init__(
        self,
        store: QuarantineStore,
        places: Places,
        clock: Clock,
        *,
        refused: Refused,
        taken: Taken,
        standing: Callable[[str], Standing] = lambda mailbox: USUAL_STANDING,
        workers: Workers | None = None,
    ) -> None:
        self._store = store
        self._places = places
        self._clock = clock
        self._refused = refused
        self._taken = taken
        self._standing = standing
        self._workers = workers

    async def run(self, ended: asyncio.Event) -> None:
        """Until ``ended``; then what can be told at once is."""
        while not ended.is_set():
            self._store.news.clear()
            wait = LOOK_AGAIN
            try:
                wait = QUEUE_AGAIN if await self.bring() else LOOK_AGAIN
            except TransientError as error:
                log.debug("notice.waiting", reason=str(error))
            await _first(self._clock.sleep(wait.total_seconds()), self._store.news.wait(), ended.wait())
        with suppress(TimeoutError, TransientError):
            await within(LAST_WORDS.total_seconds(), self.bring())

    async def bring(self) -> bool:
        """Bring all that is due to whoever takes it now; True if some have to wait for their queue.

        Raises :class:`TransientError` if the quarantine cannot be asked."""
        waiting: set[str] = set()
        """Mailboxes."""
        while due := await self._store.owed(self._clock.now(), but=waiting, limit=AT_ONCE):
            by_place: dict[str, tuple[Queue, list[Quarantined]]] = {}
            nobody: dict[str, str] = {}
            for held in due:
                try:
                    place = self._places(held.mailbox)
                except Unknown:
                    waiting.add(held.mailbox)
                    continue
                if place is None:
                    nobody[held.delivery_id] = ""
                elif not place.takes_mail:
                    waiting.add(held.mailbox)
                else:
                    by_place.setdefault(place.name, (place, []))[1].append(held)
            if nobody:
                await self._store.notified(nobody)
            for place, several in by_place.values():
                for batch in _batches(several):
                    if not await self._bring(place, batch):
                        waiting.update(held.mailbox for held in several)
                        break
        return bool(waiting)

    async def _bring(self, place: Queue, batch: Sequence[Quarantined]) -> bool:
        """False if the queue takes nothing now."""
        opened: list[tuple[Quarantined, Octets]] = []
        deliveries: list[Delivery] = []
        try:
            for held in batch:
                octets = await self._open(held)
                opened += [] if octets is None else [(held, octets)]
            ready: list[Quarantined] = []
            for held, octets in opened:
                try:
                    deliveries.append(await self._made(place, held, octets))
                    ready.append(held)
                except NoWorker as trouble:
                    until = self._clock.now() + MACHINE_AGAIN
                    await self._store.put_off([held.delivery_id], until, str(trouble), counted=False)
                except Exception as error:
                    if machine_trouble(error) is not None:
                        raise
                    until = put_off(self._clock.now(), held.notice_tries)
                    await self._store.put_off([held.delivery_id], until, type(error).__name__, counted=True)
            return not deliveries or await self._deliver(place, ready, deliveries)
        finally:
            for _, octets in opened:
                octets.close()

    async def _open(self, held: Quarantined) -> Octets | None:
        """What is damaged is told to nobody, and stays owed: an operator may put it back."""
        try:
            return await self._store.octets(held)
        except MessageGone:
            return None
        except TransientError:
            raise
        except MailpollerError as error:
            until = put_off(self._clock.now(), held.notice_tries)
            await self._store.put_off([held.delivery_id], until, str(error), counted=True)
            return None

    async def _made(self, place: Queue, held: Quarantined, octets: Octets) -> Delivery:
        """The notice of one message. What upsets our code is told of without what it says."""
        try:
            return await self._delivery(place, held, octets)
        except MailpollerError:
            raise
        except Exception as error:
            if machine_trouble(error) is not None:
                raise
            log.exception("notice.crashed", mid=held.mid, mailbox=held.mailbox, queue=place.name)
            return await self._delivery(place, replace(held, parsed=False), octets)

    async def _delivery(self, place: Queue, held: Quarantined, octets: Octets) -> Delivery:
        raw = raw_of(held, octets)
        message = parse(raw) if held.parsed else unparsed(raw)
        if place.payload == "parsed" and held.parsed:
            message.take_body(await body_of(raw, self._workers))
        return delivery_of(
            message,
            verdict_of(held),
            place,
            name=QUARANTINE,
            held=held,
            standing=self._standing(held.mailbox),
            delivery_id=held.delivery_id,
        )

    async def _deliver(self, place: Queue, batch: Sequence[Quarantined], deliveries: Sequence[Delivery]) -> bool:
        now = self._clock.now()
        try:
            answers = await place.deliver(deliveries)
        except TransientError as error:
            log.debug("notice.waiting", queue=place.name, reason=str(error))
            return False
        over: dict[str, str] = {}
        for held, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Receipt):
                over[held.delivery_id] = ""
                log.info("notice.taken", mid=held.mid, mailbox=held.mailbox, queue=place.name)
                self._taken(held.mailbox)
                continue
            counted = answer.blame == "message"
            if answer.permanent or (counted and held.notice_tries >= REFUSED_LIMIT):
                over[held.delivery_id] = answer.reason
                log.warning(
                    "notice.refused", mid=held.mid, mailbox=held.mailbox, queue=place.name, reason=answer.reason
                )
                self._refused(held, answer.reason)
            else:
                until = put_off(now, held.notice_tries) if counted else now + QUEUE_AGAIN
                await self._store.put_off([held.delivery_id], until, answer.reason, counted=counted)
        if over:
            await self._store.notified(over)
        return True


def _batches(several: Sequence[Quarantined]) -> list[list[Quarantined]]:
    batches: list[list[Quarantined]] = []
    size = 0
    for held in several:
        if not batches or size + held.size > OCTETS_AT_ONCE:
            batches.append([])
            size = 0
        batches[-1].append(held)
        size += held.size
    return batches


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
