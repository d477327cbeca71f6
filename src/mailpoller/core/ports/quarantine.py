"""The port of the quarantine: what holds mail for people, beside taking it as any sink does."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from mailpoller.core.ports.sink import Sink
from mailpoller.core.quarantined import Quarantined, Selection
from mailpoller.core.spool import Octets


class QuarantineStore(Sink, Protocol):
    """Holds what was quarantined until somebody decides. Every method that changes something is durable when it
    returns; all raise :class:`~mailpoller.core.errors.TransientError` for the disk's sake."""

    @property
    def news(self) -> asyncio.Event:
        """Set whenever a notice became owed."""

    def limit(self, keep: timedelta, max_size: int) -> None:
        """From now on it keeps mail so long, and so many octets of it."""

    async def owed(self, now: datetime, *, but: Collection[str], limit: int) -> Sequence[Quarantined]:
        """At most ``limit`` messages whose notice is owed and due, the longest held first, none of the mailboxes
        ``but``."""

    async def notified(self, words: Mapping[str, str]) -> None:
        """The notices of these delivery ids are owed no more: each was taken, or (with words) never will be."""

    async def put_off(self, delivery_ids: Collection[str], until: datetime, trouble: str, *, counted: bool) -> None:
        """These notices are tried again at ``until``; ``counted``: it was tried, and the message is to blame."""

    async def find(self, selection: Selection, *, limit: int) -> Sequence[Quarantined]:
        """At most ``limit`` messages that are meant, the longest held first."""

    async def octets(self, held: Quarantined) -> Octets:
        """The octets, compared with their digest; whoever has them closes them.

        Raises :class:`~mailpoller.core.errors.MessageGone` if it is not held any more, and
        :class:`~mailpoller.core.errors.MailpollerError` if what lies there is not what was held.
        """

    async def remove(self, delivery_ids: Collection[str]) -> int:
        """Let these go, for good; how many were there."""
