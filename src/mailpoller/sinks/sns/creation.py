"""Making a topic of SNS, for an operator whose user may do that."""

from __future__ import annotations

import asyncio

from mailpoller.core.errors import TransientError
from mailpoller.sinks.sns.config import SnsQueueSettings
from mailpoller.wire.aws.client import AwsClient


def create(config: SnsQueueSettings) -> None:
    """Make the topic, if there is none of its name. Raises :class:`TransientError`, also if it would be one of another
    account than the block says."""
    asyncio.run(_create(config))


async def _create(config: SnsQueueSettings) -> None:
    client = AwsClient("sns", config, f"sns {config.topic}")
    attributes = {"FifoTopic": "true"} if config.fifo else {}
    try:
        made = await client.ask("create_topic", Name=config.topic_name, Attributes=attributes)
        if made.get("TopicArn") != config.topic:
            raise TransientError(f"sns {config.topic}: what was made is {made.get('TopicArn')}: another account's")
    finally:
        await client.close()
