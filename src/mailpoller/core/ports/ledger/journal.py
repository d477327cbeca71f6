"""Alarms that stand, and the faults that operators ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mailpoller.core.ports.records import AlarmEdge, Fault


class Journal(Protocol):
    """Alarms by key, faults by subject."""

    async def raise_alarm(self, key: str, group: str, summary: str) -> bool:
        """True if this is the edge: the alarm was not raised before."""

    async def clear_alarm(self, key: str) -> AlarmEdge | None:
        """The alarm that ends, or None if there was none."""

    async def alarms(self) -> Sequence[AlarmEdge]:
        """Every alarm that is raised."""

    async def notified(self, keys: Sequence[str]) -> None:
        """The mail about these alarms has been sent."""

    async def note(self, faults: Sequence[Fault]) -> None:
        """Keep faults for ``mailpoller errors``: the last 1,000 of each subject."""

    async def faults(self, subject: str | None = None, *, limit: int = 1000) -> Sequence[Fault]:
        """Newest first."""

    async def clear_faults(self, subject: str | None = None) -> int: ...
