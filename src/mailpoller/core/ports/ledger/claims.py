"""Messages in hand: claimed, and settled, deferred or given back, a batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from mailpoller.core.delivery import Cause, Disposed, Disposition, Held, Outcome, Question, Settlement
from mailpoller.core.message import Claim, Folder, MessageRef
from mailpoller.core.ports.records import Traits


class Claims(Protocol):
    """The writes of whole batches. They are long, so mailboxes take turns at them."""

    async def claim(self, refs: Sequence[MessageRef]) -> Sequence[Claim | Held | Settlement | Question]:
        """Claim each ref, same order and length. One whose size or date contradicts what is known of its name, and
        whose known bearer has an identity, is answered by a Question, and nothing is changed.
        A name that a whole listing lacked after its message was deleted is free: it is claimed under another mid.
        A message that is settled is answered by its settlement if its disposition is due, and by Held with reason
        ``settled`` if there is nothing to do; one that is deferred and not due by Held;
        one that is claimed in this process already by Held with reason ``claimed``."""

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Settlement]:
        """Record receipts and outcomes in one commit; same order and length. After it the settlements are made, with
        :class:`mailpoller.core.seals.ledger.SealedSettlement` and in no other way. An outcome whose disposition
        leaves the message needs no :meth:`disposed`; the others are on their way to the server, and due again if no
        word of it comes within a minute, or when the ledger is opened anew."""

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
        """Put claims off. ``queue``: the one they wait for, which is no attempt of theirs that failed. ``route`` and
        ``receipts`` are recorded if given, for all of them alike, and never forgotten by a later call without them.
        ``traits``: of those that were fetched, in the order of the claims. ``cause``: why, which is
        counted: each cause apart, and ``machine`` and ``queue`` not at all. From the first look on that missed them
        they are absent."""

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give claims back unworked (shutdown, lost session): due at once, no strike, no attempt counted."""

    async def disposed(self, results: Sequence[Disposed]) -> None:
        """Record what the server said. ``failed`` is due again after a day, ``pending`` after a minute."""

    async def shadowed(self, folder: Folder, shadow: bool) -> None:
        """The folder is polled in shadow from now on, or not any more: what was settled before the end of that never
        comes due."""

    async def come_due(
        self, folder: Folder, disposition: Disposition, *, beyond: datetime | None, until: datetime, limit: int
    ) -> tuple[int, datetime]:
        """Have this disposition of old settlements come due now: of those that were settled from ``beyond`` (aware;
        None: any time) to ``until``, ``limit`` at most. Of delivered messages alone that a queue has a receipt for,
        that were had whole, have an identity, were neither moved nor deleted before, and were not settled before the
        folder's last time in shadow ended. A bounded number of
        settlements is looked at, oldest first: how many came due, and the instant to go on from."""

    async def repeats(self, mailbox: str, fingerprints: Sequence[bytes]) -> Mapping[bytes, str]:
        """fingerprint -> mid of the earliest message of this mailbox with equal octets, of those that have one: the
        earliest settled one, else one that waits and that some queue holds already."""
