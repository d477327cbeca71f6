"""A queue that is a stream of NATS JetStream.

``config`` is the block, ``sink`` delivers, ``client`` connects and puts the server's errors into words, ``durability``
reads what its answers are worth. Nothing but ``config`` is imported unless such a queue is built.
"""

from __future__ import annotations

from shlex import quote

from mailpoller.core.component import Preparation, Runtime
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

    def preparation(self, name: str) -> Preparation:
        """The stream."""
        subject = self.subject.replace("{topic}", "*")

        def make() -> None:
            from mailpoller.sinks.nats.creation import create  # which needs the extra

            create(self, subject)

        words = f"nats stream add {self.stream} --subjects {quote(subject)} --storage file --retention work"
        return Preparation(f"its stream {self.stream}", f"{words} --discard new --dupe-window 24h --defaults\n", make)
