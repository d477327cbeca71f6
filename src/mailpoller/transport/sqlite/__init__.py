"""SQLite as ledger and queue use it: one durable writer thread a file, shared commits, numbered migrations."""

from mailpoller.transport.sqlite.database import Database
from mailpoller.transport.sqlite.errors import SqliteUnavailable, Trouble
from mailpoller.transport.sqlite.file import Schema, connect_read_only

__all__ = ["Database", "Schema", "SqliteUnavailable", "Trouble", "connect_read_only"]
