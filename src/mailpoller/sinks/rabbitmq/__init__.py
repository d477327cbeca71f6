"""A queue of RabbitMQ.

``config`` is the block, ``sink`` delivers, ``client`` connects and puts the server's errors into words, ``durability``
finds out what its answers are worth. Nothing but ``config`` is imported unless such a queue is built.
"""

from __future__ import annotations

import re
from shlex import quote

from mailpoller.core.component import Preparation, Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.ports import Sink
from mailpoller.sinks.rabbitmq.config import RabbitmqQueueSettings

__all__ = ["RabbitmqQueueConfig"]


class RabbitmqQueueConfig(RabbitmqQueueSettings):
    """Publish messages to RabbitMQ: to a queue, or to an exchange."""

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        try:
            from mailpoller.sinks.rabbitmq.sink import RabbitmqQueue
        except ImportError as error:
            raise ConfigError(f"type: rabbitmq needs {error.name}: pip install 'mailpoller[rabbitmq]'") from None
        return RabbitmqQueue(name, self, runtime.clock)

    def preparation(self, name: str) -> Preparation | None:
        """The queue, if it is named."""
        queue = self.queue
        if queue is None:
            return None

        def make() -> None:
            from mailpoller.sinks.rabbitmq.creation import create  # which needs the extra

            create(self, queue)

        words = f"rabbitmqadmin declare queue --vhost={quote(self.vhost)} name={quote(queue)} durable=true"
        statements = words + ' arguments=\'{"x-queue-type": "quorum"}\'\n'
        if self.username is not None:
            exchange = re.escape(self.exchange or "amq.default")
            rights = f"{quote(f'^{re.escape(queue)}$')} {quote(f'^{exchange}$')} ''"
            statements += f"rabbitmqctl set_permissions -p {quote(self.vhost)} {quote(self.username)} {rights}\n"
        return Preparation(f"its queue {queue}", statements, make)
