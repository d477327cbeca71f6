"""The real command with plug-ins that crash while they hold secrets: a login, and a queue, each the first few times.

``python -m scenarios.clumsy ARGUMENTS…`` runs ``mailpoller ARGUMENTS…``.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from scenarios.hasty import hurry


def crash(owner: type, name: str, times: int) -> None:
    """Let a method fail with a bug of its own, its arguments in plain sight of whoever prints local variables."""
    method = getattr(owner, name)
    left = times

    @functools.wraps(method)
    async def clumsy(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal left
        everything_i_know = (vars(self) if hasattr(self, "__dict__") else {}, arguments, named)
        left -= 1
        if left >= 0:
            raise KeyError(f"a bug in {name}, with {len(everything_i_know)} things in hand")
        return await method(self, *arguments, **named)

    setattr(owner, name, clumsy)


def main() -> None:
    hurry()
    from mailpoller.sinks.sqlite.sink import SqliteQueue
    from mailpoller.sources.imap.source import ImapSource

    crash(ImapSource, "connect", 2)
    crash(SqliteQueue, "deliver", 1)
    sys.argv[0] = "mailpoller"
    from mailpoller.cli import main as mailpoller

    mailpoller()


if __name__ == "__main__":
    main()
