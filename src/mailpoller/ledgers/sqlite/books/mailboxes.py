"""See :class:`~mailpoller.core.ports.ledger.mailboxes.Mailboxes`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime

from mailpoller.core.ports import (
    Standing,
    Stuck,
)
from mailpoller.ledgers.sqlite import (
    folders,
    pruning,
    stories,
    waiting,
)
from mailpoller.ledgers.sqlite.books.base import PIECE, Book
from mailpoller.ledgers.sqlite.values import micros


class MailboxesBook(Book):
    """See :class:`~mailpoller.core.ports.ledger.mailboxes.Mailboxes`."""

    async def polled(self, polls: Mapping[str, datetime]) -> None:
        await self._write(lambda c: folders.polled(c, polls))

    async def last_polls(self) -> Mapping[str, datetime]:
        return await self._read(folders.last_polls)

    async def first_runs(self) -> Mapping[str, datetime]:
        return await self._read(folders.first_runs)

    async def stuck(self, before: datetime) -> Sequence[Stuck]:
        earlier_than, now = micros(before), self._now()
        return await self._read_aside(lambda c: waiting.stuck(c, earlier_than, now))

    async def hasten(self, mailbox: str) -> int:
        now = self._now()
        return await self._write(lambda c: waiting.hasten(c, mailbox, now))

    async def mailboxes(self) -> Sequence[str]:
        return await self._read(folders.mailboxes)

    async def forget(self, mailbox: str) -> int:
        forgotten = 0
        for number in await self._read(lambda c: folders.ids(c, mailbox)):
            while uids := await self._read(functools.partial(pruning.some, number=number, limit=PIECE)):
                await self._write(functools.partial(pruning.forget, number=number, uids=uids))
                forgotten += len(uids)
        await self._write(lambda c: folders.forget(c, mailbox))
        self._drop_known(mailbox)
        return forgotten

    async def counts(self, mailbox: str) -> Mapping[str, int]:
        return await self._read_aside(lambda c: stories.counts(c, mailbox))

    async def standings(self) -> Mapping[str, Standing]:
        return await self._read_aside(stories.standings)

    async def oldest(self) -> Mapping[str, datetime]:
        return await self._read_aside(stories.oldest)
