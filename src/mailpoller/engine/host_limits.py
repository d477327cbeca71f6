"""What each host is asked for at most, by all mailboxes that are there together."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from mailpoller.core.host_limit import HostLimit
from mailpoller.core.pacing import Pacer
from mailpoller.core.ports import Clock

MINUTE = 60.0
AT_ONCE_S = 10
"""Logins come in bursts of what is allowed within so many seconds: a start does not use up a minute at once."""
_REMEMBERED = 10_000


class HostLimits:
    """The limits of every host, and what was used of them.

    ``usual``: connections to a host of which nothing else is said. Limits may change at any time.
    """

    def __init__(self, clock: Clock, usual: int = 0) -> None:
        self._clock = clock
        self._usual = usual
        self._limits: Mapping[str, HostLimit] = {}
        self._logins: dict[str, Pacer] = {}
        self._lately: dict[str, deque[float]] = {}
        self._pacers: dict[str, Pacer] = {}

    def set(self, limits: Mapping[str, HostLimit]) -> None:
        """These, by host in small letters, and none but the usual one elsewhere."""
        self._limits = dict(limits)
        for host, logins in self._logins.items():
            self._restrain(host, logins)
        for host, pacer in self._pacers.items():
            commands = self._limits.get(host, HostLimit()).commands
            pacer.limit(commands, commands)

    def connections(self, host: str) -> float:
        """Sessions that there may be at once."""
        found = self._limits.get(host)
        return (self._usual if found is None else found.connections) or math.inf

    def login_in(self, host: str) -> float:
        """Seconds until somebody may log in there."""
        found = self._logins.get(host)
        return 0.0 if found is None else found.left(self._clock.monotonic())

    def logged_in(self, host: str) -> None:
        """Somebody begins to log in there."""
        if (found := self._logins.get(host)) is None:
            found = self._logins[host] = Pacer()
            self._restrain(host, found)
        now = self._clock.monotonic()
        found.take(now)
        self._lately.setdefault(host, deque(maxlen=_REMEMBERED)).append(now)

    def pacer(self, host: str) -> Pacer:
        """What sessions at this host ask before they say anything; the same for all, as long as they last."""
        if (found := self._pacers.get(host)) is None:
            commands = self._limits.get(host, HostLimit()).commands
            found = self._pacers[host] = Pacer(commands, commands)
        return found

    def report(self, sessions: Mapping[str, int]) -> list[dict[str, Any]]:
        """Every host that is limited and in use, as plain data; limits of 0 are none. ``sessions``: by host."""
        return [self._told(host, sessions.get(host, 0)) for host in sorted(self._lately) if self._limited(host)]

    def _limited(self, host: str) -> bool:
        return host in self._limits or math.isfinite(self.connections(host))

    def _told(self, host: str, sessions: int) -> dict[str, Any]:
        limit, most, pacer = self._limits.get(host, HostLimit()), self.connections(host), self.pacer(host)
        since = self._clock.monotonic() - MINUTE
        return {
            "host": host,
            "sessions": sessions,
            "sessions_limit": int(most) if math.isfinite(most) else 0,
            "logins_last_minute": sum(at > since for at in self._lately[host]),
            "logins_limit": limit.logins,
            "commands": pacer.taken,
            "commands_limit": limit.commands,
            "commands_waited_s": round(pacer.waited, 1),
        }

    def _restrain(self, host: str, logins: Pacer) -> None:
        allowed = self._limits.get(host, HostLimit()).logins
        logins.limit(allowed / MINUTE, int(allowed * AT_ONCE_S / MINUTE))
