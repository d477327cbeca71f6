"""Making a stream of JetStream, for an operator whose user may do that."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from mailpoller.sinks.nats.client import Connection, NoStream
from mailpoller.sinks.nats.config import NatsQueueSettings

REPEATS = timedelta(days=1)
"""``duplicate_window``: how long a repeat is known."""


def create(config: NatsQueueSettings, subject: str) -> None:
    """Make the stream, for this subject, if there is none of its name. Raises :class:`TransientError`."""
    asyncio.run(_create(config, subject))


async def _create(config: NatsQueueSettings, subject: str) -> None:
    async def nothing(context: JetStreamContext) -> None:
        pass

    connection = Connection(config, nothing)
    try:
        await connection.stream()
    except NoStream:
        context = await connection.context()
        wanted = StreamConfig(
            name=config.stream,
            subjects=[subject],
            storage=StorageType.FILE,
            retention=RetentionPolicy.WORK_QUEUE,
            discard=DiscardPolicy.NEW,
            duplicate_window=REPEATS.total_seconds(),
        )
        await connection.ask(context.add_stream(wanted))
    finally:
        await connection.close()
