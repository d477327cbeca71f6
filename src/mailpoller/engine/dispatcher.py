"""From verdicts to outcomes: a batch's deliveries per queue, and what to do with what a queue does not take."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import structlog

from mailpoller.core.delivery import (
    LEAVE,
    QUARANTINE,
    Cause,
    Delivery,
    Disposition,
    Outcome,
    OutcomeKind,
    Receipt,
)
from mailpoller.core.errors import TransientError
from mailpoller.core.identity import mint_delivery_id, redeliveries
from mailpoller.core.message import Claim, RawMessage
from mailpoller.core.ports import Clock, Heirless, Recalling
from mailpoller.core.source_config import SourceConfig
from mailpoller.core.tasks import TaskGroup
from mailpoller.core.verdict import Deliver, Discard, Quarantine
from mailpoller.engine.availability import State
from mailpoller.engine.deferral import Deferral, put_off
from mailpoller.engine.delivering import delivery_to
from mailpoller.engine.judged import Judged, attributes_for, is_held, traits_of
from mailpoller.engine.queues import Queue
from mailpoller.engine.threads import told
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.parser import parse

log = structlog.get_logger(__name__)
_LAST_RESORT = "last-resort"
"""What an earlier version called the directory that took what the quarantine refused; its mail is in the quarantine
now."""
REFUSED_LIMIT = 19
"""A message that a queue keeps refusing, though not for good, is quarantined when it does so once more: after about
two days."""


class Dispatcher:
    """Brings one mailbox's judged messages to their queues.

    ``queues``: those that are configured, and the quarantine. They may change while mail is under way.
    """

    def __init__(
        self,
        config: SourceConfig,
        queues: Mapping[str, Queue],
        clock: Clock,
    ) -> None:
        self._config = config
        self._by_address = bool(config.answered_by_address())
        self._standing = config.standing()
        self._queues = queues
        self._clock = clock

    def queue(self, name: str) -> Queue | None:
        """The queue behind a name of a route; None if it is no longer configured."""
        return self._queues.get(name)

    def down(self) -> frozenset[str]:
        """The names of the queues that take no mail now."""
        return frozenset(name for name, queue in self._queues.items() if not queue.takes_mail)

    def probing(self) -> frozenset[str]:
        """The names of the queues that want one message first."""
        return frozenset(name for name, queue in self._queues.items() if queue.state is State.PROBING)

    async def held(self, judged: Judged, former: Sequence[Heirless]) -> Heirless | None:
        """The one of ``former`` under whose mid a queue of the message's route holds this very message already; None
        if none of them can tell of one. A delivery id is made of the header too, so it is nobody else's."""
        identity = judged.message.identity
        if identity is None:
            return None
        for name in judged.route:
            queue = self.queue(name)
            if queue is None or not isinstance(queue.sink, Recalling) or not queue.takes_mail:
                continue
            ids = {mint_delivery_id(one.mid, queue.id_name, one.generation, identity): one for one in former}
            with contextlib.suppress(TransientError):
                for delivery_id in await queue.sink.holds(ids):
                    return ids[delivery_id]
        return None

    def prepare(self, judged: Judged) -> None:
        """Decide the route and render the events. All that a hostile message could upset happens here, not later."""
        if judged.claim.receipts:
            judged.receipts = {self._present_name(name): word for name, word in judged.claim.receipts.items()}
        judged.route = self._route(judged)
        missing = [name for name in judged.route if name not in judged.receipts]
        if not missing:
            return
        if len(missing) > 1 and is_held(judged.verdict):
            missing.remove(QUARANTINE)  # last, for a queue may refuse it, and then it is there for that
        renderer = self._renderer(judged)
        for name in missing:
            judged.deliveries[name] = self._delivery(judged, name, renderer)

    def _route(self, judged: Judged) -> tuple[str, ...]:
        """The queues that the message goes to: those of its first receipt if it has one, else those of the verdict."""
        if not judged.claim.route:
            return self._today(judged)
        recorded = tuple(self._present_name(name) for name in judged.claim.route)
        if is_held(judged.verdict):  # perhaps since today
            recorded = (*recorded, QUARANTINE)
        known = tuple(dict.fromkeys(name for name in recorded if self.queue(name) is not None))
        if len(known) == len(dict.fromkeys(recorded)):
            return known
        today = self._today(judged)
        # A queue that is not configured any more holds nothing for anybody: today's verdict says who is to have it
        # instead.
        missing = [name for name in recorded if name not in known]
        log.warning("route.changed", mid=judged.claim.mid, missing=missing, queues=[*known, *today])
        return tuple(dict.fromkeys((*known, *today)))

    def _today(self, judged: Judged) -> tuple[str, ...]:
        """Where the verdict sends it."""
        match judged.verdict:
            case Deliver(queues=queues, held=held):
                return (*queues, QUARANTINE) if held else queues
            case Quarantine():
                return (QUARANTINE,)
            case Discard():
                return ()

    def _present_name(self, name: str) -> str:
        """A queue's name now, by one that it had before."""
        if self.queue(name) is not None:
            return name
        if name == _LAST_RESORT:
            return QUARANTINE
        return next((one for one, queue in self._queues.items() if queue.formerly == name), name)

    def _delivery(self, judged: Judged, name: str, renderer: EventRenderer) -> Delivery:
        queue = self.queue(name)
        if queue is None:
            raise LookupError(f"no queue is named {name}")
        verdict, claim = judged.verdict, judged.claim
        raw = judged.message.raw
        # Of what an earlier version was killed with no more than the size is known. Of another size, it is another
        # message, unless its name is given once, by services that estimate sizes.
        plain = claim.plain_id and (claim.ref.given_once or claim.ref.size in (None, raw.octets.size))
        identity = b"" if plain else judged.message.identity or b""
        delivery_id = mint_delivery_id(claim.mid, queue.id_name, claim.generation, identity)
        attributes = attributes_for(verdict, quarantined=name == QUARANTINE)
        return delivery_to(queue, name, renderer, raw, delivery_id, attributes)

    async def dispatch(self, batch: Sequence[Judged]) -> tuple[list[Outcome], list[Deferral]]:
        """Bring every prepared message to the queues that miss it: an outcome or a deferral for each.

        What a queue refuses for good goes to quarantine, keeping the receipts of the others. Never raises for a
        queue's sake.
        """
        await self._round(batch)
        for judged in batch:
            if is_held(judged.verdict) and not judged.deliveries and QUARANTINE not in judged.receipts:
                judged.deliveries[QUARANTINE] = self._delivery(judged, QUARANTINE, self._renderer(judged))
        if again := [judged for judged in batch if judged.deliveries and judged.waits_for is None]:
            await self._round(again)
        outcomes: list[Outcome] = []
        deferrals: list[Deferral] = []
        for judged in batch:
            if judged.deliveries:
                deferrals.append(self._deferral(judged))
            else:
                outcomes.append(self.outcome(judged))
        return outcomes, deferrals

    async def _round(self, batch: Sequence[Judged]) -> None:
        by_queue: dict[str, list[Judged]] = {}
        for judged in batch:
            for name in judged.deliveries:
                by_queue.setdefault(name, []).append(judged)
        if len(by_queue) == 1:
            for name, several in by_queue.items():
                await self._bring(name, several)
            return
        async with TaskGroup() as group:
            for name, several in by_queue.items():
                group.create_task(self._bring(name, several), name=f"deliver {name}")

    async def _bring(self, name: str, batch: Sequence[Judged]) -> None:
        queue = self.queue(name)
        if queue is None:  # it left while the mail was on its way there; the next route goes without it
            for judged in batch:
                judged.waits_for, judged.trouble = "", f"there is no queue named {name} any more"
            return
        try:
            answers = await queue.deliver([judged.deliveries[name] for judged in batch])
        except TransientError as error:
            for judged in batch:
                judged.waits_for, judged.trouble = name, str(error)
            return
        for judged, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Receipt):
                judged.receipts[name] = answer.reference
                del judged.deliveries[name]
            elif answer.permanent:
                self._refused(judged, name, "refused", answer.reason)
            elif answer.blame == "message" and judged.claim.refusals >= REFUSED_LIMIT:
                self._refused(judged, name, "refused-by-queue", answer.reason)
            elif answer.blame == "queue" and not queue.takes_mail:
                judged.waits_for, judged.trouble = name, answer.reason
            else:
                judged.trouble = f"{name}: {answer.reason}"
                judged.waits_for = ""
                judged.refused = judged.refused or answer.blame == "message"

    def _refused(self, judged: Judged, name: str, word: str, reason: str) -> None:
        """The queue will never take it: on to the quarantine. What that does not take stays in its mailbox. ``word``:
        why it is there."""
        log.warning("delivery.refused", mid=judged.claim.mid, queue=name, reason=reason)
        if name == QUARANTINE:
            judged.waits_for, judged.trouble = "", reason
            return
        del judged.deliveries[name]
        judged.route = tuple(dict.fromkeys(QUARANTINE if step == name else step for step in judged.route))
        if isinstance(judged.verdict, Deliver):
            judged.verdict = Quarantine(word, f"{name}: {reason}", rules=judged.verdict.rules)
        if QUARANTINE not in judged.receipts and QUARANTINE not in judged.deliveries:
            judged.deliveries[QUARANTINE] = self._delivery(judged, QUARANTINE, self._renderer(judged))

    def _renderer(self, judged: Judged) -> EventRenderer:
        verdict = judged.verdict
        return EventRenderer(
            judged.message,
            # A rule may want to discard today what was already brought to one of its queues yesterday.
            verdict=Deliver(judged.route, rules=verdict.rules) if isinstance(verdict, Discard) else verdict,
            source=f"mailpoller/{judged.claim.ref.folder.mailbox}",
            now=judged.message.raw.received or self._clock.now(),
            repeat_of=judged.repeat_of,
            standing=self._standing,
        )

    def _deferral(self, judged: Judged) -> Deferral:
        now = self._clock.now()
        claim = judged.claim
        if judged.waits_for:
            # The queue's own back-off decides when; until then the ledger keeps it out of "due".
            return Deferral(
                claim, now, judged.trouble, judged.waits_for, judged.route, judged.receipts, traits_of(judged)
            )
        cause: Cause = "refused" if judged.refused else "queue"
        until = put_off(now, claim.refusals if judged.refused else claim.attempts)
        return Deferral(claim, until, judged.trouble, None, judged.route, judged.receipts, traits_of(judged), cause)

    def outcome(self, judged: Judged) -> Outcome:
        """The outcome of a message that every queue of its route holds."""
        verdict, message, quarantined = judged.verdict, judged.message, judged.quarantined
        kind: OutcomeKind = (
            "discarded" if isinstance(verdict, Discard) else "quarantined" if quarantined else "delivered"
        )
        raw = message.raw
        if raw.doubt:
            return Outcome(
                claim=judged.claim,
                kind="doubtful",
                disposition=LEAVE,
                receipts=judged.receipts,
                reason="octets-doubtful",
            )
        reason = verdict.reason if not isinstance(verdict, Deliver) else "refused" if quarantined else ""
        return Outcome(
            claim=judged.claim,
            kind=kind,
            disposition=self._disposition(kind, truncated=raw.truncated),
            receipts=judged.receipts,
            reason=reason,
            rules=verdict.rules,
            fingerprint=None if raw.truncated else raw.octets.digest,
            size=raw.announced if raw.truncated else raw.octets.size,
            message_id=message.message_id,
            sender=message.from_[0].address if message.from_ else "",
            repeat_of=judged.repeat_of,
            identity=message.identity,
            received=raw.received,
            conversation=told(message),
            bounce=found.bounce if (found := message.classification).subclass == "hard" else None,
            acknowledgement=judged.acknowledgement if kind == "delivered" else None,
            delivered_to=(message.delivered_to or "") if self._by_address else "",
        )

    def gone(self, claim: Claim) -> Outcome:
        """The outcome of a claim whose message left the mailbox before we had it, or before we had it once more."""
        reason = "redelivery" if redeliveries(claim.generation) else ""
        return Outcome(claim=claim, kind="gone", disposition=LEAVE, receipts=claim.receipts or {}, reason=reason)

    def repeated(self, claim: Claim, raw: RawMessage, repeat_of: str) -> Outcome:
        """The outcome of a message whose octets were settled in an earlier epoch."""
        return Outcome(
            claim=claim,
            kind="repeated",
            disposition=self._disposition("repeated", truncated=raw.truncated),
            receipts=claim.receipts or {},
            fingerprint=raw.octets.digest,
            size=raw.octets.size,
            repeat_of=repeat_of,
            identity=parse(raw).identity,
            received=raw.received,
        )

    def _disposition(self, kind: str, *, truncated: bool) -> Disposition:
        wanted = self._config.disposition_for(kind)
        if truncated and wanted.delete:
            # Octets that were never downloaded would be lost with the message.
            return Disposition(seen=True, flags=wanted.flags)
        return wanted
