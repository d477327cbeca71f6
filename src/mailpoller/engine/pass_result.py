"""The count of a pass over a folder: messages by what has become of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(slots=True)
class PassResult:
    """What a pass over a folder came to: messages by what has become of them."""

    listed: int = 0
    settled: int = 0
    deferred: int = 0
    unfetched: int = 0
    """Those that could not be fetched, and were put off."""
    retry_at: datetime | None = None
    """When the first of those that wait for no queue is to be tried again."""
    exhausted: bool = False
    """The listing was worked through to its end."""
    again: bool = False
    """Questions were answered: what they kept from being worked on is there to be worked on at once."""

    partial: bool = False
    """A listing contradicted what the server announced: it completes nothing."""
    gap: str = ""
    """What the listing of the folder does not show, as several sessions have seen it, in words."""

    def put_off(self, count: int, until: datetime | None) -> None:
        """Count messages that were put off; ``until`` is None for those that wait for a queue."""
        self.deferred += count
        if until is not None:
            self.retry_at = until if self.retry_at is None else min(until, self.retry_at)

    def add(self, other: PassResult) -> None:
        """Count another pass's messages too."""
        self.listed += other.listed
        self.settled += other.settled
        self.unfetched += other.unfetched
        self.put_off(other.deferred, other.retry_at)
        self.exhausted = self.exhausted and other.exhausted
        self.again = self.again or other.again
        self.partial = self.partial or other.partial
