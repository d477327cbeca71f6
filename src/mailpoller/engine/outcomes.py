"""What has become of messages, said."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from mailpoller.core.delivery import Outcome
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


def tell(outcomes: Sequence[Outcome], mailbox: str, observer: Observer) -> None:
    """Once they are committed."""
    for outcome in outcomes:
        claim = outcome.claim
        log.info(
            _SETTLED[outcome.kind],
            mid=claim.mid,
            mailbox=mailbox,
            folder=claim.ref.folder.name,
            uid=claim.ref.uid,
            size_bytes=outcome.size,
            queues=list(outcome.receipts),
            rules=list(outcome.rules),
            reason=outcome.reason,
        )
        observer.settled(outcome)
