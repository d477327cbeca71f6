"""The sink of a topic of SNS: ten messages a call, within its limit, an answer for each, and never to nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import TransientError
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.ports import Clock, OctetsPlace, SinkDoubt
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.sinks.sns.config import SnsQueueSettings
from mailpoller.wire.aws.calls import Calls
from mailpoller.wire.aws.client import AwsClient
from mailpoller.wire.aws.entries import Entry, group_of
from mailpoller.wire.aws.literals import OWN_GROUP
from mailpoller.wire.aws.transport import CONNECTIONS
from mailpoller.wire.worth import Worth

LARGEST_CALL = 262_144
"""Octets of all messages of one call together, at most."""
SUBSCRIBERS_KNOWN = 60.0
"""Seconds for which a look at the subscriptions holds."""
_PAGES = 20
"""Pages of a hundred subscriptions each in which a confirmed one is looked for."""


class SnsQueue:
    """The sink. A topic holds nothing: it hands on what it is given, and answers as willingly if nobody is subscribed.
    So nothing is published unless somebody was within the last minute.

    A repeat that this process knows is not sent again; a FIFO topic knows one for five minutes, and everywhere it bears
    the same id.
    """

    doubts = (NOT_DURABLE,)
    octets_place: OctetsPlace = "inside"

    def __init__(self, name: str, config: SnsQueueSettings, clock: Clock) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        self._where = f"sns {config.topic}"
        self._client = AwsClient("sns", config, self._where)
        self._worth = Worth(name, config.durability, clock, lambda: self._where)
        self._subscribed_at: float | None = None
        self._calls = Calls(
            self._where,
            largest=LARGEST_CALL,
            at_once=1 if config.fifo else CONNECTIONS,
            ask=self._ask,
            taken=self._taken,
            repeated=self._repeated,
        )
        self._calls.limit = min(LARGEST_CALL, config.max_size)

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. Raises :class:`TransientError` if nothing is known of any, and if
        nobody is subscribed."""
        if not batch:
            return []
        if self._worth.due or not self._somebody_there():
            await self.check()
        return await self._calls.bring(batch)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`: connection, login, that the topic is there and has a subscription,
        and what an answer is worth. The right to publish is known by publishing alone."""
        self._subscribed_at = None
        now = self._clock.monotonic()
        if not await self._subscribed():
            raise TransientError(
                f"{self._where}: nobody is subscribed, so what it is given reaches nobody",
                advice="Subscribe a queue to it (aws sns subscribe).",
            )
        self._worth.note(self._config.worth("SNS", ", which hands it on to who is subscribed"))
        self._subscribed_at = now

    async def upkeep(self) -> Sequence[SinkDoubt]:
        """What the configuration accepts though it may lose mail."""
        if self._worth.found is not None and self._worth.due:
            await self.check()
        return self._worth.doubts()

    @property
    def durability(self) -> Durability | None:
        """See :class:`~mailpoller.core.ports.Durable`."""
        return self._worth.found

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._client.close()

    def _somebody_there(self) -> bool:
        seen = self._subscribed_at
        return seen is not None and self._clock.monotonic() - seen <= SUBSCRIBERS_KNOWN

    async def _subscribed(self) -> bool:
        """Whether there is a subscription that is confirmed: one that is not has no ARN yet."""
        more: dict[str, Any] = {}
        for _ in range(_PAGES):
            found = await self._client.ask("list_subscriptions_by_topic", TopicArn=self._config.topic, **more)
            several = found.get("Subscriptions") or ()
            if any(str(one.get("SubscriptionArn")).startswith("arn:") for one in several):
                return True
            if not (token := found.get("NextToken")):
                break
            more = {"NextToken": token}
        return False

    def _repeated(self, delivery_id: str) -> Receipt:
        return SealedReceipt(delivery_id, self._where, repeated=True)

    async def _ask(self, part: Sequence[Entry]) -> Mapping[str, Any]:
        entries = [self._written(number, entry) for number, entry in enumerate(part)]
        octets = sum(entry.size for entry in part)
        return await self._client.ask(
            "publish_batch", octets=octets, TopicArn=self._config.topic, PublishBatchRequestEntries=entries
        )

    def _written(self, number: int, entry: Entry) -> dict[str, Any]:
        written: dict[str, Any] = {"Id": str(number), "Message": entry.body, "MessageAttributes": entry.typed()}
        if self._config.fifo:
            written["MessageDeduplicationId"] = entry.delivery.delivery_id
        if self._config.fifo or self._config.group is not None:
            written["MessageGroupId"] = group_of(entry.delivery, self._config.group or OWN_GROUP)
        return written

    def _taken(self, entry: Entry, said: Mapping[str, Any]) -> Receipt | TransientError:
        """A receipt, if the message has an id now: SNS says nothing of what it was sent."""
        if not said.get("MessageId"):
            return TransientError(f"{self._where}: an answer without the message's id")
        return SealedReceipt(entry.delivery.delivery_id, f"{self._config.topic_name} {said['MessageId']}")
