"""By when a watcher has to get somewhere, and what counts as that."""

from __future__ import annotations

from datetime import timedelta

from mailpoller.core.ports import Clock, Progressing, Session

LEAST = 1000
"""Octets a second that are progress."""
WINDOW = timedelta(minutes=1)
"""They are counted over so long."""


class Deadline:
    """When the supervisor may think that a watcher is stuck: ``at``, in monotonic seconds; infinite while it may not.

    Every step that gets somewhere moves it by ``budget``.
    """

    def __init__(self, clock: Clock, budget: timedelta) -> None:
        self.at = float("inf")
        self._clock = clock
        self._budget = budget.total_seconds()
        self._counted: Progressing | None = None
        """The session, if it counts octets."""
        self._mark: tuple[float, int] | None = None
        """When it had how many."""

    def progressed(self) -> None:
        """A step got somewhere."""
        self.at = self._clock.monotonic() + self._budget

    def after(self, seconds: float) -> None:
        """For so long nothing has to get anywhere."""
        self.at = self._clock.monotonic() + seconds + self._budget

    def within(self, time: timedelta) -> None:
        """What is under way has to end within this time, whatever the budget."""
        self.at = self._clock.monotonic() + time.total_seconds()

    def lift(self) -> None:
        """Nothing has to get anywhere."""
        self.at = float("inf")

    def count(self, session: Session | None) -> None:
        """The octets of this session are progress from now on, if it counts them."""
        self._counted = session if isinstance(session, Progressing) else None
        self._mark = None

    def pulse(self) -> None:
        """Called by the supervisor at every look: octets that come at :data:`LEAST` a second put the deadline off."""
        if self._counted is None or self.at == float("inf"):
            return
        now, octets = self._clock.monotonic(), self._counted.octets_in
        at, seen = self._mark or (now, octets)
        if octets > seen and octets - seen >= LEAST * (now - at):
            self.at = max(self.at, now + self._budget)
        elif self._mark is not None and octets >= seen and now - at < WINDOW.total_seconds():
            return
        self._mark = now, octets
