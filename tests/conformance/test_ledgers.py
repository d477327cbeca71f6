"""Every ledger, held to the same suite."""

from __future__ import annotations

from pathlib import Path

from mailpoller.core.ports import Clock, Ledger
from mailpoller.ledgers.sqlite import SqliteLedgerConfig
from mailpoller.testing.ledger_suite import LedgerSuite
from mailpoller.testing.memory_ledger import MemoryLedger, MemoryStore


class TestSqliteLedger(LedgerSuite):
    async def open(self, directory: Path, clock: Clock) -> Ledger:
        return await SqliteLedgerConfig(type="sqlite", path=directory / "state" / "ledger.db").open(clock)


class TestMemoryLedger(LedgerSuite):
    _stores: dict[Path, MemoryStore] = {}  # noqa: RUF012 - the disk of these ledgers

    async def open(self, directory: Path, clock: Clock) -> Ledger:
        return MemoryLedger(clock, self._stores.setdefault(directory, MemoryStore()))
