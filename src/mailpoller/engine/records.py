"""One mailbox's way to the ledger: the writes of whole batches take turns there, so that a short one is never behind
all backlogs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from mailpoller.core.delivery import Disposed, Held, Outcome, Question, Settlement
from mailpoller.core.message import Claim, MessageRef
from mailpoller.core.ports import Ledger
from mailpoller.engine.turns import Turns


def in_turn(ledger: Ledger, turns: Turns, mailbox: str) -> Ledger:
    """The same ledger, whose long writes wait for ``mailbox``'s turn. Whatever is not about a batch goes straight
    through."""
    return cast("Ledger", _InTurn(ledger, turns, mailbox))


class _InTurn:
    """Methods as in :class:`~mailpoller.core.ports.Ledger`. The charge is the number of messages."""

    def __init__(self, ledger: Ledger, turns: Turns, mailbox: str) -> None:
        self._ledger = ledger
        self._turns = turns
        self._mailbox = mailbox

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def claim(self, refs: Sequence[MessageRef]) -> Sequence[Claim | Held | Settlement | Question]:
        async with self._turns.turn(self._mailbox, len(refs)):
            return await self._ledger.claim(refs)

    async def release(self, claims: Sequence[Claim]) -> None:
        async with self._turns.turn(self._mailbox, len(claims)):
            await self._ledger.release(claims)

    async def repeats(self, mailbox: str, fingerprints: Sequence[bytes]) -> Mapping[bytes, str]:
        async with self._turns.turn(self._mailbox, len(fingerprints)):
            return await self._ledger.repeats(mailbox, fingerprints)

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Settlement]:
        async with self._turns.turn(self._mailbox, len(outcomes)):
            return await self._ledger.settle(outcomes)

    async def defer(self, claims: Sequence[Claim], **how: Any) -> None:
        async with self._turns.turn(self._mailbox, len(claims)):
            await self._ledger.defer(claims, **how)

    async def disposed(self, results: Sequence[Disposed]) -> None:
        async with self._turns.turn(self._mailbox, len(results)):
            await self._ledger.disposed(results)
