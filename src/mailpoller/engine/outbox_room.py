"""How much waits to be sent, and by whom: so that one identity's dead relay takes no room from the others."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

from mailpoller.core.ports import OutboxBacklog


class OutboxRoom:
    """Octets that wait to be sent, by identity. One for all who add to them and take from them, in any thread.

    Where several identities share the room, what waits by one is at most as much as is left free beside it: one whose
    relay is dead has half of it at most, two have a third each, and there is always some left for the next. An identity
    by which nothing waits may have any mail for which there is room.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}
        self._under_way: dict[str, tuple[str, int]] = {}
        self._lock = Lock()

    @property
    def octets(self) -> int:
        """All that waits or is being accepted."""
        with self._lock:
            return self._sum()

    def count(self, backlog: Mapping[str, OutboxBacklog]) -> None:
        """What waits according to the ledger."""
        with self._lock:
            self._waiting = {name: one.octets for name, one in backlog.items()}

    def take(self, id: str, identity: str, size: int, most: int, *, shared: bool) -> str:
        """Room for a mail of so many octets; or why there is none, in words. ``shared``: there are other identities."""
        with self._lock:
            own, used = self._own(identity), self._sum()
            shared = shared or used > own
            if used + size > most:
                return f"the outbox is full: {used} octets wait already (outbox.max_size)"
            if shared and own and used + own + 2 * size > most:
                return (
                    f"{identity} has no more room in the outbox: {own} octets wait by it already, "
                    "and the rest is the others' (outbox.max_size)"
                )
            self._under_way[id] = identity, size
            return ""

    def recorded(self, id: str) -> None:
        """The mail that took the room waits to be sent."""
        with self._lock:
            identity, size = self._under_way.pop(id)
            self._waiting[identity] = self._waiting.get(identity, 0) + size

    def give_back(self, id: str) -> None:
        """The mail that took the room is none. Harmless when repeated."""
        with self._lock:
            self._under_way.pop(id, None)

    def sent(self, identity: str, size: int) -> None:
        """A mail waits no longer."""
        with self._lock:
            self._waiting[identity] = max(0, self._waiting.get(identity, 0) - size)

    def _own(self, identity: str) -> int:
        under_way = sum(size for name, size in self._under_way.values() if name == identity)
        return self._waiting.get(identity, 0) + under_way

    def _sum(self) -> int:
        return sum(self._waiting.values()) + sum(size for _, size in self._under_way.values())
