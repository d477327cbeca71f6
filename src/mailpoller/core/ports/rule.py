"""What the engine asks of a rule."""

from __future__ import annotations

from typing import Protocol

from mailpoller.core.message import Message
from mailpoller.core.verdict import Match


class Rule(Protocol):
    """What judges a message."""

    name: str

    def judge(self, message: Message) -> Match | None:
        """None if the rule has nothing to say. Takes bounded time on any message; an exception is a bug."""
