"""The sink of a Kafka topic: a message of the topic for each of ours, and an answer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from confluent_kafka import KafkaError, KafkaException

from mailpoller.core.answers import in_order, sifted
from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.durability import Durability
from mailpoller.core.errors import TransientError, machine_trouble
from mailpoller.core.not_durable import NOT_DURABLE
from mailpoller.core.parts import parts
from mailpoller.core.ports import Clock, OctetsPlace, SinkDoubt
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.sinks.kafka import durability
from mailpoller.sinks.kafka.config import KafkaQueueSettings
from mailpoller.sinks.kafka.producer import KafkaProducer
from mailpoller.storage.recent import Recent
from mailpoller.wire.cloudevents import body_size, content_of
from mailpoller.wire.worth import Worth

PART_OCTETS = 4 << 20
PART_MESSAGES = 500
_HEADER_OCTETS = 1000
"""The key, the names of the headers, and what Kafka puts around a message."""
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE, KafkaError.INVALID_RECORD)

Answer = Receipt | Refusal | TransientError


class KafkaQueue:
    """The sink. A repeat that this process knows is not produced again; after a restart it bears the same key.

    What an answer is worth is found out before the first message, and hourly.
    """

    doubts = (NOT_DURABLE,)
    sifts: Literal[True] = True

    def __init__(self, name: str, config: KafkaQueueSettings, clock: Clock) -> None:
        self.name = name
        self.octets_place: OctetsPlace = "beside" if config.mode == "raw" else "inside"
        self._config = config
        self._producer = KafkaProducer(name, config)
        self._recent = Recent()
        self._worth = Worth(name, config.durability, clock, lambda: self._where)

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        """See :class:`~mailpoller.core.ports.Sink`. Raises :class:`TransientError` if nothing is known of any."""
        if not batch:
            return []
        await self._look_again()
        answers, fresh = sifted(batch, self._recent.__contains__, self._too_large, self._repeated)
        trouble: TransientError | None = None
        for part in parts(fresh.values(), self._size, octets=PART_OCTETS, messages=PART_MESSAGES):
            if trouble is not None:
                break
            for one, answer in zip(part, await asyncio.gather(*map(self._produce, part)), strict=True):
                if isinstance(answer, TransientError):
                    trouble = trouble or answer
                else:
                    answers[one.delivery_id] = answer
        self._recent.add(one for one in fresh if isinstance(answers.get(one), Receipt))
        return in_order(batch, answers, trouble, self._repeated)

    async def check(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`: connection, login, that the topic is there, and what an answer is
        worth. The right to write is known by writing alone."""
        await self._judge()

    async def upkeep(self) -> Sequence[SinkDoubt]:
        """What the configuration accepts though it may lose mail."""
        if self._worth.found is not None:
            await self._look_again()
        return self._worth.doubts()

    @property
    def durability(self) -> Durability | None:
        """See :class:`~mailpoller.core.ports.Durable`."""
        return self._worth.found

    async def close(self) -> None:
        """See :class:`~mailpoller.core.ports.Sink`. Harmless when repeated."""
        await self._producer.close()

    # --- what an answer is worth ---------------------------------------------------------------------------------
    @property
    def _where(self) -> str:
        return f"{self._producer.place} {self._config.topic}"

    def _repeated(self, delivery_id: str) -> Receipt:
        return SealedReceipt(delivery_id, self._where, repeated=True)

    async def _look_again(self) -> None:
        if self._worth.due:
            await self._judge()

    async def _judge(self) -> None:
        """Find out what an answer is worth. Raises :class:`TransientError` if we do not take that."""
        topic, seconds = self._config.topic, self._producer.seconds
        found = await self._producer.ask(lambda settings: durability.read(settings, topic, seconds))
        self._worth.note(found)

    # --- producing -----------------------------------------------------------------------------------------------
    def _size(self, one: Delivery) -> int:
        return body_size(one, self._config.mode)

    def _too_large(self, one: Delivery) -> str:
        beside = len(one.event.envelope) if self._config.mode != "structured" else 0
        whole, most = self._size(one) + beside + _HEADER_OCTETS, self._config.max_size
        return f"the message has {whole:,} octets here, and max_size is {most:,}" if whole > most else ""

    async def _produce(self, one: Delivery) -> Answer:
        """Produce one message, and wait until the cluster answers for it."""
        content = content_of(one, self._config.mode)
        headers = [(f"ce_{name}", value.encode()) for name, value in content.attributes.items()]
        headers += [("content-type", content.content_type.encode()), ("deliveryid", one.delivery_id.encode())]
        try:
            partition, offset = await self._producer.produce(one.delivery_id, content.body, headers)
        except KafkaException as error:
            said = f"{self._where}: {self._producer.words(error)}"
            found = error.args[0]
            if isinstance(found, KafkaError) and found.code() in _TOO_LARGE:
                return Refusal(one.delivery_id, said, permanent=True)
            return TransientError(said)
        except BufferError:
            return TransientError(f"{self._where}: too much is under way")
        except (TimeoutError, RuntimeError) as error:
            return TransientError(f"{self._where}: {machine_trouble(error) or self._producer.words(error)}")
        return SealedReceipt(one.delivery_id, f"{self._config.topic} {partition} {offset}")
