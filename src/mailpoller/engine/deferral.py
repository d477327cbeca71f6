"""What is put off: until when, and why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from mailpoller.core.delivery import (
    Cause,
)
from mailpoller.core.message import Claim
from mailpoller.core.ports import Traits
from mailpoller.core.record import record

_FIRST_DEFERRAL = timedelta(seconds=10)
_LONGEST_DEFERRAL = timedelta(hours=4)
LONGEST_WISH = timedelta(days=1)
"""Longer than this no peer's wish is heeded, and nothing waits in the ledger."""


@record
class Deferral:
    """A claim that is put off: arguments of ``Ledger.defer``."""

    claim: Claim
    until: datetime
    reason: str
    queue: str | None = None
    route: tuple[str, ...] | None = None
    receipts: Mapping[str, str] | None = None
    traits: Traits | None = None
    cause: Cause = ""


MACHINE_AGAIN = timedelta(minutes=1)
"""After so long what met this machine's own trouble is tried again, however often that was: nothing is counted by
which the wait could grow."""


def put_off(
    now: datetime, attempts: int, *, retry_after: timedelta | None = None, at_most: timedelta = _LONGEST_DEFERRAL
) -> datetime:
    """When a message that failed by itself is tried again: in ten seconds, doubled with every attempt, at most four
    hours; a peer's wish is heeded for a day at most."""
    wait: timedelta = min(at_most, _FIRST_DEFERRAL * int(2 ** min(attempts, 12)))
    return now + max(wait, min(retry_after or timedelta(0), LONGEST_WISH))
