"""See :class:`~mailpoller.core.ports.ledger.stories.Stories`."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence

from mailpoller.core.errors import MessageGone
from mailpoller.core.message import MessageRef
from mailpoller.core.ports import (
    Story,
)
from mailpoller.ledgers.sqlite import (
    erasure,
    stories,
)
from mailpoller.ledgers.sqlite.books.base import PIECE, Book


class StoriesBook(Book):
    """See :class:`~mailpoller.core.ports.ledger.stories.Stories`."""

    async def trace(self, term: str, *, limit: int = 50) -> Sequence[Story]:
        return await self._read_aside(lambda c: stories.trace(c, term, limit))

    async def still_owed(self, mids: Collection[str]) -> Collection[str]:
        return await self._read_aside(lambda c: stories.still_owed(c, mids)) if mids else []

    async def brought(self, mid: str, receipts: Mapping[str, str]) -> bool:
        """See :class:`~mailpoller.core.ports.Ledger`."""
        key = await self._read_aside(lambda c: stories.find(c, mid))
        return key is not None and await self._write(lambda c: stories.brought(c, key, receipts))

    async def erase(self, mids: Sequence[str], address: str = "") -> tuple[int, int]:
        keys = await self._read_aside(lambda c: erasure.keys_of(c, mids))
        erased = 0
        for begin in range(0, len(keys), PIECE):
            some = keys[begin : begin + PIECE]
            erased += await self._write(functools.partial(erasure.erase, keys=some))
        return erased, await self._write(lambda c: erasure.erase_notes(c, mids, address))

    async def erase_outbox(self, address: str, *, count_only: bool = False) -> tuple[int, int]:
        return await self._write(lambda c: erasure.erase_outbox(c, address, count_only=count_only))

    async def reopen(self, mid: str) -> MessageRef:
        key = await self._read_aside(lambda c: stories.find(c, mid))
        if key is None:
            raise MessageGone(f"the ledger has no message {mid}")
        now = self._now()
        return await self._write(lambda c: stories.reopen(c, key, mid, now))
