"""What a peer may say that nobody asked it for: much at once, and little for long."""

from __future__ import annotations

PIECE = 100
"""What one response costs beside its octets, in octets: as much as it takes to hold, or to look at, an empty one."""
AT_ONCE = 16 << 20
"""Some 140,000 short responses: what another client does to a large folder in one go is told like that."""
EARLY = 64 << 10
"""The same before the login."""
A_SECOND = 16 << 10
"""What is given back each second: 140 short responses."""


class Allowance:
    """The budget of one connection for what nobody asked for, in octets and in responses together.

    It holds :data:`EARLY` until :meth:`widen`, which the login calls, and :data:`AT_ONCE` from then on.
    """

    __slots__ = ("_at", "_left", "_most")

    def __init__(self, now: float) -> None:
        self._most = self._left = float(EARLY)
        self._at = now

    def widen(self) -> None:
        """We are logged in: it is our server."""
        self._most = self._left = float(AT_ONCE)

    def spend(self, octets: int, now: float) -> bool:
        """A response of so many octets came, at ``now`` on the loop's clock. False: that is more than may be."""
        self._left -= octets + PIECE
        if self._left >= 0:
            return True
        self._left = min(self._most, self._left + (now - self._at) * A_SECOND)
        self._at = now
        return self._left >= 0
