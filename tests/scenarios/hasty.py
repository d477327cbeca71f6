"""The real command, in a hurry: alarms are told after a hundredth of the time, refused logins are tried again soon, and
what is missing is looked for soon, what hangs is given up soon.

``python -m scenarios.hasty ARGUMENTS…`` runs ``mailpoller ARGUMENTS…``.
"""

from __future__ import annotations

import functools
import sys
from datetime import timedelta


def hurry() -> None:
    """Shorten what the engine waits before it bothers a human."""
    from mailpoller import app
    from mailpoller.engine import alarm, availability, deferral, fetcher, handover, lifeline, setbacks, upkeep
    from mailpoller.storage import thread

    app.Policy = functools.partial(  # type: ignore[assignment,misc]
        alarm.Policy,
        window=timedelta(milliseconds=100),
        quiet=timedelta(milliseconds=500),
        steady=timedelta(milliseconds=300),
        patience=0.01,
    )
    alarm._TICK_S = 0.1
    setbacks.CREDENTIALS_RETRY = timedelta(milliseconds=300)
    setbacks.LOOK_AGAIN = timedelta(milliseconds=300)
    deferral._FIRST_DEFERRAL = timedelta(seconds=1)
    fetcher.BESIDE_AGAIN = timedelta(seconds=1)
    handover.DELIVER_DEADLINE = upkeep.UPKEEP_DEADLINE = timedelta(seconds=2)
    availability.CHECK_DEADLINE = timedelta(seconds=2)
    lifeline.PAUSE, lifeline.HUNG = timedelta(seconds=2), timedelta(seconds=7)  # a lock is waited for five seconds
    thread.SEEN_OUT_S = 1.0


def main() -> None:
    hurry()
    sys.argv[0] = "mailpoller"
    from mailpoller.cli import main as mailpoller

    mailpoller()


if __name__ == "__main__":
    main()
