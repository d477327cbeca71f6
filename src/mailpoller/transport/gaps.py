"""Listings of a service that contradict what it announces: what they show is taken, and how far they got is believed only when
several sessions met the same."""

from __future__ import annotations

import structlog

from mailpoller.core.message import Folder

log = structlog.get_logger(__name__)

CONFIRMED = 3
"""So many sessions must meet a gap before it is passed over."""


class Gaps:
    """The gaps that one session met in one folder. How many sessions did so before is kept with the position, as ``before``."""

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
                "listing.incomplete", mailbox=self._folder.mailbox, folder=self._folder.name, reason=reason, listed=listed,
                passed=passed,
            )  # fmt: skip
