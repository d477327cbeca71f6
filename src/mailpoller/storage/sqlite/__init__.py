"""SQLite as ledger and queue use it: one durable writer thread a file, shared commits, numbered migrations."""

from mailpoller.storage.sqlite.database import Database
from mailpoller.storage.sqlite.errors import SqliteUnavailable, Trouble
from mailpoller.storage.sqlite.file import Schema, connect_read_only

__all__ = ["Database", "Schema", "SqliteUnavailable", "Trouble", "connect_read_only"]
