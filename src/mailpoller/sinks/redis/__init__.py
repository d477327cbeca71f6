"""A queue that is a stream at a Redis or Valkey server.

``config`` is the block, ``sink`` delivers, ``script`` is what runs at the server, ``durability`` reads what its answers
are worth. Nothing but ``config`` is imported unless such a queue is built.
"""

from __future__ import annotations

from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.ports import Sink
from mailpoller.sinks.redis.config import RedisQueueSettings

__all__ = ["RedisQueueConfig"]


class RedisQueueConfig(RedisQueueSettings):
    """Hold messages in a stream at a Redis (7.0 or later) or Valkey server."""

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        try:
            from mailpoller.sinks.redis.sink import RedisQueue
        except ImportError as error:
            raise ConfigError(f"type: redis needs {error.name}: pip install 'mailpoller[redis]'") from None
        return RedisQueue(name, self, runtime.clock)
