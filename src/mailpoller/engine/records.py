"""One mailbox's way to the ledger: the writes of whole batches take turns there, so that a short one is never behind
all backlogs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from mailpoller.core.delivery import Cause, Disposed, Disposition, Held, Outcome, Question, Settlement
from mailpoller.core.message import Claim, Folder, MessageRef
from mailpoller.core.ports import Backlog, Bearers, Claims, Folders, Ledger, Mailboxes, Threads, Traits
from mailpoller.core.record import record
from mailpoller.engine.turns import Turns


@record
class Records:
    """The ledger's ports, as the engine of one mailbox has them."""

    claims: Claims
    folders: Folders
    bearers: Bearers
    backlog: Backlog
    mailboxes: Mailboxes
    threads: Threads


def records_of(ledger: Ledger, turns: Turns, mailbox: str) -> Records:
    """The long writes wait for ``mailbox``'s turn. Whatever is not about a batch goes straight through."""
    return Records(InTurn(ledger, turns, mailbox), ledger, ledger, ledger, ledger, ledger)


class InTurn:
    """A mailbox's claims, whose long writes wait for its turn. The charge of a turn is the number of messages."""

    def __init__(self, claims: Claims, turns: Turns, mailbox: str) -> None:
        self._claims = claims
        self._turns = turns
        self._mailbox = mailbox

    async def claim(self, refs: Sequence[MessageRef]) -> Sequence[Claim | Held | Settlement | Question]:
        async with self._turns.turn(self._mailbox, len(refs)):
            return await self._claims.claim(refs)

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Settlement]:
        async with self._turns.turn(self._mailbox, len(outcomes)):
            return await self._claims.settle(outcomes)

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
        async with self._turns.turn(self._mailbox, len(claims)):
            await self._claims.defer(
                claims,
                until=until,
                reason=reason,
                queue=queue,
                route=route,
                receipts=receipts,
                traits=traits,
                cause=cause,
            )

    async def release(self, claims: Sequence[Claim]) -> None:
        async with self._turns.turn(self._mailbox, len(claims)):
            await self._claims.release(claims)

    async def shadowed(self, folder: Folder, shadow: bool) -> None:
        return await self._claims.shadowed(folder, shadow)

    async def come_due(
        self, folder: Folder, disposition: Disposition, *, beyond: datetime | None, until: datetime, limit: int
    ) -> tuple[int, datetime]:
        async with self._turns.turn(self._mailbox, 1):
            return await self._claims.come_due(folder, disposition, beyond=beyond, until=until, limit=limit)

    async def disposed(self, results: Sequence[Disposed]) -> None:
        async with self._turns.turn(self._mailbox, len(results)):
            await self._claims.disposed(results)

    async def repeats(self, mailbox: str, fingerprints: Sequence[bytes]) -> Mapping[bytes, str]:
        async with self._turns.turn(self._mailbox, len(fingerprints)):
            return await self._claims.repeats(mailbox, fingerprints)
