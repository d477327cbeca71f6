"""What an answer of a queue's server is worth in a power cut, and which of that a queue is configured to take."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from mailpoller.core.record import record

Finding = Literal["synced", "promised", "unknown", "volatile"]
"""``synced``: it answers when the write is on its disk; its setting was read. ``promised``: its setting cannot be read,
but that is its contract. ``unknown``: it does not let us see. ``volatile``: it answers before it syncs."""

DurabilityWord = Literal["strict", "declared", "warn"]
"""``strict`` takes *synced* and *promised*; ``declared`` also *unknown*; ``warn`` also *volatile*."""

LOOK_AGAIN = timedelta(hours=1)
"""How often a setting is read again while a connection lasts."""

_TAKEN: dict[Finding, tuple[DurabilityWord, ...]] = {
    "synced": ("strict", "declared", "warn"),
    "promised": ("strict", "declared", "warn"),
    "unknown": ("declared", "warn"),
    "volatile": ("warn",),
}


@record
class Durability:
    """What was found. ``setting``: what was read, or why it was not, in words. ``mend``: the command, at that server,
    that makes it *synced*."""

    finding: Finding
    setting: str
    mend: str = ""

    @staticmethod
    def promised(by: str) -> Durability:
        """It is the other side's contract. ``by``: whose word it is, in words."""
        return Durability("promised", f"{by} is the other side's word that it holds the message")

    def refusal(self, word: DurabilityWord) -> str:
        """Why a queue with this word does not take it, what mends it, and what accepts it; empty if it takes it."""
        if word in _TAKEN[self.finding]:
            return ""
        accepts = _TAKEN[self.finding][0]
        return f"{self.doubt()}; mend it with: {self.mend}; or accept it with: durability: {accepts}"

    def doubt(self) -> str:
        """What an operator should know of it, in words; empty if nothing."""
        if self.finding == "unknown":
            return f"nobody knows whether what it takes survives a power cut: {self.setting}"
        return f"what it takes may be lost in a power cut: {self.setting}" if self.finding == "volatile" else ""
