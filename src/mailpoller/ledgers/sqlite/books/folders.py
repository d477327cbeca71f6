"""See :class:`~mailpoller.core.ports.ledger.folders.Folders`."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Container, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal

import structlog

from mailpoller.core.message import Account, Folder, MessageRef, Position
from mailpoller.core.ports import (
    Census,
    FolderState,
)
from mailpoller.ledgers.sqlite import (
    census,
    folders,
    pruning,
)
from mailpoller.ledgers.sqlite.books.base import Book, pieces_of
from mailpoller.ledgers.sqlite.values import micros

log = structlog.get_logger(__name__)


class FoldersBook(Book):
    """See :class:`~mailpoller.core.ports.ledger.folders.Folders`."""

    async def open_folder(self, folder: Folder, account: Account, *, formerly: str | None = None) -> FolderState:
        now = self._now()
        known, state = await self._write(lambda c: folders.open_folder(c, folder, account, formerly, now))
        if formerly is not None:
            self._drop_known(formerly)
        self._known[folder] = known
        return state

    async def begin_anew(self, folder: Folder, reason: str) -> None:
        known, now = await self._find(folder), self._now()
        self._known[folder] = await self._write(lambda c: folders.begin_anew(c, known, now))
        log.warning("epoch.begun_anew", mailbox=folder.mailbox, folder=folder.name, reason=reason)

    async def strange(self, folder: Folder, doubtful: bool) -> None:
        known, now = await self._find(folder), self._now()
        await self._write(lambda c: folders.strange(c, known, doubtful, now))

    async def advance(self, folder: Folder, position: Position) -> None:
        known, now = await self._find(folder), self._now()
        await self._write(lambda c: folders.advance(c, known, position, now))

    async def plan(self, folder: Folder, refs: Sequence[MessageRef], position: Position | None) -> None:
        known, now = await self._find(folder), self._now()
        await self._write(lambda c: folders.plan(c, known, refs, position, now))

    async def planned(self, folder: Folder) -> Sequence[MessageRef]:
        known = await self._find(folder)
        rows = await self._read(lambda c: folders.planned(c, known))
        return [MessageRef(folder, uid, size) for uid, size in rows]

    async def complete(self, folder: Folder) -> None:
        known = await self._find(folder)
        await self._write(lambda c: folders.complete(c, known))

    async def unknown(self, folder: Folder, refs: Sequence[MessageRef]) -> int:
        known = await self._find(folder)
        return await self._read_aside(lambda c: folders.unknown(c, known, [ref.size for ref in refs]))

    async def left(self, folder: Folder) -> Collection[tuple[int | None, datetime | None]]:
        known = await self._find(folder)
        return await self._read(lambda c: folders.left(c, known))

    async def hold(self, folder: Folder, reason: str) -> bool:
        known = await self._find(folder)
        return await self._write(lambda c: folders.hold(c, known, reason))

    async def accept(self, mailbox: str, how: Literal["baseline", "replay", "absence"]) -> int:
        now = self._now()
        return await self._write(lambda c: folders.accept(c, mailbox, how, now))

    async def census(self, folder: Folder, refs: Sequence[MessageRef], names: Container[str]) -> Census:
        """As the port says; no more is in memory than a piece."""
        known, after = await self._find(folder), ""
        total = Census(0, Counter(), Counter())
        changed = False
        while True:
            piece = await self._read_aside(functools.partial(census.counted, known=known, names=names, after=after))
            total = Census(total.left + piece.left, total.vanished + piece.vanished, total.strangers)
            changed = changed or bool(piece.absent or piece.back)
            if piece.end is None:
                break
            after = piece.end
        for begin in range(0, len(refs), census.COUNTED_AT_ONCE) if total.vanished else ():
            several = refs[begin : begin + census.COUNTED_AT_ONCE]
            total.strangers.update(
                await self._read_aside(functools.partial(census.strangers, known=known, refs=several))
            )
        return replace(total, changed=changed)

    async def note_absent(self, folder: Folder, names: Container[str]) -> None:
        """As the port says; in pieces, so that no other write waits for all of it."""
        known, now, after = await self._find(folder), self._now(), ""
        while True:
            piece = await self._read_aside(functools.partial(census.counted, known=known, names=names, after=after))
            for absent in pieces_of(piece.absent):
                await self._write(
                    functools.partial(census.mark_absent, known=known, absent=absent, present=(), now=now)
                )
            for back in pieces_of(piece.back):
                await self._write(functools.partial(census.mark_absent, known=known, absent=(), present=back, now=now))
            if piece.end is None:
                return
            after = piece.end

    async def prune(self, folder: Folder, present: Container[str], *, before: datetime) -> int:
        """As the port says; in pieces, so that no other write waits for all of it, and no more is in memory than a
        piece."""
        known, earlier_than, now = await self._find(folder), micros(before), self._now()
        complete, earlier = await self._read(lambda c: folders.present_and_former(c, known))
        forgotten = await self._prune(known.id, present, earlier_than, now)
        # Once this epoch's first listing was worked through, no message of a former one is needed: its numbering is
        # gone, and its fingerprints suppress nothing any more.
        for number in earlier if complete else ():
            forgotten += await self._prune(number, None, earlier_than, now)
        await self._write(lambda c: folders.pruned(c, known, now))
        return forgotten

    async def _prune(self, number: int, present: Container[str] | None, before: int, now: int) -> int:
        forgotten, after = 0, ""
        while True:
            found = await self._read_aside(
                functools.partial(pruning.prunable, number=number, present=present, after=after, before=before, now=now)
            )
            for uids in pieces_of(found.forgotten):
                forgotten += await self._write(
                    functools.partial(pruning.prune, number=number, uids=uids, before=before)
                )
                await self._shorten_log()
            for missed in pieces_of(found.missed):
                await self._write(
                    functools.partial(pruning.note_missed, number=number, missed=missed, found=(), now=now)
                )
                await self._shorten_log()
            for back in pieces_of(found.found):
                await self._write(functools.partial(pruning.note_missed, number=number, missed=(), found=back, now=now))
            if found.end is None:
                return forgotten
            after = found.end
