"""See :class:`~mailpoller.core.ports.ledger.claims.Claims`."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from mailpoller.core.delivery import Cause, Disposed, Disposition, Held, Outcome, Question, Settlement
from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.message import Claim, Folder, MessageRef
from mailpoller.core.ports import (
    Traits,
)
from mailpoller.core.seals.ledger import SealedSettlement
from mailpoller.ledgers.sqlite import (
    ageing,
    alike,
    claiming,
    messages,
)
from mailpoller.ledgers.sqlite.books.base import Book
from mailpoller.ledgers.sqlite.values import Key, micros, sender_kept


class ClaimsBook(Book):
    """See :class:`~mailpoller.core.ports.ledger.claims.Claims`."""

    async def claim(self, refs: Sequence[MessageRef]) -> Sequence[Claim | Held | Settlement | Question]:
        keyed = list(zip(await self._found(refs), refs, strict=True))
        now = self._now()
        taken: list[Key] = []

        def work(connection: sqlite3.Connection) -> list[Claim | Held | Settlement | Question]:
            answers, keys = claiming.claim(connection, keyed, self._open_claims, now)
            taken.extend(keys)
            self._open_claims.update(keys)
            return answers

        try:
            return await self._write(work)
        except BaseException:
            # Nobody will ever work on these: whatever became of the commit, they can be claimed again.
            self._open_claims.difference_update(taken)
            raise

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Settlement]:
        if self.senders != "keep":
            outcomes = [replace(one, sender=sender_kept(one.sender, self.senders)) for one in outcomes]
        keyed = list(zip(await self._keys([outcome.claim.ref for outcome in outcomes]), outcomes, strict=True))
        now = self._now()

        def work(connection: sqlite3.Connection) -> None:
            if not messages.settle(connection, keyed, now):
                raise LedgerUnavailable(f"{self.path}: claims are not recorded any more; the mailbox was forgotten")

        await self._write(work)
        self._open_claims.difference_update(key for key, _ in keyed)
        return [
            SealedSettlement(outcome.claim.ref, outcome.claim.mid, outcome.kind, outcome.disposition)
            for outcome in outcomes
        ]

    async def defer(
        self,
        claims: Sequence[Claim],
        *,
        until: datetime,
        reason: str,
        queue: str | None = None,
        route: Sequence[str] | None = None,
        receipts: Mapping[str, str] | None = None,
        traits: Sequence[Traits | None] | None = None,
        cause: Cause = "",
    ) -> None:
        keys = await self._keys([claim.ref for claim in claims])
        if self.senders != "keep" and traits is not None:
            traits = [one and replace(one, sender=sender_kept(one.sender, self.senders)) for one in traits]
        work = functools.partial(
            messages.defer,
            keys=keys,
            until=micros(until),
            reason=reason,
            queue=queue,
            route=route,
            receipts=receipts,
            traits=traits or [None] * len(keys),
            cause=cause,
            now=self._now(),
        )
        await self._write(work)
        self._open_claims.difference_update(keys)

    async def release(self, claims: Sequence[Claim]) -> None:
        """As the port says; and even if this raises, the claims can be claimed again."""
        keys = await self._keys([claim.ref for claim in claims])
        now = self._now()
        try:
            await self._write(lambda c: messages.release(c, keys, now))
        finally:
            self._open_claims.difference_update(keys)

    async def disposed(self, results: Sequence[Disposed]) -> None:
        keyed = list(zip(await self._keys([result.settlement.ref for result in results]), results, strict=True))
        now = self._now()
        await self._write(lambda c: messages.disposed(c, keyed, now))

    async def shadowed(self, folder: Folder, shadow: bool) -> None:
        known, now = await self._find(folder), self._now()
        await self._write(lambda c: ageing.shadowed(c, known.id, shadow, now))

    async def come_due(
        self, folder: Folder, disposition: Disposition, *, beyond: datetime | None, until: datetime, limit: int
    ) -> tuple[int, datetime]:
        known, now = await self._find(folder), self._now()
        work = functools.partial(
            ageing.come_due,
            folder=known.id,
            disposition=disposition,
            beyond=beyond,
            until=until,
            limit=limit,
            now=now,
        )
        return await self._write(work)

    async def repeats(self, mailbox: str, fingerprints: Sequence[bytes]) -> Mapping[bytes, str]:
        return await self._read(lambda c: alike.repeats(c, mailbox, fingerprints))
