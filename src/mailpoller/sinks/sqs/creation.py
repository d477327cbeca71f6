"""Making a queue of SQS, for an operator whose user may do that."""

from __future__ import annotations

import asyncio

from mailpoller.sinks.sqs.config import SqsQueueSettings, attributes_of_a_queue
from mailpoller.wire.aws.client import AwsClient, AwsError


def create(config: SqsQueueSettings) -> None:
    """Make the queue, if there is none of its name. Raises :class:`TransientError`."""
    asyncio.run(_create(config))


async def _create(config: SqsQueueSettings) -> None:
    client = AwsClient("sqs", config, f"sqs {config.queue_name}")
    try:
        await client.ask("get_queue_attributes", QueueUrl=config.queue, AttributeNames=["QueueArn"])
    except AwsError as error:
        if error.code not in ("NonExistentQueue", "QueueDoesNotExist"):
            raise
        await client.ask("create_queue", QueueName=config.queue_name, Attributes=attributes_of_a_queue(config))
    finally:
        await client.close()
