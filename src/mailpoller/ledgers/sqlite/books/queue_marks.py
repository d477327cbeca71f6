"""See :class:`~mailpoller.core.ports.ledger.queue_marks.QueueMarks`."""

from __future__ import annotations

from mailpoller.core.ports import (
    Mark,
    QueueRecord,
)
from mailpoller.ledgers.sqlite import (
    queues,
)
from mailpoller.ledgers.sqlite.books.base import Book


class QueueMarksBook(Book):
    """See :class:`~mailpoller.core.ports.ledger.queue_marks.QueueMarks`."""

    async def queue_mark(self, name: str) -> QueueRecord | None:
        return await self._read(lambda c: queues.queue_mark(c, name))

    async def owed(self, name: str) -> int:
        return await self._read_aside(lambda c: queues.owed(c, name))

    async def note_queue(self, name: str, mark: Mark, receipts: int) -> None:
        now = self._now()
        await self._write(lambda c: queues.note_queue(c, name, mark, receipts, now))

    async def adopt_queue(self, name: str) -> QueueRecord | None:
        return await self._write(lambda c: queues.adopt_queue(c, name))
