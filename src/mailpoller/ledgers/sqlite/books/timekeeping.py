"""See :class:`~mailpoller.core.ports.ledger.timekeeping.Timekeeping`."""

from __future__ import annotations

from datetime import timedelta
from sqlite3 import Connection

from mailpoller.core.ports import Belief
from mailpoller.ledgers.sqlite.books.base import Book
from mailpoller.ledgers.sqlite.values import instant, micros


class TimekeepingBook(Book):
    """See :class:`~mailpoller.core.ports.ledger.timekeeping.Timekeeping`."""

    async def belief(self) -> Belief | None:
        return await self._read(_belief)

    async def believe(self, belief: Belief) -> None:
        values = (micros(belief.at), round(belief.doubted.total_seconds()))
        await self._write(lambda c: c.execute("INSERT OR REPLACE INTO belief VALUES (1, ?, ?)", values))


def _belief(connection: Connection) -> Belief | None:
    if (row := connection.execute("SELECT at, doubted FROM belief").fetchone()) is not None:
        return Belief(instant(row[0]), timedelta(seconds=row[1]))
    (polled_at,) = connection.execute("SELECT max(polled_at) FROM mailbox").fetchone()
    return None if polled_at is None else Belief(instant(polled_at), timedelta(0))
