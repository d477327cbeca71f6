"""What a status means: a receipt, a word about the message, a word about the service, or nothing yet."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from mailpoller.core.errors import MailpollerError, MessageRejected, TransientError

REFUSES = frozenset((400, 413, 415, 422))
"""Statuses that speak of the request's content, and so of the message. All other 4xx are about us, or about where we
ask."""
_AGAIN = frozenset((408, 409, 425))
"""Passing; with 409 a request of the same Idempotency-Key is still being worked on."""


class PutOff(TransientError):
    """No receipt, and nobody can tell whether that is the message's trouble: an error of the service, a hang-up."""


class Unavailable(TransientError):
    """The service's trouble, or that of how we ask: no message would fare better."""


class Gone(Unavailable):
    """410: nobody will ever take anything there."""


def trouble_of(
    status: int, told: str, wait: timedelta | None, refuses: Collection[int] = REFUSES
) -> MailpollerError | None:
    """What an answer means that is not 2xx; None for a receipt. ``told``: the answer in words; ``wait``: its
    Retry-After."""
    if 200 <= status < 300:
        return None
    if status in refuses:
        return MessageRejected(told)
    if status == 410:
        return Gone(f"{told}: nothing is sent there any more until this queue's configuration changes, or a restart")
    if 300 <= status < 400:
        return Unavailable(f"{told}: a redirect is never followed; put its target into url, if it is right")
    if status == 429:
        return Unavailable(told, retry_after=wait)
    if status >= 500 or status in _AGAIN:
        return PutOff(told, retry_after=wait)
    return Unavailable(told)
