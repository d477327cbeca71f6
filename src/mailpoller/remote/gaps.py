"""Listings of a service that contradict what it announces: what they show is taken, and how far they got is believed
only when several sessions met the same."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from mailpoller.core.message import Folder
from mailpoller.core.record import record

log = structlog.get_logger(__name__)

CONFIRMED = 3
"""So many sessions must meet a gap before it is passed over."""

ASKED_AGAIN = timedelta(days=1)
"""So long after a gap was passed over, everything is listed anew, to see whether it is still there."""


@record
class Passed:
    """Entries that were passed over: how many they are, and when they were met last (aware). Kept with the position."""

    count: int
    at: datetime

    @classmethod
    def read(cls, text: object) -> Passed | None:
        """The inverse of :meth:`write`; None for what is not ours."""
        count, mark, at = text.partition("@") if isinstance(text, str) else ("", "", "")
        try:
            found = cls(int(count), datetime.fromisoformat(at)) if mark else None
        except ValueError:
            return None
        return found if found is not None and found.at.tzinfo is not None else None

    def write(self) -> str:
        """``2@2026-01-01T00:00:00+00:00``."""
        return f"{self.count}@{self.at.isoformat(timespec='seconds')}"

    def is_due(self, now: datetime) -> bool:
        """Whether it is time to ask again. A clock that was ahead once does not put that off."""
        return not timedelta(0) <= now - self.at < ASKED_AGAIN


def without_id(count: int) -> str:
    """What is told of entries that cannot be read."""
    return f"{count} messages of the listing have no id that could be one"


def words_of(passed: Passed | None) -> str:
    """What :attr:`mailpoller.core.message.Page.gap` says."""
    return "" if passed is None else without_id(passed.count)


class Gaps:
    """The gaps that one session met in one folder. How many sessions did so before is kept with the position, as
    ``before``."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._met = 0
        self._told: set[str] = set()

    def met(self, before: int) -> int:
        """How many sessions have met it now. A session counts once, however often it lists."""
        self._met = max(self._met or before + 1, before)
        return self._met

    def passed(self) -> None:
        """The place was passed over: what is met from now on is another gap."""
        self._met = 0

    def tell(self, reason: str, listed: int, *, passed: bool = False) -> None:
        """Warn, once for each reason. ``passed``: the position goes on all the same."""
        if passed or reason not in self._told:
            self._told.add(reason)
            log.warning(
                "listing.incomplete", mailbox=self._folder.mailbox, folder=self._folder.name, reason=reason,
                listed=listed,
                passed=passed,
            )  # fmt: skip
