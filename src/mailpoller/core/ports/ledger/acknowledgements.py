"""Acknowledgements that are owed, and which senders had one when."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from mailpoller.core.acknowledgement import Acknowledgement
from mailpoller.core.ports.ledger.outbox import OutboxMail


class Acknowledgements(Protocol):
    """Each is owed from the commit of its outcome (``Claims.settle``), once for a mid, until it is decided."""

    async def acknowledging(self, mailboxes: Collection[str]) -> Mapping[str, datetime]:
        """These mailboxes acknowledge now, and no others: mailbox -> since when it does without a break."""

    async def acknowledgements(self, *, limit: int, but: Collection[str] = ()) -> Sequence[Acknowledgement]:
        """What is owed, oldest first, but for that of these mailboxes."""

    async def acknowledged(self, mailbox: str, address: str, since: datetime) -> bool:
        """True if this sender has had one from this mailbox after that instant; in whatever case he is written."""

    async def acknowledged_count(self, since: datetime) -> int:
        """How many were accepted to be sent after that instant, by all mailboxes."""

    async def acknowledge(self, mid: str, mail: OutboxMail | None) -> bool:
        """It is owed no longer: the mail is in the outbox, in the same commit; or, without one, nobody is told. False,
        and nothing changes, if it was decided already."""

    async def acknowledgements_forget(self, before: datetime) -> int:
        """Forget what was decided before this instant; how many."""
