"""See :class:`~mailpoller.core.ports.ledger.bearers.Bearers`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from mailpoller.core.message import Claim, Folder, MessageRef
from mailpoller.core.ports import (
    Heirless,
    Sight,
)
from mailpoller.ledgers.sqlite import (
    alike,
    bearers,
)
from mailpoller.ledgers.sqlite.books.base import Book


class BearersBook(Book):
    """See :class:`~mailpoller.core.ports.ledger.bearers.Bearers`."""

    async def heirless(self, folder: Folder, *, limit: int, earlier: bool) -> Sequence[Heirless]:
        known = await self._find(folder)
        return await self._read(lambda c: bearers.heirless(c, known, limit, earlier=earlier))

    async def inherit(self, claim: Claim, former: Heirless) -> Claim:
        known, now = await self._find(claim.ref.folder), self._now()
        return await self._write(lambda c: bearers.inherit(c, known, claim, former, now))

    async def recognise(self, refs: Sequence[MessageRef]) -> Sequence[Sight]:
        if not refs:
            return []
        known = await self._find(refs[0].folder)
        sights = await self._read(lambda c: bearers.recognise(c, known, refs))
        seen = [sight.ref for sight in sights if sight.state == "same"]
        if any(ref.received is not None for ref in seen):
            await self._write(lambda c: bearers.learn(c, known, seen))
        return sights

    async def identified(self, same: Sequence[MessageRef], other: Sequence[MessageRef]) -> None:
        if not same and not other:
            return
        folder = (same or other)[0].folder
        known, now = await self._find(folder), self._now()

        def work(connection: sqlite3.Connection) -> None:
            bearers.learn(connection, known, same)
            free = [ref for ref in other if (known.id, ref.uid) not in self._open_claims]
            bearers.succeed(connection, known, folder.mailbox, folder.name, free, now)

        await self._write(work)

    async def former(self, folder: Folder, fingerprints: Sequence[bytes]) -> Mapping[bytes, Sequence[str]]:
        known = await self._find(folder)
        return await self._read(lambda c: alike.former(c, known, fingerprints))
