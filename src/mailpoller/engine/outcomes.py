"""What has become of messages, said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import structlog

from mailpoller.core.delivery import Outcome, OutcomeKind
from mailpoller.core.ports import Clock
from mailpoller.engine.observer import Observer

log = structlog.get_logger(__name__)

_SETTLED = {
    "delivered": "message.delivered",
    "quarantined": "message.quarantined",
    "discarded": "message.discarded",
    "gone": "message.gone",
    "repeated": "message.repeated",
    "skipped": "message.skipped",
    "doubtful": "message.doubtful",
}
_ORDINARY = frozenset[OutcomeKind](("delivered", "discarded", "repeated"))
"""What a drain has thousands of, and nobody has to look at."""


class LogRate:
    """So many ordinary outcomes are logged in a second, of all mailboxes together; the others are counted.

    ``most``: 0 is any number.
    """

    def __init__(self, clock: Clock, most: int = 0) -> None:
        self._clock = clock
        self._most = most
        self._second = 0
        self._said = 0
        self._unsaid: Counter[str] = Counter()

    def says(self, kind: OutcomeKind) -> bool:
        """True if this one is to be logged; else it is counted."""
        if not self._most or kind not in _ORDINARY:
            return True
        if (second := int(self._clock.monotonic())) != self._second:
            self.sum_up()
            self._second, self._said = second, 0
        self._said += 1
        if self._said <= self._most:
            return True
        self._unsaid[kind] += 1
        return False

    def sum_up(self) -> None:
        """Log how many were not, since the last time."""
        if self._unsaid:
            counts, self._unsaid = self._unsaid, Counter()
            log.info("messages.counted", messages=counts.total(), outcomes=dict(counts))


def tell(
    outcomes: Sequence[Outcome], mailbox: str, observer: Observer, clock: Clock, rate: LogRate | None = None
) -> None:
    """Once they are committed. The latency of a message is from the server's date of it to now."""
    now = clock.now()
    for outcome in outcomes:
        observer.settled(outcome)
        if rate is not None and not rate.says(outcome.kind):
            continue
        claim, received = outcome.claim, outcome.received
        log.info(
            _SETTLED[outcome.kind],
            mid=claim.mid,
            mailbox=mailbox,
            folder=claim.ref.folder.name,
            uid=claim.ref.uid,
            size_bytes=outcome.size,
            latency_s=None if received is None else round((now - received).total_seconds(), 1),
            queues=list(outcome.receipts),
            rules=list(outcome.rules),
            reason=outcome.reason,
        )
