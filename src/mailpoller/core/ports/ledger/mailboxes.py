"""What is known of whole mailboxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from mailpoller.core.ports.records import Standing, Stuck


class Mailboxes(Protocol):
    """When they were polled, what waits in them, and that they are forgotten."""

    async def polled(self, polls: Mapping[str, datetime]) -> None:
        """Keep when mailboxes completed a poll last."""

    async def last_polls(self) -> Mapping[str, datetime]:
        """Mailbox -> when it completed a poll last, of those that did."""

    async def first_runs(self) -> Mapping[str, datetime]:
        """Mailbox -> when a folder of it was first opened."""

    async def stuck(self, before: datetime) -> Sequence[Stuck]:
        """The messages of all mailboxes that have waited since ``before`` or longer for something else than a queue,
        oldest first: those that were put off again and again, and those whose disposition is pending.
        At most 1,000 of each, and of the dispositions of one folder so many are looked at, those that are due first.
        Costs no more when many messages wait for a queue."""

    async def hasten(self, mailbox: str) -> int:
        """Dispositions of this mailbox that are pending are due now; their number."""

    async def mailboxes(self) -> Sequence[str]:
        """The names that the ledger has rows of."""

    async def forget(self, mailbox: str) -> int:
        """Drop everything about a mailbox: the number of messages forgotten."""

    async def counts(self, mailbox: str) -> Mapping[str, int]:
        """How many messages are ``claimed``, ``deferred``, ``settled``, ``undisposed``."""

    async def standings(self) -> Mapping[str, Standing]:
        """The same of every mailbox that has rows, at once: for a thousand of them it costs little more than for
        one."""

    async def oldest(self) -> Mapping[str, datetime]:
        """Mailbox -> since when the oldest of its messages without an outcome has been there: the server's date, or
        when it was claimed. Costs a look at each such message."""
