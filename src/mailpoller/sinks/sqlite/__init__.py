"""A queue in an SQLite file: the embedded default. Its tables are a documented interface; see
``docs/queue-sqlite.md``."""

from mailpoller.sinks.sqlite.sink import SqliteQueue, SqliteQueueConfig

__all__ = ["SqliteQueue", "SqliteQueueConfig"]
