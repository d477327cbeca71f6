"""What a host is asked for at most."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostLimit:
    """``connections`` at once, ``logins`` a minute and ``commands`` a second; 0: any number."""

    connections: int = 0
    logins: int = 0
    commands: int = 0
