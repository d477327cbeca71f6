"""The sink of a queue of SQS: ten messages a call, within its limit, and an answer for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import md5
from typing import Any

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import TransientError
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.ports import Clock, OctetsPlace, SinkDoubt
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.sinks.sqs.config import SqsQueueSettings
from mailpoller.wire.aws.calls import Calls
from mailpoller.wire.aws.client import AwsClient
from mailpoller.wire.aws.entries import Entry, group_of
from mailpoller.wire.aws.literals import OWN_GROUP
from mailpoller.wire.aws.transport import CONNECTIONS
from mailpoller.wire.worth import Worth

LARGEST_CALL = 1_048_576
"""Octets of all messages of one call together, at most."""


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
        self._worth = Worth(name, config.durability, clock, lambda: self._where)
        self._calls = Calls(
            self._where,
            largest=LARGEST_CALL,
            at_once=1 if config.fifo else CONNECTIONS,
            ask=self._ask,
            taken=self._taken,
            repeated=self._repeated,
        )

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. Raises :class:`TransientError` if nothing is known of any."""
        if batch and self._worth.due:
            await self._look()
        return await self._calls.bring(batch) if batch else []

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
        self._calls.limit = min(limits)
        kept = _number(told.get("MessageRetentionPeriod"))
        days = f"{kept / 86_400:.3g} days" if kept else "a time"
        self._worth.note(self._config.worth("SQS", f" (which removes what nobody takes for {days})"))

    def _repeated(self, delivery_id: str) -> Receipt:
        return SealedReceipt(delivery_id, self._where, repeated=True)

    async def _ask(self, part: Sequence[Entry]) -> Mapping[str, Any]:
        entries = [self._written(number, entry) for number, entry in enumerate(part)]
        octets = sum(entry.size for entry in part)
        return await self._client.ask("send_message_batch", octets=octets, QueueUrl=self._config.queue, Entries=entries)

    def _written(self, number: int, entry: Entry) -> dict[str, Any]:
        written: dict[str, Any] = {"Id": str(number), "MessageBody": entry.body, "MessageAttributes": entry.typed()}
        if self._config.fifo:
            written["MessageDeduplicationId"] = entry.delivery.delivery_id
        if self._config.fifo or self._config.group is not None:
            written["MessageGroupId"] = group_of(entry.delivery, self._config.group or OWN_GROUP)
        return written

    def _taken(self, entry: Entry, said: Mapping[str, Any]) -> Receipt | TransientError:
        """A receipt, if what is said is about the very octets that were sent."""
        digest = md5(entry.body.encode(), usedforsecurity=False).hexdigest()
        if not said.get("MessageId") or said.get("MD5OfMessageBody") != digest:
            return TransientError(f"{self._where}: an answer that is not about what was sent")
        return SealedReceipt(entry.delivery.delivery_id, f"{self._config.queue_name} {said['MessageId']}")


def _number(told: object) -> int:
    return int(told) if isinstance(told, str) and told.isdigit() else 0
