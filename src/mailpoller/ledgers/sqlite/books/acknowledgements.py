"""See :class:`~mailpoller.core.ports.ledger.acknowledgements.Acknowledgements`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from mailpoller.core.acknowledgement import Acknowledgement
from mailpoller.core.ports import OutboxMail
from mailpoller.ledgers.sqlite import acknowledgements
from mailpoller.ledgers.sqlite.books.base import Book
from mailpoller.ledgers.sqlite.values import micros


class AcknowledgementsBook(Book):
    """See :class:`~mailpoller.core.ports.ledger.acknowledgements.Acknowledgements`."""

    async def acknowledging(self, mailboxes: Collection[str]) -> Mapping[str, datetime]:
        now = self._now()
        return await self._write(lambda c: acknowledgements.since(c, mailboxes, now))

    async def acknowledgements(self, *, limit: int, but: Collection[str] = ()) -> Sequence[Acknowledgement]:
        return await self._read(lambda c: acknowledgements.owed(c, limit, but))

    async def acknowledged(self, mailbox: str, address: str, since: datetime) -> bool:
        return await self._read(lambda c: acknowledgements.had_one(c, mailbox, address, micros(since)))

    async def acknowledged_count(self, since: datetime) -> int:
        return await self._read(lambda c: acknowledgements.count(c, micros(since)))

    async def acknowledge(self, mid: str, mail: OutboxMail | None) -> bool:
        now = self._now()
        return await self._write(lambda c: acknowledgements.decide(c, mid, mail, now))

    async def acknowledgements_forget(self, before: datetime) -> int:
        return await self._write(lambda c: acknowledgements.forget(c, micros(before)))
