"""When a pass has to end before it is through."""

from __future__ import annotations

from collections.abc import Callable

from mailpoller.engine.batcher import Stop
from mailpoller.engine.connections import ConnectionSlot


class Patience:
    """When the batch runner has to end a pass, between two batches: the service stops, or somebody else needs the
    connection, or an operator pauses the mailbox."""

    def __init__(self, stop: Stop, paused: Callable[[], str] = str) -> None:
        self.place: ConnectionSlot | None = None
        """The connection that others may need; None: it need not be shared."""
        self.gained = False
        """Something was settled since we have it. Who gave way before that would only list the same again, for
        ever."""
        self._stop = stop
        self._paused = paused

    def begin(self, place: ConnectionSlot) -> None:
        """A session begins on this connection."""
        self.place, self.gained = place, False

    def is_set(self) -> bool:
        """True if it is at its end."""
        if self._stop.is_set() or self._paused():
            return True
        return self.place is not None and self.gained and self.place.gives_way()
