"""The SQLite ledger: the default, one file for one instance."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mailpoller.core.component import LedgerConfig
from mailpoller.core.ports import Clock
from mailpoller.ledgers.sqlite.ledger import SqliteLedger
from mailpoller.ledgers.sqlite.reader import FolderStanding, LedgerReader

__all__ = ["FolderStanding", "LedgerReader", "SqliteLedger", "SqliteLedgerConfig"]


class SqliteLedgerConfig(LedgerConfig):
    """Keep the ledger in an SQLite file: the default."""

    type: Literal["sqlite"] = "sqlite"
    path: Path = Path("/var/lib/mailpoller/ledger.db")
    """The database file. Created, with its directory, if it is missing. On a local disk, never on a network share."""

    sender: Literal["keep", "hash", "none"] = "keep"
    """What is kept of a message's sender: the address; a sum of it (SHA-256), by which ``trace`` and ``messages
    --sender`` find it all the same, and whoever guesses the address; or nothing. What was kept before stays: see
    ``erase``."""

    async def open(self, clock: Clock) -> SqliteLedger:
        """Lock and open the ledger, migrating it if it is older.

        Raises :class:`~mailpoller.core.errors.LedgerUnavailable` naming the holder if another process has it, and
        :class:`~mailpoller.core.errors.ConfigError` if a later version wrote it or the file is no ledger.
        """
        return await SqliteLedger.open(self.path, clock, senders=self.sender)

    def reader(self) -> LedgerReader:
        """The ledger for reading only, also while a daemon holds it. See :meth:`LedgerReader.open`."""
        return LedgerReader.open(self.path)
