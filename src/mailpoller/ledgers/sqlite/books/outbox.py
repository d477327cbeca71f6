"""See :class:`~mailpoller.core.ports.ledger.outbox.Outbox`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from mailpoller.core.ports import (
    Draft,
    OutboxBacklog,
    OutboxEvent,
    OutboxMail,
    OutboxMark,
    OutboxRefusal,
    RecipientState,
)
from mailpoller.ledgers.sqlite import (
    outbox,
    refusals,
)
from mailpoller.ledgers.sqlite.books.base import Book
from mailpoller.ledgers.sqlite.values import micros


class OutboxBook(Book):
    """See :class:`~mailpoller.core.ports.ledger.outbox.Outbox`."""

    async def outbox_accept(self, mail: OutboxMail) -> OutboxMail:
        return await self._write(lambda c: outbox.accept(c, mail))

    async def outbox_known(self, intake: str, key: str) -> OutboxMail | None:
        return await self._read(lambda c: outbox.known(c, intake, key))

    async def outbox_due(self, identity: str, *, limit: int) -> Sequence[OutboxMail]:
        now = self._now()
        return await self._read(lambda c: outbox.due(c, identity, limit, now))

    async def outbox_backlog(self) -> Mapping[str, OutboxBacklog]:
        return await self._read_aside(outbox.backlog)

    async def outbox_waiting(self) -> Mapping[str, tuple[int, datetime]]:
        return await self._read_aside(outbox.waiting)

    async def outbox_answered(
        self, id: str, said: Mapping[str, tuple[RecipientState, str]], due_at: datetime | None, *, tell: bool = False
    ) -> None:
        due, now = None if due_at is None else micros(due_at), self._now()
        await self._write(lambda c: outbox.answered(c, id, said, due, now, tell=tell))

    async def outbox_note_draft(self, id: str, draft: Draft | None) -> None:
        await self._write(lambda c: outbox.note_draft(c, id, draft))

    async def outbox_list(self, *, identity: str | None = None, all: bool = False, limit: int) -> Sequence[OutboxMail]:
        return await self._read_aside(lambda c: outbox.listed(c, identity, all, limit))

    async def outbox_mail(self, id: str) -> OutboxMail | None:
        return await self._read(lambda c: outbox.mail(c, id))

    async def outbox_retry(self, id: str) -> int:
        now = self._now()
        return await self._write(lambda c: outbox.retry(c, id, now))

    async def outbox_cancel(self, id: str) -> int:
        now = self._now()
        return await self._write(lambda c: outbox.cancel(c, id, now))

    async def outbox_done(self, digests: Sequence[bytes]) -> Sequence[bytes]:
        return await self._read(lambda c: outbox.done(c, digests))

    async def outbox_forget(self, before: datetime) -> int:
        return await self._write(lambda c: outbox.forget(c, micros(before)))

    async def outbox_rename(self, former: str, name: str) -> int:
        return await self._write(lambda c: outbox.rename(c, former, name))

    async def outbox_events(self, *, but: Collection[str] = (), limit: int) -> Sequence[OutboxEvent]:
        return await self._read(lambda c: outbox.events(c, but, limit))

    async def outbox_told(self, numbers: Sequence[int]) -> None:
        await self._write(lambda c: outbox.told(c, numbers))

    async def outbox_refuse(self, refusal: OutboxRefusal) -> bool:
        return await self._write(lambda c: refusals.owe(c, refusal))

    async def outbox_refusals(self, *, but: Collection[str] = (), limit: int) -> Sequence[OutboxRefusal]:
        return await self._read(lambda c: refusals.owed(c, but, limit))

    async def outbox_refusals_told(self, numbers: Sequence[int]) -> None:
        await self._write(lambda c: refusals.told(c, numbers))

    async def outbox_mark(self) -> OutboxMark | None:
        return await self._read(outbox.mark)

    async def outbox_note_mark(self, mark: OutboxMark) -> None:
        await self._write(lambda c: outbox.note_mark(c, mark))
