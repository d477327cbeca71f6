"""Alarms that stand, the faults that operators ask for, what they did, and what they paused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from mailpoller.core.ports.records import AlarmEdge, Change, Fault, Pause


class Journal(Protocol):
    """Alarms by key, faults by subject; what changed, and what is paused."""

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

    async def record(self, event: str, who: str, detail: str) -> None:
        """Keep a change for ``mailpoller changes``: the last 10,000. Alarms that are raised and cleared are kept
        there by themselves."""

    async def changes(self, since: datetime, *, limit: int = 1000) -> Sequence[Change]:
        """Newest first."""

    async def pause(self, what: str, who: str) -> bool:
        """Keep that ``what`` (``mailbox NAME``, ``queue NAME``, ``host NAME`` or ``all``) is paused; True if it was
        not."""

    async def resume(self, what: str) -> bool:
        """True if it was paused."""

    async def pauses(self) -> Mapping[str, Pause]:
        """All that is paused."""

    async def configured(self, blocks: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
        """Keep what the configuration is now: block -> key -> a sum of its value. What it was when this was called
        last; nothing if it never was."""
