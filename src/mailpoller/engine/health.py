"""How the mailboxes fare: the age of the last completed poll, never the state of a socket."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from mailpoller.core.delivery import Outcome
from mailpoller.core.ports import Clock, Stuck
from mailpoller.engine.histogram import Histogram
from mailpoller.engine.rule_costs import RuleCosts

LATENCIES = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)
"""Seconds from the server's date of a message to the commit that a queue holds it: the bounds that are counted."""

_WORDS = ("up", "starting", "retrying", "behind", "refused", "held", "paused", "not polled")
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
    PAUSED = "paused"
    NOT_POLLED = "not polled"


@dataclass(slots=True)
class MailboxHealth:
    """One mailbox as ``status`` shows it. ``failing``: folder -> why, of those that cannot be polled while others can.

    ``last_poll_at``: of this process or an earlier one. ``awaited_since``: since when a first poll is awaited;
    nothing that a failing mailbox does moves either. ``rebuilt``: when its watcher was built anew, of the last times.
    ``questioned``: names whose bearer could not be told, and since when.
    """

    name: str
    poll_interval: timedelta
    condition: Condition = Condition.STARTING
    reason: str = ""
    since: datetime | None = None
    awaited_since: datetime | None = None
    last_poll_at: datetime | None = None
    next_try_at: datetime | None = None
    settled: int = 0
    quarantined: int = 0
    deferred: int = 0
    failing: dict[str, str] = field(default_factory=dict)
    rebuilt: deque[datetime] = field(default_factory=lambda: deque(maxlen=100))
    questioned: dict[str, list[Stuck]] = field(default_factory=dict)
    """By folder."""
    polls: int = 0
    sessions: int = 0
    """Polls that were completed, and sessions that were opened, since the start."""
    size: int = 0
    """Octets of what was settled."""
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    """By kind of alarm, how often the mailbox waited out a failure."""
    costs: RuleCosts | None = None
    """What the rules of it cost."""
    listed: int = 0
    """Messages that the present listing shows and that are not settled yet, as far as it says how many it has."""

    unfetched: dict[str, int] = field(default_factory=dict)
    """By folder, what waits on the server while every queue is down, and the ledger does not know yet."""
    unfetched_since: datetime | None = None
    """Since when there is any of it, as far as we have seen."""

    def waiting(self, known: int) -> int:
        """How much waits on the server, if the ledger knows of ``known`` messages that do."""
        return max(self.listed, known + sum(self.unfetched.values()))

    def behind(self, now: datetime) -> bool:
        """True if no poll was completed for two intervals and a minute, or a folder is left out of them."""
        if self.condition in (Condition.NOT_POLLED, Condition.PAUSED):
            return False
        if self.failing:
            return True
        return self.waited(now) > 2 * self.poll_interval + timedelta(minutes=1)

    def critical(self, now: datetime) -> bool:
        """True if it is refused, held or behind: a human should look."""
        return self.condition in (Condition.REFUSED, Condition.HELD) or self.behind(now)

    def state(self, now: datetime) -> str:
        """How it is in one word, the same everywhere: ``up``, ``starting`` (no poll yet), ``retrying``, ``behind``,
        ``refused``, ``held``, ``paused``, ``not polled``."""
        if self.condition in (Condition.REFUSED, Condition.HELD, Condition.PAUSED, Condition.NOT_POLLED):
            return str(self.condition.value)
        if self.behind(now):
            return "behind"
        if self.condition is Condition.RETRYING:
            return "retrying"
        return "up" if self.last_poll_at else "starting"

    def waited(self, now: datetime) -> timedelta:
        """How long no poll was completed."""
        reference = self.last_poll_at or self.awaited_since
        return timedelta(0) if reference is None else now - reference


class Health:
    """Every mailbox's health in one place, for status lines, the watchdog and ``mailpoller status``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started_at = clock.now()
        self.mailboxes: dict[str, MailboxHealth] = {}
        self.latencies: dict[str, Histogram] = {}
        """By queue."""
        self.notice = ""
        """What the status line says beside the mailboxes."""
        self._recalled: dict[str, tuple[datetime | None, datetime | None]] = {}

    def recall(self, last_polls: Mapping[str, datetime], first_runs: Mapping[str, datetime]) -> None:
        """What earlier processes saw: a restart completes no poll. An instant that lies ahead, because a clock did,
        counts as now."""
        now = self._clock.now()
        for name in {*last_polls, *first_runs}:
            polled, begun = last_polls.get(name), first_runs.get(name)
            self._recalled[name] = (polled and min(polled, now), begun and min(begun, now))
        for health in self.mailboxes.values():
            self._remember(health)

    def _remember(self, health: MailboxHealth) -> None:
        polled, begun = self._recalled.get(health.name, (None, None))
        health.last_poll_at = health.last_poll_at or polled
        if begun is not None and (health.awaited_since is None or begun < health.awaited_since):
            health.awaited_since = begun

    def register(self, name: str, poll_interval: timedelta) -> MailboxHealth:
        """Begin to keep track of a mailbox."""
        now = self._clock.now()
        health = MailboxHealth(name, poll_interval, since=now, awaited_since=now)
        self._remember(health)
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
        health = self.mailboxes[name]
        health.last_poll_at = self._clock.now()
        health.polls += 1
        health.listed = 0
        self._recalled[name] = (health.last_poll_at, None)

    def unfetched(self, name: str, folder: str, count: int) -> None:
        """What was counted of a folder whose queues are all down; 0 if nothing waits for that."""
        health = self.mailboxes[name]
        if count:
            health.unfetched[folder] = count
            health.unfetched_since = health.unfetched_since or self._clock.now()
        elif health.unfetched.pop(folder, 0) and not health.unfetched:
            health.unfetched_since = None

    def settled(self, name: str, outcome: Outcome) -> None:
        """An outcome of a mailbox was committed."""
        health = self.mailboxes[name]
        health.settled += 1
        health.outcomes[outcome.kind] += 1
        health.size += outcome.size or 0
        if health.listed:
            health.listed -= 1
        if outcome.kind == "quarantined":
            health.quarantined += 1
        if outcome.received is None or not outcome.receipts:
            return
        seconds = (self._clock.now() - outcome.received).total_seconds()
        for queue in outcome.receipts:
            if (found := self.latencies.get(queue)) is None:
                found = self.latencies[queue] = Histogram(LATENCIES)
            found.add(seconds)

    def rebuilt(self, name: str) -> None:
        """A mailbox's watcher got nowhere, or raised, and is built anew."""
        self.mailboxes[name].rebuilt.append(self._clock.now())

    def line(self) -> str:
        """One line for ``systemctl status``: mailboxes up, starting (no poll yet), retrying, behind, refused, held,
        paused, not polled."""
        now = self._clock.now()
        words: Counter[str] = Counter()
        for health in self.mailboxes.values():
            words[health.state(now)] += 1
        polled = len(self.mailboxes)
        parts = [f"{words[word]} {word}" for word in _WORDS if words[word]]
        settled = sum(health.settled for health in self.mailboxes.values())
        mailboxes = "1 mailbox" if polled == 1 else f"{polled} mailboxes"
        messages = "1 message" if settled == 1 else f"{settled} messages"
        return f"{mailboxes}: {', '.join(parts) or 'none'}; {messages} settled since the start" + (
            f"; {self.notice}" if self.notice else ""
        )

    def report(self) -> list[dict[str, Any]]:
        """Every mailbox as plain data, instants in ISO 8601."""
        now = self._clock.now()
        return [
            {
                "mailbox": health.name,
                "state": health.state(now),
                "condition": health.condition.value,
                "reason": health.reason
                or "; ".join(f"{name}: {why}" for name, why in health.failing.items())
                or _slow(health),
                "since": _iso(health.since),
                "last_poll_at": _iso(health.last_poll_at),
                "next_try_at": _iso(health.next_try_at),
                "behind": health.behind(now),
                "rebuilt": len(health.rebuilt),
                "settled": health.settled,
                "quarantined": health.quarantined,
                "deferred": health.deferred,
                "unfetched": sum(health.unfetched.values()),
                "failing_folders": dict(health.failing),
                "rules": _rules(health),
            }
            for health in self.mailboxes.values()
        ]


def _slow(health: MailboxHealth) -> str:
    return "" if health.costs is None else health.costs.slowest()


def _rules(health: MailboxHealth) -> list[dict[str, Any]]:
    """What each rule costs, the dearest first."""
    costs = health.costs.costs.items() if health.costs is not None else ()
    return [
        {
            "rule": name,
            "timed": cost.timed,
            "mean_us": round(cost.mean * 1_000_000, 1),
            "worst_us": round(cost.worst * 1_000_000, 1),
        }
        for name, cost in sorted(costs, key=lambda item: -item[1].mean)
    ]


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat(timespec="seconds")
