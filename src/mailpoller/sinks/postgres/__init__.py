"""A queue that is a table in a PostgreSQL database.

``config`` is the block, ``schema`` the tables, an interface for consumers; ``sink`` delivers, ``insertion`` is its
transaction, ``jobs`` what procrastinate's workers take instead of rows. Nothing but ``config`` and ``schema`` is
imported unless such a queue is built.
"""

from __future__ import annotations

from mailpoller.core.component import Runtime
from mailpoller.core.errors import ConfigError
from mailpoller.core.ports import Sink
from mailpoller.sinks.postgres.config import PostgresQueueSettings

__all__ = ["PostgresQueueConfig"]


class PostgresQueueConfig(PostgresQueueSettings):
    """Hold messages in a table of a PostgreSQL database (13 or later)."""

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Opens nothing; raises :class:`ConfigError` if what it needs is not installed."""
        try:
            from mailpoller.sinks.postgres.sink import PostgresQueue
        except ImportError as error:  # psycopg says so too if there is no libpq
            lack = error.name or "libpq"
            raise ConfigError(f"type: postgres needs {lack}: pip install 'mailpoller[postgres]'") from None
        return PostgresQueue(name, self, runtime.clock)
