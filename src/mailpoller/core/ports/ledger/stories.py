"""What became of messages, for operators."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from mailpoller.core.message import MessageRef
from mailpoller.core.ports.records import Story


class Stories(Protocol):
    """A story is all that happened to one message, by its mid."""

    async def trace(self, term: str, *, limit: int = 50) -> Sequence[Story]:
        """The stories of messages whose mid, Message-ID, uid or sender is ``term``, newest first."""

    async def still_owed(self, mids: Collection[str]) -> Collection[str]:
        """Those of these messages that are known and not settled."""

    async def brought(self, mid: str, receipts: Mapping[str, str]) -> bool:
        """Add receipts of queues that a settled message was brought to afterwards, from quarantine; its outcome stays.
        False if it is unknown, or not settled."""

    async def erase_outbox(self, address: str, *, count_only: bool = False) -> tuple[int, int]:
        """Forget an address in mail that was handed in to be sent, as sender and as recipient. How many mails, and how
        many others there are that are to be sent yet, which are left alone. ``count_only``: change nothing."""

    async def reopen(self, mid: str) -> MessageRef:
        """Make a settled message due once more under a new generation; its outcome becomes a former one.
        Raises :class:`MessageGone` if it is unknown."""

    async def erase(self, mids: Sequence[str], address: str = "") -> tuple[int, int]:
        """Forget who sent these messages, their Message-IDs and conversations, and what was noted of them or with
        ``address`` in its words. Messages that are not settled are left alone. How many messages, and how many notes.
        """
