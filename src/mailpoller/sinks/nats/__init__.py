"""A queue that is a stream of NATS JetStream.

``config`` is the block, ``sink`` delivers, ``client`` connects and puts the server's errors into words, ``durability``
reads what its answers are worth. Nothing but ``config`` is imported unless such a queue is built.
"""

from __future__ import annotations

from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.ports import Sink
from mailpoller.sinks.nats.config import NatsQueueSettings

__all__ = ["NatsQueueConfig"]


class NatsQueueConfig(NatsQueueSettings):
    """Publish messages to a stream of NATS JetStream."""

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        try:
            from mailpoller.sinks.nats.sink import NatsQueue
        except ImportError as error:
            raise ConfigError(f"type: nats needs {error.name}: pip install 'mailpoller[nats]'") from None
        return NatsQueue(name, self, runtime.clock)
