"""How the mailboxes fare: the age of the last completed poll, never the state of a socket."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from mailpoller.core.ports import Clock

_WORDS = ("up", "starting", "retrying", "behind", "refused", "held", "not polled")
"""Of a status line, in this order."""


class Condition(Enum):
    """What a mailbox's watcher is doing."""

    STARTING = "starting"
    QUEUING = "waiting for a connection"
    CONNECTING = "connecting"
    POLLING = "polling"
    WAITING = "waiting"
    RETRYING = "retrying"
    REFUSED = "refused"
    HELD = "held"
    NOT_POLLED = "not polled"


@dataclass(slots=True)
class MailboxHealth:
    """One mailbox as ``status`` shows it. ``failing``: folder -> why, of those that cannot be polled while others can."""

    name: str
    poll_interval: timedelta
    condition: Condition = Condition.STARTING
    reason: str = ""
    since: datetime | None = None
    last_poll_at: datetime | None = None
    next_try_at: datetime | None = None
    settled: int = 0
    quarantined: int = 0
    deferred: int = 0
    failing: dict[str, str] = field(default_factory=dict)

    def behind(self, now: datetime) -> bool:
        """True if no poll was completed for two intervals and a minute, or a folder is left out of them."""
        if self.condition is Condition.NOT_POLLED:
            return False
        if self.failing:
            return True
        reference = self.last_poll_at or self.since
        return reference is not None and now - reference > 2 * self.poll_interval + timedelta(minutes=1)


class Health:
    """Every mailbox's health in one place, for status lines, the watchdog and ``mailpoller status``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started_at = clock.now()
        self.mailboxes: dict[str, MailboxHealth] = {}

    def register(self, name: str, poll_interval: timedelta) -> MailboxHealth:
        """Begin to keep track of a mailbox."""
        health = MailboxHealth(name, poll_interval, since=self._clock.now())
        self.mailboxes[name] = health
        return health

    def enter(self, name: str, condition: Condition, reason: str = "", *, retry_in: float | None = None) -> None:
        """Note what a mailbox's watcher does now."""
        health = self.mailboxes[name]
        now = self._clock.now()
        if health.condition is not condition:
            health.since = now
        health.condition, health.reason = condition, reason
        health.next_try_at = None if retry_in is None else now + timedelta(seconds=retry_in)

    def polled(self, name: str) -> None:
        """A poll of every folder that can be polled was completed."""
        self.mailboxes[name].last_poll_at = self._clock.now()

    def line(self) -> str:
        """One line for ``systemctl status``: mailboxes up, starting (no poll yet), retrying, behind, refused, held, not polled."""
        now = self._clock.now()
        words: Counter[str] = Counter()
        for health in self.mailboxes.values():
            if health.condition in (Condition.REFUSED, Condition.HELD, Condition.NOT_POLLED):
                words[health.condition.value] += 1
            elif health.behind(now):
                words["behind"] += 1
            elif health.condition is Condition.RETRYING:
                words["retrying"] += 1
            else:
                words["up" if health.last_poll_at else "starting"] += 1
        polled = len(self.mailboxes)
        parts = [f"{words[word]} {word}" for word in _WORDS if words[word]]
        settled = sum(health.settled for health in self.mailboxes.values())
        mailboxes = "1 mailbox" if polled == 1 else f"{polled} mailboxes"
        messages = "1 message" if settled == 1 else f"{settled} messages"
        return f"{mailboxes}: {', '.join(parts) or 'none'}; {messages} settled since the start"

    def report(self) -> list[dict[str, Any]]:
        """Every mailbox as plain data, instants in ISO 8601."""
        now = self._clock.now()
        return [
            {
                "mailbox": health.name,
                "condition": health.condition.value,
                "reason": health.reason or "; ".join(f"{name}: {why}" for name, why in health.failing.items()),
                "since": _iso(health.since),
                "last_poll_at": _iso(health.last_poll_at),
                "next_try_at": _iso(health.next_try_at),
                "behind": health.behind(now),
                "settled": health.settled,
                "quarantined": health.quarantined,
                "deferred": health.deferred,
                "failing_folders": dict(health.failing),
            }
            for health in self.mailboxes.values()
        ]


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat(timespec="seconds")
