"""A queue that is a bucket of Amazon S3, or of a store that speaks like it.

``config`` is the block, ``sink`` delivers. Nothing but ``config`` is imported unless such a queue is built.
"""

from __future__ import annotations

from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.ports import Sink
from mailpoller.sinks.s3.config import S3QueueSettings

__all__ = ["S3QueueConfig"]


class S3QueueConfig(S3QueueSettings):
    """Put messages into a bucket of Amazon S3: an object for each event, and the octets beside it."""

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        try:
            from mailpoller.sinks.s3.sink import S3Queue
        except ImportError as error:
            raise ConfigError(f"type: s3 needs {error.name}: pip install 'mailpoller[aws]'") from None
        return S3Queue(name, self, runtime.clock)
