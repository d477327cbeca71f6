"""How a batch is brought to a sink, and whose trouble it is what was not taken: the queue's, or one message's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from random import sample
from typing import Any

import structlog

from mailpoller.core.delivery import QUARANTINE, Delivery, Receipt, Refusal
from mailpoller.core.errors import (
    ConfigError,
    CredentialsMissing,
    LedgerUnavailable,
    MachineTrouble,
    MailpollerError,
    QueueVanished,
    TransientError,
    machine_trouble,
)
from mailpoller.core.extras import without
from mailpoller.core.ports import BlobStore, Sifting, Sink
from mailpoller.core.tasks import within
from mailpoller.engine.availability import Availability, State
from mailpoller.engine.recognition import Recognition
from mailpoller.engine.referring import refer
from mailpoller.engine.trials import IN_A_ROW, Trials
from mailpoller.engine.turns import Turns
from mailpoller.engine.upkeep import Upkeep

log = structlog.get_logger(__name__)

DELIVER_DEADLINE = timedelta(minutes=10)
"""For a batch, at the slowest; a sink keeps finer deadlines of its own."""


def _blames_queue(answer: Receipt | Refusal) -> bool:
    return isinstance(answer, Refusal) and answer.blame == "queue"


def _in_a_row(reason: str) -> str:
    return f"{IN_A_ROW} different messages in a row were refused, and none taken: {reason}"


class Handover:
    """Brings batches to one queue's sink, ``calls`` of them at once, and counts its answers.

    ``paused`` says why an operator wants nothing to be brought, in words, or nothing.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        availability: Availability,
        upkeep: Upkeep,
        recognition: Recognition | None,
        calls: Turns,
        paused: Callable[[], str],
        blobs: BlobStore | None = None,
    ) -> None:
        self.receipts = 0
        """Since the start, as all that follow."""
        self.refusals: Counter[str] = Counter()
        """``permanent`` and ``passing`` ones."""
        self.calls = calls
        self._name = name
        self._sink = sink
        self._availability = availability
        self._upkeep = upkeep
        self._recognition = recognition
        self._paused = paused
        self._blobs = blobs
        self._trials = Trials()
        self._first = asyncio.Lock()

    @property
    def takes_mail(self) -> bool:
        """False while there is no point in bringing anything."""
        return self._availability.state is not State.DOWN and not self._paused()

    async def bring(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        """As :meth:`~mailpoller.engine.queues.Queue.deliver`."""
        if self._availability.state is State.DOWN:
            raise TransientError(self._availability.reason)
        if self._availability.state is State.PROBING:
            async with self._first:
                return await self._probe(batch)
        return await self._sort(batch)

    async def _probe(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        """After an outage: one message first, the rest if it was taken. Others may have probed while we waited.

        Only a receipt, or a word against this very message, is a sign that it is back. It may be one bad message that
        keeps the queue from all others, so each time another one is tried.
        """
        if not self.takes_mail:
            raise TransientError(self._availability.reason)
        if self._availability.state is not State.PROBING:
            return await self._sort(batch)
        answers: dict[int, Receipt | Refusal] = {}
        waiting = sample(range(len(batch)), len(batch))
        while waiting:
            chosen = waiting.pop()
            (answer,) = await self._bring([batch[chosen]])
            if isinstance(answer, Refusal) and answer.unasked:
                answers[chosen] = answer  # which tells nothing of the queue
                continue
            if isinstance(answer, Refusal) and (not answer.permanent or self._trials.in_vain):
                reason = _in_a_row(answer.reason) if self._trials.in_vain else answer.reason
                await self._availability.failed(reason, None)
                raise TransientError(self._availability.reason)
            await self._availability.up()
            answers[chosen] = answer
            break
        rest = sorted(waiting)
        try:
            more = await self._sort([batch[index] for index in rest]) if rest else []
        except TransientError as error:
            more = [Refusal(batch[index].delivery_id, str(error), blame="queue") for index in rest]
        answers.update(zip(rest, more, strict=True))
        return [answers[index] for index in range(len(batch))]

    async def _sort(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        """Bring the batch; what was part of a call that failed, alone and last."""
        if isinstance(self._sink, Sifting) or len(batch) == 1:
            return await self._bring(batch)
        alone = [one for one in batch if one.delivery_id in self._trials]
        if not alone:
            return await self._bring(batch)
        together = [one for one in batch if one.delivery_id not in self._trials]
        answers = await self._bring(together) if together else []
        trouble: TransientError | None = None
        for one in alone:
            try:
                if not self.takes_mail:
                    raise TransientError(self._paused() or self._availability.reason)
                answers += await self._bring([one])
            except TransientError as error:
                trouble = error
                break
        if trouble is not None and not answers:
            raise trouble
        said = {answer.delivery_id: answer for answer in answers}
        return [said.get(one.delivery_id) or Refusal(one.delivery_id, str(trouble), blame="queue") for one in batch]

    async def _bring(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        try:
            if self._recognition is not None and not self._recognition.certain:
                await self._promptly(self._recognition.require())
            async with self.calls.turn(batch[0].raw.claim.ref.folder.mailbox, len(batch)):
                answers = await self._call(batch)
            received = self._count(answers)
            if self._recognition is not None and self._recognition.count(received):
                await self._promptly(self._recognition.note())
            answers = await self._weighed(batch, answers)
            await self._upkeep.hear_of_unserved()
            if not self._availability.proven and not all(map(_blames_queue, answers)):
                await self._availability.prove()
            return answers
        except LedgerUnavailable:
            raise  # not the queue's trouble
        except QueueVanished as error:
            await self._availability.lost(error)
            raise TransientError(self._availability.reason) from error
        except TransientError as error:
            suspected = self._may_be_its_own(batch, error)
            if suspected and self._trials.alone_again(batch) and await self._availability.trouble() is None:
                return await self._weighed(batch, [Refusal(batch[0].delivery_id, str(error))])
            await self._availability.failed(str(error), error.retry_after)
            if suspected and await self._availability.trouble() is None:
                self._trials.failed(batch)
            raise
        except (ConfigError, CredentialsMissing, ModuleNotFoundError) as failure:
            lack = without(failure) if isinstance(failure, ModuleNotFoundError) else failure
            await self._availability.failed(str(lack), None, lacking=True)
            raise TransientError(str(lack)) from failure
        except MailpollerError as error:
            await self._availability.failed(str(error), None)
            raise TransientError(str(error)) from error
        except Exception as failure:
            if (trouble := machine_trouble(failure)) is not None:
                await self._availability.failed(trouble, None)
                raise TransientError(trouble) from failure
            log.exception("queue.crashed", queue=self._name, batch=len(batch))
            if len(batch) == 1:
                words = "the sink failed in an unknown way; the log has the traceback"
                return await self._weighed(batch, [Refusal(batch[0].delivery_id, words)])
        return [answer for one in batch for answer in await self._bring([one])]

    def _count(self, answers: Sequence[Receipt | Refusal]) -> int:
        """How many of them are receipts."""
        refusals = [answer for answer in answers if isinstance(answer, Refusal)]
        for refusal in refusals:
            self.refusals["permanent" if refusal.permanent else "passing"] += 1
        received = len(answers) - len(refusals)
        self.receipts += received
        return received

    async def _weighed(self, batch: Sequence[Delivery], answers: list[Receipt | Refusal]) -> list[Receipt | Refusal]:
        """The answers, once it is known whose trouble the refusals among them are."""
        self._trials.answered(answer for one, answer in zip(batch, answers, strict=True) if one.queue != QUARANTINE)
        if not self._trials.in_vain or self._availability.state is State.PROBING:
            return answers
        last = next((answer.reason for answer in reversed(answers) if isinstance(answer, Refusal)), "")
        await self._availability.failed(_in_a_row(last), None)
        return [
            answer if one.queue == QUARANTINE else self._trials.acquitted(answer)
            for one, answer in zip(batch, answers, strict=True)
        ]

    def _may_be_its_own(self, batch: Sequence[Delivery], error: TransientError) -> bool:
        """May a call have failed for the sake of one message? A queue that fails its check too has no such excuse."""
        told = isinstance(self._sink, Sifting) or isinstance(error, MachineTrouble) or error.retry_after is not None
        return not told and self._availability.state is not State.DOWN and batch[0].queue != QUARANTINE

    async def _promptly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await within(DELIVER_DEADLINE.total_seconds(), work)
        except TimeoutError:
            raise TransientError(f"no answer within {DELIVER_DEADLINE.total_seconds():.0f} s") from None

    async def _call(self, batch: Sequence[Delivery]) -> list[Receipt | Refusal]:
        try:
            answers = list(await within(DELIVER_DEADLINE.total_seconds(), self._handed(batch)))
        except TimeoutError:
            raise TransientError(f"no receipt within {DELIVER_DEADLINE.total_seconds():.0f} s") from None
        if len(answers) != len(batch) or any(
            a.delivery_id != d.delivery_id for a, d in zip(answers, batch, strict=False)
        ):
            raise TransientError("the sink answered for other deliveries than it was given")
        return answers

    async def _handed(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        if self._blobs is not None:
            await refer(batch, self._blobs)
        return await self._sink.deliver(batch)
