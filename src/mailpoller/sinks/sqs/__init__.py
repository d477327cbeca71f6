"""A queue of Amazon SQS.

``config`` is the block, ``sink`` delivers, ``creation`` makes a queue. Nothing but ``config`` is imported unless such a
queue is built.
"""

from __future__ import annotations

import json
from shlex import quote

from mailpoller.core.component import Preparation, Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.ports import Sink
from mailpoller.sinks.sqs.config import SqsQueueSettings, attributes_of_a_queue

__all__ = ["SqsQueueConfig"]


class SqsQueueConfig(SqsQueueSettings):
    """Send messages to a queue of Amazon SQS, standard or FIFO."""

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        try:
            from mailpoller.sinks.sqs.sink import SqsQueue
        except ImportError as error:
            raise ConfigError(f"type: sqs needs {error.name}: pip install 'mailpoller[aws]'") from None
        return SqsQueue(name, self, runtime.clock)

    def preparation(self, name: str) -> Preparation:
        """The queue."""

        def make() -> None:
            from mailpoller.sinks.sqs.creation import create  # which needs the extra

            create(self)

        attributes = ",".join(f"{key}={value}" for key, value in attributes_of_a_queue(self).items())
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["sqs:SendMessage", "sqs:GetQueueAttributes"],
                    "Resource": f"arn:aws:sqs:{self.service_region}:{self.account}:{self.queue_name}",
                }
            ],
        }
        region = f"--region {quote(self.service_region)}"
        words = f"aws sqs create-queue {region} --queue-name {quote(self.queue_name)} --attributes {attributes}\n"
        rights = f"aws iam put-user-policy --user-name mailpoller --policy-name {quote(f'mail-to-{self.queue_name}')}"
        return Preparation(
            f"its queue {self.queue_name}", words + f"{rights} --policy-document {quote(json.dumps(policy))}\n", make
        )
