"""A queue of RabbitMQ.

``config`` is the block, ``sink`` delivers, ``client`` connects and puts the server's errors into words, ``durability``
finds out what its answers are worth. Nothing but ``config`` is imported unless such a queue is built.
"""

from __future__ import annotations

from mailpoller.core.component import Runtime
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
