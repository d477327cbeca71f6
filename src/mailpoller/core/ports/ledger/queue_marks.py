"""What is known of queues, so that one that vanished is not begun anew in silence."""

from __future__ import annotations

from typing import Protocol

from mailpoller.core.ports.records import QueueRecord
from mailpoller.core.ports.sink import Mark


class QueueMarks(Protocol):
    """A mark for each queue that receipts came from, and what is owed to it."""

    async def owed(self, name: str) -> int:
        """How many messages wait for the queue of this name."""

    async def queue_mark(self, name: str) -> QueueRecord | None:
        """What is known of the queue of this name; None if no receipt of it was noted, or it was adopted since."""

    async def note_queue(self, name: str, mark: Mark, receipts: int) -> None:
        """Note the queue's mark, and ``receipts`` more of them now. Another identity than the one that is known
        begins anew."""

    async def adopt_queue(self, name: str) -> QueueRecord | None:
        """Forget what is known of the queue of this name, so that what lies in its place is taken for it: what was
        known."""
