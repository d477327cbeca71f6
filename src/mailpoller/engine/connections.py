"""Who may have a session open: below the number of mailboxes they take turns, and those that only wait for news make
room."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Self

from mailpoller.core.ports import Clock
from mailpoller.engine.host_limits import HostLimits
from mailpoller.engine.turns import WEIGHTS, Weights

LEAST_WORK = timedelta(seconds=5)
"""A session works so long before it gives way: else mailboxes with backlogs would do nothing but log in and list."""


class Connections:
    """At most ``limit`` sessions at once, and ``per_host`` to one host, or what ``hosts`` say of each; 0 is no limit.
    Who comes to a host sooner than its logins allow waits for that, too.

    Who is longest overdue is next, each second counting by the mailbox's weight. Somebody who waits makes the session
    that has waited longest for news end, if there is one that would help. A session that is at work is never
    interrupted; one with a backlog gives way between two batches once somebody else is overdue by its own poll
    interval.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        limit: int = 0,
        per_host: int = 0,
        hosts: HostLimits | None = None,
        weights: Weights | None = None,
        least_work: timedelta = LEAST_WORK,
    ) -> None:
        self._clock = clock
        self._least_work = least_work.total_seconds()
        self._limit = limit
        self._hosts = hosts or HostLimits(clock, per_host)
        self._weights: Weights = {} if weights is None else weights
        self._places: set[ConnectionSlot] = set()
        self._on: Counter[str] = Counter()
        self._waiting: list[_Applicant] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """Places that are taken now."""
        return len(self._places)

    def by_host(self) -> dict[str, int]:
        """Places that are taken now, by host."""
        return {host: count for host, count in self._on.items() if count}

    @property
    def waiting(self) -> int:
        """How many mailboxes wait for a place."""
        return len(self._waiting)

    async def take(self, mailbox: str, host: str, due_at: float, interval: float = math.inf) -> ConnectionSlot:
        """Wait for a place, to be used as a context manager. ``due_at``: since when (monotonic seconds) the mailbox
        wants to be polled; ``interval``: how many seconds later a session at work gives way to it. Whoever is
        cancelled leaves no trace."""
        place = ConnectionSlot(self, host)
        applicant = _Applicant(place, due_at, due_at + interval, self._weights.get(mailbox, WEIGHTS["medium"]))
        self._waiting.append(applicant)
        self.balance()
        try:
            await applicant.granted
        except asyncio.CancelledError:
            if applicant in self._waiting:
                self._waiting.remove(applicant)
            else:
                self._free(place)
            raise
        return place

    def _free(self, place: ConnectionSlot) -> None:
        if place in self._places:
            self._places.discard(place)
            self._on[place.host] -= 1
            self.balance()

    # --- who is next -------------------------------------------------------------------------------------------
    def balance(self) -> None:
        """Give away what is free, and ask for what is not; to be called when limits have changed."""
        while self._waiting and (chosen := self._next()) is not None:
            self._waiting.remove(chosen)
            chosen.place.taken_at = self._clock.monotonic()
            self._places.add(chosen.place)
            self._on[chosen.place.host] += 1
            self._hosts.logged_in(chosen.place.host)
            if not chosen.granted.cancelled():
                chosen.granted.set_result(None)
        if self._waiting:
            self._ask()
            self._look_again()

    def _look_again(self) -> None:
        """When the first of those who come too early may log in."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waits = [wait for host in {one.place.host for one in self._waiting} if (wait := self._hosts.login_in(host))]
        if waits:
            self._timer = asyncio.get_running_loop().call_later(min(waits), self.balance)

    def _room(self, host: str) -> bool:
        return self._on[host] < self._hosts.connections(host)

    def _next(self) -> _Applicant | None:
        """The one that is longest overdue of those for whom there is a place."""
        if self._limit and len(self._places) >= self._limit:
            return None
        now = self._clock.monotonic()
        able = (one for one in self._waiting if self._room(one.place.host) and not self._hosts.login_in(one.place.host))
        return max(able, key=lambda one: one.urgency(now), default=None)

    def _ask(self) -> None:
        """Ask as many sessions that wait for news to end as there are mailboxes whom that helps.

        Sessions that were asked before, and have not ended yet, count as places that become free.
        """
        idle = sorted((place for place in self._places if place.may_yield), key=lambda place: place.idle_since)
        if not idle:
            return
        coming = Counter(place.host for place in self._places if place.yielding)
        free = self._limit - len(self._places) + coming.total() if self._limit else len(self._waiting)
        free_on = {host: self._hosts.connections(host) - count + coming[host] for host, count in self._on.items()}
        for applicant in self._waiting:
            host = applicant.place.host
            if self._hosts.login_in(host):
                continue  # a place alone would not help
            room_there = free_on.get(host, self._hosts.connections(host)) > 0
            if not room_there or free <= 0:
                candidates = idle if room_there else [place for place in idle if place.host == host]
                if not candidates:
                    continue
                chosen = candidates[0]
                idle.remove(chosen)
                chosen.ask()
                free += 1
                free_on[chosen.host] = free_on.get(chosen.host, 0) + 1
            free -= 1
            free_on[host] = free_on.get(host, self._hosts.connections(host)) - 1
            if not idle:
                return

    def _is_needed(self, place: ConnectionSlot) -> bool:
        """True if somebody has waited too long whom this place would help, and nobody else makes room for them."""
        now = self._clock.monotonic()
        if not self._waiting or now - place.taken_at < self._least_work:
            return False
        pressing = [
            one
            for one in self._waiting
            if one.presses_at < now
            and self._on[one.place.host] - (one.place.host == place.host) < self._hosts.connections(one.place.host)
            and not self._hosts.login_in(one.place.host)
        ]
        return len(pressing) > sum(other.yielding for other in self._places)


class ConnectionSlot:
    """The right to have one session open, until the end of the ``with`` block."""

    def __init__(self, connections: Connections, host: str) -> None:
        self.host = host
        self.taken_at = self.idle_since = 0.0
        self.yielding = False
        """Its session is about to end, because somebody else needs the place more."""
        self._connections = connections
        self._interrupt: Callable[[], None] | None = None

    @property
    def may_yield(self) -> bool:
        """True while its session only waits for news, and was not asked yet."""
        return self._interrupt is not None and not self.yielding

    def idle(self, interrupt: Callable[[], None]) -> None:
        """The session waits for news from now on. ``interrupt`` is called, perhaps at once, when somebody needs the
        place more: end the wait, then :meth:`busy` or the end of the block."""
        self._interrupt = interrupt
        self.idle_since = self._connections._clock.monotonic()
        if self._connections._waiting:
            self._connections._ask()

    def busy(self) -> None:
        """The session is at work again; if it was asked to yield, somebody else is asked instead."""
        asked, self.yielding, self._interrupt = self.yielding, False, None
        if asked and self._connections._waiting:
            self._connections._ask()

    def gives_way(self) -> bool:
        """Asked between two batches: must the session end, for the sake of somebody who has waited too long?"""
        self.yielding = self.yielding or self._connections._is_needed(self)
        return self.yielding

    def ask(self) -> None:
        """Ask the session to make room."""
        self.yielding = True
        assert self._interrupt is not None
        self._interrupt()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.yielding, self._interrupt = False, None
        self._connections._free(self)


@dataclass(eq=False, slots=True)
class _Applicant:
    """A mailbox that waits for a place."""

    place: ConnectionSlot
    due_at: float
    presses_at: float
    """From when on (monotonic seconds) a session at work gives way."""
    weight: int
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def urgency(self, now: float) -> tuple[float, int]:
        """Seconds overdue, times weight; then the weight itself, so that it counts when all begin at once."""
        return max(0.0, now - self.due_at) * self.weight, self.weight
