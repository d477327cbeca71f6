"""See :class:`~mailpoller.core.ports.ledger.threads.Threads`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mailpoller.ledgers.sqlite import (
    threads,
)
from mailpoller.ledgers.sqlite.books.base import Book


class ThreadsBook(Book):
    """See :class:`~mailpoller.core.ports.ledger.threads.Threads`."""

    async def conversations(
        self, mailbox: str, message_ids: Collection[str], mailboxes: Collection[str] | None
    ) -> Mapping[str, str]:
        if not message_ids:
            return {}
        return await self._read_aside(
            lambda c: threads.conversations(c, self._unsorted, mailbox, message_ids, mailboxes)
        )
