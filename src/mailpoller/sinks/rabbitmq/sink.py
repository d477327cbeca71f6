"""The sink of RabbitMQ: a message for each of ours, and a confirmation for each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelClosed, DeliveryError, PublishError
from pamqp.commands import Basic

from mailpoller.core.answers import in_order, sifted
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import TransientError
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.parts import parts
from mailpoller.core.ports import Clock, OctetsPlace, SinkDoubt
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.sinks.rabbitmq import durability
from mailpoller.sinks.rabbitmq.client import TROUBLES, Client, words
from mailpoller.sinks.rabbitmq.config import NAME_OCTETS, RabbitmqQueueSettings
from mailpoller.sinks.rabbitmq.message import message_of, size_of
from mailpoller.storage.recent import Recent
from mailpoller.wire.worth import Worth

PART_OCTETS = 4 << 20
"""Octets that are published and not yet confirmed; one message may be more."""
PART_MESSAGES = 200
_OCTETS_PER_S = 1_000_000
_OVERSIZE = "larger than"
"""In a server's words about ``max_message_size``: it closes the channel then, over all that is under way."""

Answer = Receipt | Refusal | TransientError


class _Lost(TransientError):
    """The channel, or the connection with it, was lost before the answer."""


class RabbitmqQueue:
    """The sink. A repeat that this process knows is not published again; after a restart it bears the same message-id.

    What the queue's confirmations are worth is found out at each connection, and hourly.
    """

    doubts = (NOT_DURABLE,)
    sifts: Literal[True] = True

    def __init__(self, name: str, config: RabbitmqQueueSettings, clock: Clock) -> None:
        self.name = name
        self.octets_place: OctetsPlace = "beside" if config.mode == "raw" else "inside"
        self._config = config
        self._client = Client(config, self._judge)
        self._recent = Recent()
        self._under_way: set[str] = set()
        """Delivery ids that are published and not answered for."""
        self._worth = Worth(name, config.durability, clock, lambda: self._where)

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. Raises :class:`TransientError` if nothing is known of any."""
        if not batch:
            return []
        await self._look_again()
        answers, fresh = sifted(batch, self._recent.__contains__, self._impossible, self._repeated)
        trouble: TransientError | None = None
        for part in parts(fresh.values(), self._size, octets=PART_OCTETS, messages=PART_MESSAGES):
            if trouble is None:
                trouble = await self._bring(part, answers)
        return in_order(batch, answers, trouble, self._repeated)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`: connection, login, that queue and exchange are there, and what a
        confirmation is worth. The right to publish is known by publishing alone."""
        await self._client.publishing()
        await self._require_places()
        await self._judge()

    async def upkeep(self) -> Sequence[SinkDoubt]:
        """What the configuration accepts though it may lose mail."""
        await self._look_again()
        return self._worth.doubts()

    @property
    def durability(self) -> Durability | None:
        """See :class:`~mailpoller.core.ports.Durable`."""
        return self._worth.found

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._client.close()

    # --- before publishing ---------------------------------------------------------------------------------------
    @property
    def _where(self) -> str:
        return f"{self._client.place} {self._config.exchange or self._config.queue}"

    def _repeated(self, delivery_id: str) -> Receipt:
        return SealedReceipt(delivery_id, self._where, repeated=True)

    async def _require_places(self) -> None:
        """Raise :class:`TransientError` if queue or exchange are not there. Nothing is made."""
        queue, exchange = self._config.queue, self._config.exchange

        async def ask(channel: AbstractChannel) -> None:
            if exchange is not None:
                await channel.exchange_declare(exchange, passive=True)
            if queue is not None:
                await channel.queue_declare(queue, passive=True)

        try:
            await self._client.aside(ask)
        except ChannelClosed as error:
            raise TransientError(f"{self._where}: {words(error, self._client.seconds)}") from None

    async def _judge(self) -> None:
        """Find out what a confirmation is worth. Raises :class:`TransientError` if we do not take that."""
        await self._require_places()
        found = await durability.read(self._client, self._config.queue)
        self._worth.note(found)

    async def _look_again(self) -> None:
        """Find it out if that is long ago, or if it was refused the last time."""
        if self._worth.found is not None and self._worth.due:
            await self._judge()

    def _size(self, one: Delivery) -> int:
        return size_of(one, self._config)

    def _impossible(self, one: Delivery) -> str:
        """Why it is not sent at all; empty if it is."""
        size, most = self._size(one), self._config.max_size
        if size > most:
            return f"the message has {size:,} octets here, and max_size is {most:,}"
        if len(self._key(one).encode()) > NAME_OCTETS:
            return f"its routing key has more than {NAME_OCTETS} octets"
        return ""

    def _key(self, one: Delivery) -> str:
        if self._config.exchange is None:
            return self._config.queue or ""
        return self._config.routing_key.replace("{topic}", one.attributes.topic)

    # --- publishing ----------------------------------------------------------------------------------------------
    async def _bring(self, part: Sequence[Delivery], answers: dict[str, Receipt | Refusal]) -> TransientError | None:
        """Publish a part and note its answers; the trouble that ended it, if there was one."""
        try:
            channel, fresh = await self._client.publishing()
        except TransientError as error:
            return error
        more = sum(map(self._size, part)) / _OCTETS_PER_S
        told = await asyncio.gather(*(self._publish(channel, one, more) for one in part))
        trouble: TransientError | None = None
        left: list[Delivery] = []
        for one, answer in zip(part, told, strict=True):
            if not isinstance(answer, TransientError):
                answers[one.delivery_id] = answer
                continue
            trouble = trouble or answer
            left.append(one)
        self._recent.add(one.delivery_id for one in part if isinstance(answers.get(one.delivery_id), Receipt))
        if isinstance(trouble, _Lost) and not fresh and not self._client.connected:
            return await self._bring(left, answers)  # idle connections are closed by whoever stands in between
        if trouble is None or _OVERSIZE not in str(trouble):
            return trouble
        # One of them is too large for the server, which took the channel from all.
        if len(part) == 1:
            answers[part[0].delivery_id] = Refusal(part[0].delivery_id, str(trouble), permanent=True)
            return None
        for one in left:
            if (trouble := await self._bring([one], answers)) is not None:
                return trouble
        return None

    async def _publish(self, channel: AbstractChannel, one: Delivery, more: float) -> Answer:
        """Publish one message, and wait until it is confirmed.

        Never twice at once: the library knows a message that no queue takes by its message-id alone, and would say of
        one what the server said of the other.
        """
        if one.delivery_id in self._under_way:
            return TransientError(f"{self._where}: the message is on its way already")
        self._under_way.add(one.delivery_id)
        try:
            return await self._published(channel, one, more)
        finally:
            self._under_way.discard(one.delivery_id)

    async def _published(self, channel: AbstractChannel, one: Delivery, more: float) -> Answer:
        config, seconds = self._config, self._client.seconds + more
        body, properties = message_of(one, config)
        try:
            async with asyncio.timeout(seconds):
                answer = await channel.basic_publish(
                    body,
                    exchange=config.exchange or "",
                    routing_key=self._key(one),
                    properties=properties,
                    mandatory=True,
                )
        except PublishError:
            return self._unroutable(one)
        except TROUBLES as error:
            if isinstance(error, TimeoutError):
                await self._client.close()
            said = f"{self._where}: {words(error, seconds)}"
            if isinstance(error, DeliveryError):
                return TransientError(said, advice="Let consumers take what waits, or raise the queue's limits.")
            return TransientError(said) if isinstance(error, TimeoutError) else _Lost(said)
        if not isinstance(answer, Basic.Ack):
            return TransientError(f"{self._where}: an answer that is no confirmation")
        return SealedReceipt(one.delivery_id, self._where)

    def _unroutable(self, one: Delivery) -> Answer:
        if self._config.exchange is None:
            return TransientError(f"{self._where}: there is no such queue")
        return Refusal(one.delivery_id, f"{self._where}: no queue is bound for the routing key {self._key(one)!r}")
