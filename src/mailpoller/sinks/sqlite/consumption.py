"""Whether anybody takes from a queue, as far as its rows tell."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

from mailpoller.core.ports import Clock, Depth

_LOOKED_AT = 1000
"""Messages at the front of the queue that are looked at: takers begin there."""

_EVIDENCE = """
SELECT (SELECT arrived_at FROM message WHERE taken_until <= ?1 ORDER BY seq LIMIT 1),
    (SELECT acknowledged_at FROM acknowledged ORDER BY seq DESC LIMIT 1),
    (SELECT max(taken_until) FROM (SELECT taken_until FROM message ORDER BY priority DESC, seq LIMIT ?2))
"""

_DEPTH = """
SELECT count(*) FILTER (WHERE taken_until <= ?1), count(*) FILTER (WHERE taken_until > ?1),
    (SELECT arrived_at FROM message ORDER BY seq LIMIT 1) FROM message
"""


def depth(connection: sqlite3.Connection, now: datetime) -> Depth:
    """What the queue holds. Walks through an index of it."""
    ready, taken, oldest = connection.execute(_DEPTH, (now.timestamp(),)).fetchone()
    return Depth(ready, taken, None if oldest is None else datetime.fromtimestamp(oldest, UTC))


class Consumption:
    """Since when nobody has taken from one queue. ``patience``: how long that may last while messages wait."""

    def __init__(self, patience: timedelta, clock: Clock) -> None:
        self._patience = patience
        self._clock = clock
        self._watched_since = float("inf")

    def untaken(self, connection: sqlite3.Connection) -> str | None:
        """In words, if it has lasted too long; else None.

        Nobody takes if a message waits, none is taken now, and the last acknowledgement and the last lease ended long
        ago. What bears an instant that is yet to come was written while the clock was ahead: then the time counts
        from our first look.
        """
        now = self._clock.now().timestamp()
        self._watched_since = min(self._watched_since, now)
        arrived_at, acknowledged_at, taken_until = connection.execute(_EVIDENCE, (now, _LOOKED_AT)).fetchone()
        if arrived_at is None or (taken_until or 0) > now:
            return None
        since = max(
            self._watched_since if instant > now else float(instant)
            for instant in (arrived_at, acknowledged_at or 0, taken_until or 0)
        )
        if now - since < self._patience.total_seconds():
            return None
        return (
            f"messages wait in it, and nobody has taken any since "
            f"{datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC"
        )
