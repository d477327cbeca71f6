"""Making a queue at RabbitMQ, for an operator whose user may do that."""

from __future__ import annotations

import asyncio

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelClosed

from mailpoller.core.errors import TransientError
from mailpoller.sinks.rabbitmq.client import Client, words
from mailpoller.sinks.rabbitmq.config import RabbitmqQueueSettings


def create(config: RabbitmqQueueSettings, queue: str) -> None:
    """Make the queue, a quorum queue, if it is not there in whatever form. Raises :class:`TransientError`."""
    asyncio.run(_create(config, queue))


async def _create(config: RabbitmqQueueSettings, queue: str) -> None:
    async def nothing() -> None:
        pass

    async def look(channel: AbstractChannel) -> None:
        await channel.queue_declare(queue, passive=True)

    async def make(channel: AbstractChannel) -> None:
        await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})

    client = Client(config, nothing)
    try:
        try:
            await client.aside(look)
        except ChannelClosed:
            await client.aside(make)
    except ChannelClosed as error:
        raise TransientError(f"{client.place}: {words(error, client.seconds)}") from None
    finally:
        await client.close()
