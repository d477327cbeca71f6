"""The claims of one mailbox that are in hand: each is closed, put off or given back, however a pass ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

import structlog

from mailpoller.core.delivery import LEAVE, Held, Outcome, Question, Settlement
from mailpoller.core.errors import MachineTrouble, TransientError
from mailpoller.core.message import Claim, MessageRef
from mailpoller.core.ports import Clock
from mailpoller.engine.deferral import MACHINE_AGAIN, Deferral, put_off
from mailpoller.engine.in_flight import Pass
from mailpoller.engine.observer import Observer
from mailpoller.engine.pass_result import PassResult
from mailpoller.engine.records import Records

log = structlog.get_logger(__name__)

SAID_KEPT = 10_000
"""Messages whose last reason is remembered, so that it is said once."""


def _counted(claim: Claim) -> tuple[int, ...]:
    """What decides how long it is put off."""
    return claim.attempts, claim.failures, claim.refusals, claim.doubts


class Claimant:
    """What is claimed and not closed, by mid. ``at_once``: how many are claimed in one go, where it is for us to
    say."""

    def __init__(self, mailbox: str, *, records: Records, clock: Clock, observer: Observer, at_once: int) -> None:
        self.open: dict[str, Claim] = {}
        self._mailbox = mailbox
        self._records = records
        self._clock = clock
        self._observer = observer
        self._at_once = at_once
        self._said: dict[str, str] = {}
        """mid -> why it could not be fetched the last time, of the last so many."""

    async def claim(self, refs: Sequence[MessageRef], now: Pass | None = None) -> tuple[list[Claim], list[Settlement]]:
        """Claim refs: the claims, which are in hand from now on, and settlements whose disposition is still due.
        Questions are noted in the pass."""
        if not refs:
            return [], []
        answers = await self._records.claims.claim(refs)
        claims = [answer for answer in answers if isinstance(answer, Claim)]
        self.open.update([(claim.mid, claim) for claim in claims])
        if len(claims) == len(answers):  # as of nearly all new mail
            return claims, []
        if now is not None:
            # A listing without dates tells too little of a name that is known already.
            now.known += [
                answer.ref
                for answer in answers
                if isinstance(answer, Held) and answer.reason == "settled" and answer.ref.received is None
            ]
            now.questions += [answer for answer in answers if isinstance(answer, Question)]
        return claims, [answer for answer in answers if isinstance(answer, Settlement)]

    async def skip(self, refs: Sequence[MessageRef]) -> None:
        """Record messages that were there before the first run and that ``start`` does not want."""
        for begin in range(0, len(refs), self._at_once):
            claims, _ = await self.claim(refs[begin : begin + self._at_once])
            outcomes = [Outcome(claim=claim, kind="skipped", disposition=LEAVE, receipts={}) for claim in claims]
            if outcomes:
                await self._records.claims.settle(outcomes)
                self.close(claims)
                self._observer.skipped(outcomes)
            self._observer.progressed()
        log.info("folder.skipped_over", mailbox=self._mailbox, skipped=len(refs))

    async def recognise(self, now: Pass) -> None:
        """Names that were listed as new, and that the ledger has as settled: are they still those messages'?"""
        refs, now.known = now.known, []
        seen = await now.session.look(refs)
        sights = await self._records.bearers.recognise([ref for ref in seen if ref is not None])
        now.questions += [
            Question(sight.ref, sight.mid, sight.identity or b"", sight.left_out_at, sight.message_id)
            for sight in sights
            if sight.state == "question"
        ]

    async def put_down(self, claims: Sequence[Claim]) -> None:
        """Give claims back unworked."""
        await self._records.claims.release(claims)
        self.close(claims)

    def close(self, claims: Iterable[Claim]) -> None:
        """They are in hand no more: the ledger has what became of them."""
        for claim in claims:
            self.open.pop(claim.mid, None)

    async def unfetchable(
        self,
        claims: Sequence[Claim],
        reason: str,
        result: PassResult,
        error: TransientError | None,
        *,
        again: timedelta | None = None,
    ) -> None:
        """Put off what was asked for and did not come; each reason is said once. ``again``: after so long, instead of
        the growing time."""
        for claim in claims:
            uid = claim.ref.uid
            if self._said.get(claim.mid) != reason:
                self._said[claim.mid] = reason
                if len(self._said) > SAID_KEPT:
                    del self._said[next(iter(self._said))]
                log.warning("message.unfetched", mid=claim.mid, mailbox=self._mailbox, uid=uid, reason=reason)
                self._observer.fault("message.unfetched", reason, claim.mid)
            else:
                log.debug("message.unfetched", mid=claim.mid, mailbox=self._mailbox, uid=uid, reason=reason)
            ours = isinstance(error, MachineTrouble)
            until = put_off(self._clock.now(), claim.attempts, retry_after=error.retry_after if error else None)
            if ours or again is not None:
                until = self._clock.now() + (again or MACHINE_AGAIN)
            await self._records.claims.defer([claim], until=until, reason=reason, cause="machine" if ours else "")
            self._observer.deferred([claim], reason)
            result.put_off(1, until)
        self.close(claims)
        result.unfetched += len(claims)

    async def defer(self, deferrals: Sequence[Deferral], result: PassResult) -> None:
        """Put off, in one commit, all that are put off alike."""
        alike: dict[tuple[object, ...], list[Deferral]] = {}
        for one in deferrals:
            receipts = tuple((one.receipts or {}).items())
            key = (one.reason, one.queue, one.route, receipts, _counted(one.claim), one.cause)
            alike.setdefault(key, []).append(one)
        for several in alike.values():
            first = several[0]
            await self._records.claims.defer(
                [one.claim for one in several],
                until=first.until,
                reason=first.reason,
                queue=first.queue,
                route=first.route,
                receipts=first.receipts,
                traits=[one.traits for one in several],
                cause=first.cause,
            )
            claims = [one.claim for one in several]
            self.close(claims)
            self._observer.deferred(claims, first.reason)
            result.put_off(len(several), first.until if first.queue is None else None)
            for one in several:
                log.info(
                    "message.deferred", mid=one.claim.mid, mailbox=self._mailbox, queue=one.queue, reason=one.reason
                )
