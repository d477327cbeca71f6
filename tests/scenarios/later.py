"""The real command at another time: its clock tells so many seconds more than the machine's, which is how days pass
in a test.

``python -m scenarios.later ARGUMENTS…`` runs ``mailpoller ARGUMENTS…``. The seconds stand in the file that the
environment names; it is read at every look at the clock, so that time may also leap under a running process. Only the
calendar leaps: what is waited for is waited for, but folders are selected anew every other second.
"""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import timedelta
from pathlib import Path

FILE = "MAILPOLLER_TESTS_LATER"


def leap() -> None:
    """Let the clock tell what the file says. Without a file it tells the truth."""
    from mailpoller.engine.clock import SystemClock
    from mailpoller.sources.imap import session

    true = SystemClock.now
    path, told = Path(os.environ.get(FILE, "/nonexistent")), [0.0]

    def now(self: SystemClock):  # type: ignore[no-untyped-def]
        with contextlib.suppress(OSError):  # where no file can be opened it is as late as it was
            told[0] = float(path.read_text() or 0) if path.exists() else 0.0
        return true(self) + timedelta(seconds=told[0])

    SystemClock.now = now  # type: ignore[method-assign]
    session.RESELECT = 2.0


def main() -> None:
    leap()
    sys.argv[0] = "mailpoller"
    from mailpoller.cli import main as mailpoller

    mailpoller()


if __name__ == "__main__":
    main()
