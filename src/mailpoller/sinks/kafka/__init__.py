"""A queue that is a topic of Kafka.

``config`` is the block, ``sink`` delivers, ``producer`` speaks to the library and puts its errors into words,
``durability`` reads what an answer is worth. Nothing but ``config`` is imported unless such a queue is built.
"""

from __future__ import annotations

from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.ports import Sink
from mailpoller.sinks.kafka.config import KafkaQueueSettings

__all__ = ["KafkaQueueConfig"]


class KafkaQueueConfig(KafkaQueueSettings):
    """Publish messages to a topic of Kafka."""

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        try:
            from mailpoller.sinks.kafka.sink import KafkaQueue
        except ImportError as error:
            raise ConfigError(f"type: kafka needs {error.name}: pip install 'mailpoller[kafka]'") from None
        return KafkaQueue(name, self, runtime.clock)
