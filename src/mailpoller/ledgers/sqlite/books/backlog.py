"""See :class:`~mailpoller.core.ports.ledger.backlog.Backlog`."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Sequence

from mailpoller.core.message import Claim, Folder, MessageRef
from mailpoller.ledgers.sqlite import (
    backfilling,
    bearers,
    census,
    claiming,
)
from mailpoller.ledgers.sqlite.books.base import Book, refs_of


class BacklogBook(Book):
    """See :class:`~mailpoller.core.ports.ledger.backlog.Backlog`."""

    async def unsettled(self, folder: Folder, *, limit: int) -> Sequence[MessageRef]:
        known = await self._find(folder)
        return refs_of(folder, await self._read(lambda c: bearers.unsettled(c, known, limit)))

    async def lost(self, folder: Folder, *, limit: int, turn: int = 0) -> Sequence[MessageRef]:
        known = await self._find(folder)
        return refs_of(folder, await self._read(lambda c: bearers.lost(c, known, limit, turn)))

    async def revive(self, refs: Sequence[MessageRef]) -> int:
        if not refs:
            return 0
        known, now = await self._find(refs[0].folder), self._now()
        return await self._write(lambda c: bearers.revive(c, known, refs, now))

    async def take_up(self, refs: Sequence[MessageRef]) -> int:
        if not refs:
            return 0
        known, now = await self._find(refs[0].folder), self._now()
        return await self._write(lambda c: backfilling.take_up(c, known, refs, now))

    async def sighted(
        self, folder: Folder, present: Sequence[MessageRef], absent: Sequence[MessageRef]
    ) -> tuple[int, int]:
        known, now = await self._find(folder), self._now()

        def work(connection: sqlite3.Connection) -> tuple[int, int]:
            census.mark_absent(connection, known, [ref.uid for ref in absent], [ref.uid for ref in present], now)
            return bearers.absences(connection, known)

        return await self._write(work)

    async def blame(self, refs: Sequence[MessageRef]) -> None:
        await self._blame(refs, more=True)

    async def absolve(self, refs: Sequence[MessageRef]) -> None:
        await self._blame(refs, more=False)

    async def _blame(self, refs: Sequence[MessageRef], *, more: bool) -> None:
        uids: defaultdict[Folder, list[str]] = defaultdict(list)
        for ref in refs:
            uids[ref.folder].append(ref.uid)
        if not uids:
            return
        several = [(await self._find(folder), named) for folder, named in uids.items()]
        now = self._now()

        def write(connection: sqlite3.Connection) -> None:
            for known, named in several:
                bearers.blame(connection, known, named, more, now)

        await self._write(write)

    async def blamed(self, folder: Folder) -> Sequence[tuple[MessageRef, int]]:
        known = await self._find(folder)
        rows = await self._read(lambda c: bearers.blamed(c, known))
        return [(MessageRef(folder, uid, size), count) for uid, size, count in rows]

    async def suspects(self, folder: Folder, *, limit: int, down: Collection[str] = ()) -> Sequence[MessageRef]:
        known, now = await self._find(folder), self._now()
        rows = await self._read(lambda c: claiming.suspects(c, known, limit, down, now))
        return [MessageRef(folder, uid, size) for uid, size in rows]

    async def due(self, folder: Folder, *, limit: int, down: Collection[str] = ()) -> Sequence[MessageRef]:
        known, now = await self._find(folder), self._now()
        rows = await self._read(lambda c: claiming.due(c, known, limit, down, self._open_claims, now))
        return [MessageRef(folder, uid, size) for uid, size in rows]

    async def at_risk(self, claim: Claim) -> None:
        key = await self._key(claim.ref)
        await self._write(lambda c: claiming.at_risk(c, key))

    async def cleared(self, claim: Claim) -> None:
        key = await self._key(claim.ref)
        await self._write(lambda c: claiming.cleared(c, key))
