"""How late it is, as far as a service may believe its clock."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from mailpoller.core.record import record


@record
class Belief:
    """What was believed last: the instant, and for how long of its running time a service has seen a clock that was
    far ahead of that."""

    at: datetime
    doubted: timedelta


class Timekeeping(Protocol):
    """A witness of time, over restarts."""

    async def belief(self) -> Belief | None:
        """What was believed last. One that never was told has the last completed poll for it, if there is one."""

    async def believe(self, belief: Belief) -> None:
        """Keep what is believed now."""
