"""The sink of a queue of SQS: ten messages a call, within its limit, and an answer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from hashlib import md5
from typing import Any

from mailpoller.core.answers import in_order, sifted
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import TransientError
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.parts import parts
from mailpoller.core.ports import Clock, OctetsPlace, SinkDoubt
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.sinks.sqs.config import GROUP, SqsQueueSettings
from mailpoller.storage.recent import Recent
from mailpoller.wire.aws.client import AwsClient, AwsError
from mailpoller.wire.aws.entries import AT_ONCE, Entry, about_a_message, entry_of, group_of, least_size, outcomes
from mailpoller.wire.aws.transport import CONNECTIONS
from mailpoller.wire.worth import Worth

LARGEST_CALL = 1_048_576
"""Octets of all messages of one call together, at most."""

Answer = Receipt | Refusal | TransientError


class SqsQueue:
    """The sink. A repeat that this process knows is not sent again; a FIFO queue knows one for five minutes, and in
    any queue it bears the same id.

    The queue's attributes are read before the first message, and hourly.
    """

    doubts = (NOT_DURABLE,)
    octets_place: OctetsPlace = "inside"

    def __init__(self, name: str, config: SqsQueueSettings, clock: Clock) -> None:
        self.name = name
        self._config = config
        self._where = f"sqs {config.queue}"
        self._client = AwsClient("sqs", config, self._where)
        self._recent = Recent()
        self._worth = Worth(name, config.durability, clock, lambda: self._where)
        self._limit = config.max_size
        self._at_once = 1 if config.fifo else CONNECTIONS

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. Raises :class:`TransientError` if nothing is known of any."""
        if not batch:
            return []
        if self._worth.due:
            await self._look()
        answers, fresh = sifted(batch, self._recent.__contains__, self._too_large, self._repeated)
        trouble: TransientError | None = None
        for several in self._calls(fresh.values(), answers):
            told = await asyncio.gather(*map(self._send, several))
            for part, found in zip(several, told, strict=True):
                for entry, answer in zip(part, found, strict=True):
                    if isinstance(answer, TransientError):
                        trouble = trouble or answer
                    else:
                        answers[entry.delivery.delivery_id] = answer
            if trouble is not None:
                break
        self._recent.add(one for one in fresh if isinstance(answers.get(one), Receipt))
        return in_order(batch, answers, trouble, self._repeated)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`: connection, login, that the queue is there, and what an answer is
        worth. The right to send is known by sending alone."""
        await self._look()

    async def upkeep(self) -> Sequence[SinkDoubt]:
        """What the configuration accepts though it may lose mail."""
        if self._worth.found is not None and self._worth.due:
            await self._look()
        return self._worth.doubts()

    @property
    def durability(self) -> Durability | None:
        """See :class:`~mailpoller.core.ports.Durable`."""
        return self._worth.found

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._client.close()

    # --- the queue -----------------------------------------------------------------------------------------------
    async def _look(self) -> None:
        """Read the queue's attributes. Raises :class:`TransientError`, also if we do not take what its answers are
        worth."""
        asked = ["MaximumMessageSize", "MessageRetentionPeriod"]
        found = await self._client.ask("get_queue_attributes", QueueUrl=self._config.queue, AttributeNames=asked)
        told = found.get("Attributes") or {}
        limits = [self._config.max_size, LARGEST_CALL]
        if (limit := _number(told.get("MaximumMessageSize"))) > 0:
            limits.append(limit)
        self._limit = min(limits)
        kept = _number(told.get("MessageRetentionPeriod"))
        days = f"{kept / 86_400:.3g} days" if kept else "a time"
        self._worth.note(self._config.worth("SQS", f" (which removes what nobody takes for {days})"))

    def _repeated(self, delivery_id: str) -> Receipt:
        return SealedReceipt(delivery_id, self._where, repeated=True)

    def _too_large(self, one: Delivery) -> str:
        return self._beyond(least_size(one))

    def _beyond(self, size: int) -> str:
        if size <= self._limit:
            return ""
        return f"the message has {size:,} octets here with its attributes, and the queue takes {self._limit:,}"

    # --- sending -------------------------------------------------------------------------------------------------
    def _calls(self, fresh: Any, answers: dict[str, Receipt | Refusal]) -> Iterator[list[list[Entry]]]:
        """What is sent at once: parts of ten. One that turns out to be too large is refused in ``answers``."""

        def rendered() -> Iterator[Entry]:
            for one in fresh:
                entry = entry_of(one)
                if reason := self._beyond(entry.size):
                    answers[one.delivery_id] = Refusal(one.delivery_id, reason, permanent=True, unasked=True)
                else:
                    yield entry

        several: list[list[Entry]] = []
        for part in parts(rendered(), lambda entry: entry.size, octets=LARGEST_CALL, messages=AT_ONCE):
            several.append(part)
            if len(several) == self._at_once:
                yield several
                several = []
        if several:
            yield several

    async def _send(self, part: Sequence[Entry]) -> list[Answer]:
        """One call, and the answer for each entry. Where the call is refused for something in a message, each goes
        alone: the service does not say which it is."""
        entries = [self._written(number, entry) for number, entry in enumerate(part)]
        octets = sum(entry.size for entry in part)
        try:
            said = await self._client.ask(
                "send_message_batch", octets=octets, QueueUrl=self._config.queue, Entries=entries
            )
        except AwsError as error:
            if not about_a_message(error.code, str(error)):
                return [error] * len(part)
            if len(part) == 1:
                return [Refusal(part[0].delivery.delivery_id, str(error), permanent=True)]
            return [answer for entry in part for answer in await self._send([entry])]
        except TransientError as error:
            return [error] * len(part)
        return [self._answer(entry, one) for entry, one in zip(part, outcomes(part, said, self._where), strict=True)]

    def _written(self, number: int, entry: Entry) -> dict[str, Any]:
        written: dict[str, Any] = {"Id": str(number), "MessageBody": entry.body, "MessageAttributes": entry.typed()}
        if self._config.fifo:
            written["MessageDeduplicationId"] = entry.delivery.delivery_id
        if self._config.fifo or self._config.group is not None:
            written["MessageGroupId"] = group_of(entry.delivery, self._config.group or GROUP)
        return written

    def _answer(self, entry: Entry, said: Mapping[str, Any] | Refusal | TransientError) -> Answer:
        """A receipt, if what is said is about the very octets that were sent."""
        if isinstance(said, Refusal | TransientError):
            return said
        digest = md5(entry.body.encode(), usedforsecurity=False).hexdigest()
        if not said.get("MessageId") or said.get("MD5OfMessageBody") != digest:
            return TransientError(f"{self._where}: an answer that is not about what was sent")
        return SealedReceipt(entry.delivery.delivery_id, f"{self._config.queue_name} {said['MessageId']}")


def _number(told: object) -> int:
    return int(told) if isinstance(told, str) and told.isdigit() else 0
