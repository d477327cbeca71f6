"""What is left of a mailbox that was to be drained."""

from __future__ import annotations

from mailpoller.core.record import record


@record
class Remainder:
    """What a drain left of a mailbox: why, in words, or nothing; messages that wait, and those whose disposition is
    not done."""

    trouble: str = ""
    waiting: int = 0
    undisposed: int = 0

    @property
    def nothing(self) -> bool:
        """True if all is done."""
        return not (self.trouble or self.waiting or self.undisposed)

    def __str__(self) -> str:
        parts = [self.trouble] if self.trouble and not (self.waiting or self.undisposed) else []
        parts += [f"{self.waiting} waiting"] if self.waiting else []
        parts += [f"{self.undisposed} to dispose of"] if self.undisposed else []
        return ", ".join(parts)
