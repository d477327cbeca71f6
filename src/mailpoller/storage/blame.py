"""Whose trouble it is that a message was put off: the queue's, until others were taken and it alone fails again."""

from __future__ import annotations

from typing import Literal

_LIMIT = 50_000
"""Messages that are remembered; the oldest is forgotten, and is the queue's trouble once more."""


class Blame:
    """Counts what was taken between two tries of the same message. Bounded, and forgotten with the process."""

    def __init__(self) -> None:
        self._taken = 0
        self._before: dict[str, int] = {}

    def __contains__(self, delivery_id: str) -> bool:
        """True if it was put off when it was tried last."""
        return delivery_id in self._before

    def taken(self, delivery_id: str) -> None:
        """It was taken."""
        self._taken += 1
        self._before.pop(delivery_id, None)

    def settled(self, delivery_id: str) -> None:
        """It was refused for good: that is no longer anybody's trouble."""
        self._before.pop(delivery_id, None)

    def put_off(self, delivery_id: str) -> Literal["message", "queue"]:
        """It was put off: the message's trouble if others were taken since it was before, else the queue's. Once it is
        the message's it stays so until it is taken, also while no other mail comes."""
        before = self._before.pop(delivery_id, None)
        self._before[delivery_id] = self._taken if before is None else before
        if len(self._before) > _LIMIT:
            del self._before[next(iter(self._before))]
        return "message" if before is not None and self._taken > before else "queue"
