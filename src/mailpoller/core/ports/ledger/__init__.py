"""What the engine asks of a ledger: one port for each kind of question, and the ledger that answers all of them.

A part of the engine asks for the port that it needs, and no more.
"""

from __future__ import annotations

from typing import Protocol

from mailpoller.core.ports.ledger.acknowledgements import Acknowledgements
from mailpoller.core.ports.ledger.backlog import Backlog
from mailpoller.core.ports.ledger.bearers import Bearers
from mailpoller.core.ports.ledger.claims import Claims
from mailpoller.core.ports.ledger.folders import Folders
from mailpoller.core.ports.ledger.journal import Journal
from mailpoller.core.ports.ledger.mailboxes import Mailboxes
from mailpoller.core.ports.ledger.outbox import Outbox
from mailpoller.core.ports.ledger.queue_marks import QueueMarks
from mailpoller.core.ports.ledger.stories import Stories
from mailpoller.core.ports.ledger.threads import Threads
from mailpoller.core.ports.ledger.timekeeping import Timekeeping

__all__ = [
    "Acknowledgements",
    "Backlog",
    "Bearers",
    "Claims",
    "Folders",
    "Journal",
    "Ledger",
    "Mailboxes",
    "Outbox",
    "QueueMarks",
    "Stories",
    "Threads",
    "Timekeeping",
]


class Ledger(
    Claims,
    Folders,
    Bearers,
    Backlog,
    Mailboxes,
    QueueMarks,
    Journal,
    Stories,
    Threads,
    Outbox,
    Acknowledgements,
    Timekeeping,
    Protocol,
):
    """The durable record of claims, receipts and outcomes.

    Every method that changes something has committed before it returns, in one transaction, and raises
    :class:`LedgerUnavailable` when it could not: then nothing of it is known to be recorded. Cancelling a caller
    never tears a commit. All instants are aware UTC.
    """

    async def close(self) -> None: ...
