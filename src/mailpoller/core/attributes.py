"""What is said of a message beside what it says itself."""

from __future__ import annotations

from typing import Literal

from mailpoller.core.record import record

Priority = Literal["low", "normal", "high"]


@record
class Attributes:
    """The words of whoever judged a message, for whoever takes it from a queue.

    ``topic``, ``priority`` and ``tags`` are the rules'. ``reason`` and ``detail`` say why a message is quarantined,
    and are empty otherwise. Named here and nowhere else: a verdict bears them, a delivery carries them unread, and a
    new one is a field of this class and what its readers make of it.
    """

    topic: str = ""
    priority: Priority = "normal"
    tags: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""


NONE_SAID = Attributes()
"""Nobody said anything."""
