"""A queue that is a topic of Amazon SNS.

``config`` is the block, ``sink`` delivers, ``creation`` makes a topic. Nothing but ``config`` is imported unless such a
queue is built.
"""

from __future__ import annotations

import json
from shlex import quote

from mailpoller.core.component import Preparation, Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.ports import Sink
from mailpoller.sinks.sns.config import SnsQueueSettings

__all__ = ["SnsQueueConfig"]


class SnsQueueConfig(SnsQueueSettings):
    """Publish messages to a topic of Amazon SNS, standard or FIFO."""

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        try:
            from mailpoller.sinks.sns.sink import SnsQueue
        except ImportError as error:
            raise ConfigError(f"type: sns needs {error.name}: pip install 'mailpoller[aws]'") from None
        return SnsQueue(name, self, runtime.clock)

    def preparation(self, name: str) -> Preparation:
        """The topic. Who is to have the mail subscribes by himself."""

        def make() -> None:
            from mailpoller.sinks.sns.creation import create  # which needs the extra

            create(self)

        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["sns:Publish", "sns:ListSubscriptionsByTopic"],
                    "Resource": self.topic,
                }
            ],
        }
        region, topic = f"--region {quote(self.service_region)}", quote(self.topic)
        fifo = " --attributes FifoTopic=true" if self.fifo else ""
        words = (
            f"aws sns create-topic {region} --name {quote(self.topic_name)}{fifo}\n"
            "aws iam put-user-policy --user-name mailpoller"
            f" --policy-name {quote(f'mail-to-{self.topic_name}')} --policy-document {quote(json.dumps(policy))}\n"
            f"aws sns subscribe {region} --topic-arn {topic} --protocol sqs --notification-endpoint ARN-OF-A-QUEUE"
            " --attributes RawMessageDelivery=true\n"
        )
        return Preparation(f"its topic {self.topic_name}", words, make)
