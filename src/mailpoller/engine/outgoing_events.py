"""Tells intakes what became of the mail that they handed in: an event for each change, to the queue that they name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta

import structlog

from mailpoller.core.delivery import Delivery, Receipt
from mailpoller.core.errors import LedgerUnavailable, TransientError
from mailpoller.core.identity import mint_delivery_id
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.ports import Outbox, OutboxEvent, OutboxRefusal
from mailpoller.core.spool import Octets
from mailpoller.engine.alarm import Alarm
from mailpoller.engine.queues import Queue
from mailpoller.engine.senders import Senders
from mailpoller.mail.outgoing_event import outgoing_event, refusal_event

log = structlog.get_logger(__name__)

LOOK_AGAIN = timedelta(seconds=5)
AT_ONCE = 100


class OutgoingEvents:
    """A task that brings what is owed, oldest first. What a queue does not take now waits, and no other intake's does.

    Owed from the commit of what it tells on, and brought under the same delivery id until the queue holds it. What no
    intake wants to know (a bounce of an operator's mail, say) is logged and stands in ``errors`` alone. ``senders`` may
    be replaced at any time.
    """

    def __init__(self, ledger: Outbox, queue: Callable[[str], Queue | None], senders: Senders, alarm: Alarm) -> None:
        self.senders = senders
        self._ledger = ledger
        self._queue = queue
        self._alarm = alarm
        self._noted: set[int] = set()
        """Bounces of this process that stand in the log already."""

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``, and once more then."""
        while True:
            ending = stop.is_set()
            try:
                await self.step()
            except LedgerUnavailable as error:
                log.warning("outbox.unreadable", reason=str(error))
            except Exception:
                log.exception("outbox.untold")
            if ending:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN.total_seconds()):
                    await stop.wait()

    async def step(self) -> None:
        """Bring all that is owed to whoever takes it now. Raises :class:`LedgerUnavailable`."""
        waiting: set[str] = set()
        while owed := await self._ledger.outbox_events(but=waiting, limit=AT_ONCE):
            by_intake: dict[str, list[OutboxEvent]] = {}
            for one in owed:
                self._note(one)
                by_intake.setdefault(one.mail.intake, []).append(one)
            for intake, several in by_intake.items():
                known = self.senders.intakes.get(intake)
                told = await self._bring(known.events, several) if known and known.events else several
                if told:
                    await self._ledger.outbox_told([one.number for one in told])
                    self._noted.difference_update(one.number for one in told)
                if len(told) < len(several):
                    waiting.add(intake)
        await self._tell_refusals(waiting)

    async def _tell_refusals(self, waiting: set[str]) -> None:
        while owed := await self._ledger.outbox_refusals(but=waiting, limit=AT_ONCE):
            by_intake: dict[str, list[OutboxRefusal]] = {}
            for one in owed:
                by_intake.setdefault(one.intake, []).append(one)
            for intake, several in by_intake.items():
                known = self.senders.intakes.get(intake)
                queue = known.events if known else ""
                brought = [(one, _refusal(one, queue)) for one in several]
                told = several
                if queue:
                    done = await self._delivered(queue, [delivery for _, delivery in brought])
                    told = [one for one, delivery in brought if delivery.delivery_id in done]
                if told:
                    await self._ledger.outbox_refusals_told([one.number for one in told])
                if len(told) < len(several):
                    waiting.add(intake)

    async def _bring(self, name: str, events: Sequence[OutboxEvent]) -> Sequence[OutboxEvent]:
        """Those that are done with."""
        brought = [(one, _delivery(one, name)) for one in events]
        done = await self._delivered(name, [delivery for _, delivery in brought])
        return [one for one, delivery in brought if delivery.delivery_id in done]

    async def _delivered(self, name: str, deliveries: Sequence[Delivery]) -> Collection[str]:
        """The ids of those that are done with: the queue holds them, or never will."""
        queue = self._queue(name)
        if queue is None or not queue.takes_mail:
            return ()
        try:
            answers = await queue.deliver(deliveries)
        except TransientError as error:
            log.debug("outbox.untold_yet", queue=name, reason=str(error))
            return ()
        done = set()
        for one, answer in zip(deliveries, answers, strict=True):
            if isinstance(answer, Receipt):
                done.add(one.delivery_id)
            elif answer.permanent:
                log.warning("outbox.event_refused", id=one.mid, queue=name, reason=answer.reason)
                self._alarm.fault(name, "outbox.event_refused", f"{one.mid[:12]}: {answer.reason}")
                done.add(one.delivery_id)
        return done

    def _note(self, one: OutboxEvent) -> None:
        """A bounce is told to people, too: of the outgoing, and of the mailbox that it answered for."""
        if one.kind != "bounced" or one.number in self._noted:
            return
        self._noted.add(one.number)
        mail, words = one.mail, next(iter(one.said.values()), "")
        log.warning(
            "outbox.bounced", id=mail.id, identity=mail.identity, mailbox=mail.mailbox, recipients=len(one.said),
            answer=words,
        )  # fmt: skip
        for subject in dict.fromkeys(filter(None, (mail.identity, mail.mailbox))):
            self._alarm.fault(subject, "outbox.bounced", f"sent, {mail.id[:12]}: {words}", mail.mid)


def _delivery(one: OutboxEvent, queue: str) -> Delivery:
    """As any delivery; of a message there is none, so its octets are none."""
    # Not by the number alone: a ledger that was put back gives it once more, and a queue that knew it would take what
    # is told then for a repeat.
    own = f"{one.kind} {one.attempt} {one.at.isoformat()}".encode()
    delivery_id = mint_delivery_id(one.mail.id, queue, one.number, own)
    ref = MessageRef(Folder(one.mail.mailbox or one.mail.identity, "outbox", "1"), one.mail.id)
    raw = RawMessage(Claim(ref, one.mail.id), Octets.of(b""))
    event = outgoing_event(one, queue=queue, delivery_id=delivery_id)
    return Delivery(delivery_id, one.mail.id, queue, event, raw)


def _refusal(one: OutboxRefusal, queue: str) -> Delivery:
    """As above, of an entry of which there is no mail."""
    delivery_id = mint_delivery_id(one.id, queue, 0, b"refused")
    ref = MessageRef(Folder(one.intake, "intake", "1"), one.id)
    event = refusal_event(one, queue=queue, delivery_id=delivery_id)
    return Delivery(delivery_id, one.id, queue, event, RawMessage(Claim(ref, one.id), Octets.of(b"")))
