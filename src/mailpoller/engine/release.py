"""Quarantined mail that goes on: judged once more by today's rules, or released as an operator wants it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any
from zlib import crc32

import structlog

from mailpoller.core.attributes import Attributes
from mailpoller.core.delivery import QUARANTINE, Delivery, Receipt
from mailpoller.core.errors import LedgerUnavailable, MailpollerError, MessageGone, machine_trouble
from mailpoller.core.identity import mint_delivery_id, redeliveries
from mailpoller.core.message import Message, RawMessage
from mailpoller.core.ports import QuarantineStore, Stories, Story
from mailpoller.core.quarantined import Quarantined
from mailpoller.core.record import record
from mailpoller.core.standing import Standing
from mailpoller.core.verdict import Deliver, Discard, Quarantine
from mailpoller.engine.control import Handler, who_of
from mailpoller.engine.custody import Custody
from mailpoller.engine.holding import body_of, delivery_of, raw_of
from mailpoller.engine.judge import Judge
from mailpoller.engine.judged import Judged
from mailpoller.engine.queues import Queue
from mailpoller.engine.retrieval import Retrieval, target_of
from mailpoller.mail.parser import parse, unparsed
from mailpoller.workers.pool import Unread, Workers

log = structlog.get_logger(__name__)

_NOT_QUEUES = (QUARANTINE, "last-resort")


@record
class Way:
    """What a mailbox's mail goes through. ``default_queue`` and ``topic``: where it goes, and as what, if no rule says
    so."""

    judge: Judge
    default_queue: str | None
    topic: str
    standing: Standing
    retrieval: Retrieval


Outcome = tuple[str, str]
_DELIVERED_AND_HELD = "delivered-and-held"
"""Its queues have it without its attachments, for which it stays."""
"""``delivered``, ``discarded`` or ``held``, and the queues, or why."""


class Releases:
    """Carries out ``release``, ``retry`` and ``redeliver`` of what is held.

    ``ways``: by mailbox, None if it is not polled here. ``queues`` are those that are configured. The delivery id is
    the one that the message would have had at its first try, where that queue never had it. A message leaves the
    quarantine when the queues have given their receipts, and not before; its mailbox's copy is nobody's concern.
    """

    def __init__(
        self,
        custody: Custody,
        store: QuarantineStore,
        stories: Stories,
        ways: Callable[[str], Way | None],
        queues: Mapping[str, Queue],
        workers: Workers | None,
    ) -> None:
        self._custody = custody
        self._store = store
        self._stories = stories
        self._ways = ways
        self._queues = queues
        self._workers = workers
        self._in_hand: set[str] = set()
        self._unnoted: dict[str, Mapping[str, str]] = {}
        """Delivery id -> receipts of what is being released."""

    def handlers(self) -> dict[str, Handler]:
        """Verb -> what carries it out."""
        return {"quarantine-release": self.release, "quarantine-retry": self.retry}

    async def release(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Bring messages to ``queue``, or else to their mailboxes' default queues, unjudged."""
        by, queue = who_of(request), request.get("queue")

        async def one(held: Quarantined, raw: RawMessage) -> Outcome:
            return await self._release(held, raw, None if queue is None else str(queue), by)

        return await self._each(request, "released", one)

    async def retry(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Judge messages by today's rules, and do with them what these say."""
        return await self._each(request, "retried", self._retry)

    async def redeliver(self, mid: str, by: str) -> tuple[str, str, str] | None:
        """As :meth:`retry`, under new delivery ids, and where the message was found: in quarantine, or in the folder
        that it was moved to. None if it is in neither. Raises :class:`MailpollerError` if that folder cannot be read.
        """
        try:
            held = await self._custody.one(mid)
        except MessageGone:
            return await self._moved(mid, by)

        async def anew(held: Quarantined, raw: RawMessage) -> Outcome:
            claim = replace(raw.claim, generation=_after(held, "redeliver"))
            return await self._retry(held, replace(raw, claim=claim), anew=True)

        outcome, detail = await self._one(held, by, "redelivered", anew)
        if outcome == _DELIVERED_AND_HELD:
            outcome = "delivered"  # which is what was asked; its attachments stay where they were
        return outcome, detail, "held in quarantine"

    async def _moved(self, mid: str, by: str) -> tuple[str, str, str] | None:
        """Of a message that was moved on the server."""
        story = next(iter(await self._stories.trace(mid, limit=1)), None)
        folder = target_of(story) if story is not None and story.state == "settled" else ""
        way = self._ways(story.mailbox) if story is not None and folder else None
        if story is None or way is None:
            return None
        if mid in self._in_hand:
            return "held", "somebody else has it in hand just now", f"moved to {folder}"
        self._in_hand.add(mid)
        try:
            raw = await way.retrieval.fetch(story, folder)
            if raw is None:
                return None
            try:
                outcome, detail = await self._once_more(way.judge, raw, story)
            finally:
                raw.octets.close()
        finally:
            self._in_hand.discard(mid)
        log.info("message.retrieved", mid=mid, mailbox=story.mailbox, folder=folder, outcome=outcome, by=by)
        return outcome, detail, f"found in {folder}"

    async def _once_more(self, judge: Judge, raw: RawMessage, story: Story) -> Outcome:
        judged = await judge.judge_held(raw, story.repeat_of)
        if not isinstance(judged, Judged):
            return "held", judged.reason
        if not isinstance(judged.verdict, Deliver):
            return "held", f"today's rules do not deliver it: {judged.verdict.reason}"
        receipts: dict[str, str] = {}
        for name, delivery in judged.deliveries.items():
            receipts |= await self._deliver(name, delivery)
        with suppress(LedgerUnavailable):
            await self._stories.brought(story.mid, receipts)
        return "delivered", ", ".join(receipts)

    async def _each(self, request: Mapping[str, Any], what: str, work: Any) -> Mapping[str, Any]:
        results: list[dict[str, str]] = []
        for name in [str(one) for one in request["ids"]]:
            try:
                held = await self._custody.one(name)
            except MessageGone as gone:
                results.append({"id": name, "outcome": "gone", "detail": str(gone)})
                continue
            outcome, detail = await self._one(held, who_of(request), what, work)
            if outcome == _DELIVERED_AND_HELD:
                outcome = "held"  # which is what was asked: whether it left the quarantine
            results.append({"id": held.delivery_id, "mid": held.mid, "outcome": outcome, "detail": detail})
        return {"results": results}

    async def _one(self, held: Quarantined, by: str, what: str, work: Any) -> Outcome:
        """What came of one. Its trouble is its own."""
        if held.delivery_id in self._in_hand:
            return "held", "somebody else has it in hand just now"
        self._in_hand.add(held.delivery_id)
        try:
            octets = await self._store.octets(held)
            try:
                outcome, detail = await work(held, raw_of(held, octets))
            finally:
                octets.close()
            if outcome not in ("held", _DELIVERED_AND_HELD):
                await self._store.remove([held.delivery_id])
                # Not before: a queue that is known to have it gets it under another id if it is released again.
                if receipts := self._unnoted.get(held.delivery_id):
                    await self._note(held, receipts)
            told = "held" if outcome == _DELIVERED_AND_HELD else outcome
            await self._custody.note(what, held, by, f"{told}: {detail}")
            return outcome, detail
        except MessageGone as gone:
            return "gone", str(gone)
        except MailpollerError as error:
            return "held", str(error)
        except Exception as error:
            if (trouble := machine_trouble(error)) is not None:
                return "held", trouble
            log.exception("control.failed", verb=f"quarantine: {what} {held.delivery_id}")
            return "held", "it upset our code; the daemon's log says how"
        finally:
            self._in_hand.discard(held.delivery_id)
            self._unnoted.pop(held.delivery_id, None)

    # --- judged --------------------------------------------------------------------------------------------------
    async def _retry(self, held: Quarantined, raw: RawMessage, *, anew: bool = False) -> Outcome:
        if (way := self._ways(held.mailbox)) is None:
            raise MailpollerError(_nobodys(held))
        if held.doubt:
            raise MailpollerError("its octets are in doubt: redeliver asks the server once more, release takes them")
        had = {} if anew else await self._had(held)
        judged = await way.judge.judge_held(replace(raw, claim=replace(raw.claim, receipts=had)), held.repeat_of)
        if not isinstance(judged, Judged):
            return "held", judged.reason
        verdict = judged.verdict
        if isinstance(verdict, Quarantine):
            return "held", f"today's rules say so again: {verdict.reason}"
        if isinstance(verdict, Discard):
            return "discarded", f"today's rules say so: {verdict.reason}"
        route = [name for name in judged.route if name != QUARANTINE]
        for name in route:
            if name in judged.deliveries:
                await self._note(held, await self._deliver(name, judged.deliveries[name]))
        if isinstance(verdict, Deliver) and verdict.held:
            return _DELIVERED_AND_HELD, f"{', '.join(route)} has it, and {verdict.held}"
        return "delivered", ", ".join(route)

    # --- released ------------------------------------------------------------------------------------------------
    async def _release(self, held: Quarantined, raw: RawMessage, queue: str | None, by: str) -> Outcome:
        way = self._ways(held.mailbox)
        name = queue or (way.default_queue if way is not None else None)
        if name is None:
            why = _nobodys(held) if way is None else "its mailbox has no default_queue"
            raise MailpollerError(f"{why}: say which with --queue")
        if name not in self._queues:
            raise MailpollerError(f"there is no queue {name}")
        place = self._queues[name]
        if name in await self._had(held):  # whoever wants it there once more must not be told that it is a repeat
            raw = replace(raw, claim=replace(raw.claim, generation=_after(held, name)))
        message = await self._read(held, raw, bodies=place.payload == "parsed")
        identity = b"" if raw.claim.plain_id else message.identity or b""
        delivery = delivery_of(
            message,
            Deliver((name,), Attributes(topic=way.topic if way is not None else ""), held.rules),
            place,
            name=name,
            held=held,
            standing=way.standing if way is not None else Standing(),
            delivery_id=mint_delivery_id(held.mid, place.id_name, raw.claim.generation, identity),
            released_by=by,
        )
        self._unnoted[held.delivery_id] = await self._deliver(name, delivery)
        return "delivered", name

    async def _read(self, held: Quarantined, raw: RawMessage, *, bodies: bool) -> Message:
        """What can be read of it where it can do no harm."""
        if not held.parsed:
            if self._workers is None:
                return unparsed(raw)
            try:
                await self._workers.read(raw, header=True)
            except Unread:
                return unparsed(raw)
        message = parse(raw)
        if bodies:
            message.take_body(await body_of(raw, self._workers))
        return message

    # --- both ----------------------------------------------------------------------------------------------------
    async def _had(self, held: Quarantined) -> Mapping[str, str]:
        """The queues that have it already, as the ledger knows."""
        for story in await self._stories.trace(held.mid, limit=1):
            return {name: word for name, word in story.receipts.items() if name not in _NOT_QUEUES}
        return {}

    async def _deliver(self, name: str, delivery: Delivery) -> Mapping[str, str]:
        """The receipt, once the queue holds it; raises otherwise."""
        if name not in self._queues:
            raise MailpollerError(f"there is no queue {name}")
        (answer,) = await self._queues[name].deliver([delivery])
        if not isinstance(answer, Receipt):
            raise MailpollerError(f"{name} refuses it: {answer.reason}")
        return {name: answer.reference}

    async def _note(self, held: Quarantined, receipts: Mapping[str, str]) -> None:
        with suppress(LedgerUnavailable):  # it is there; should we not note that, its id is known there
            await self._stories.brought(held.mid, receipts)


def _after(held: Quarantined, wish: str) -> int:
    """The generation after that of the held message, the same at each try of one wish."""
    return crc32(f"{held.delivery_id}\0{wish}".encode()) << 16 | redeliveries(held.generation) + 1


def _nobodys(held: Quarantined) -> str:
    return f"the mailbox {held.mailbox} is not polled here" if held.mailbox else "nobody knows whose it was"
