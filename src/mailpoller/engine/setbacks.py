"""What trouble with a mailbox costs: how long it waits after each kind, and who is told."""

from __future__ import annotations

from datetime import timedelta

import structlog

from mailpoller.core.errors import MailpollerError, TransientError
from mailpoller.engine.alarm import Kind
from mailpoller.engine.attended import Attended
from mailpoller.engine.backoff import BLIP, Backoff
from mailpoller.engine.health import Condition

log = structlog.get_logger(__name__)

LONGEST_RETRY = timedelta(hours=1)
CREDENTIALS_RETRY = timedelta(minutes=5)
"""The least wait after a refused login: servers lock accounts that knock faster."""

LOOK_AGAIN = timedelta(seconds=50)
"""The wait after something was missing here: with its jitter a minute at most."""

_ENDED_BY_A_POLL = (Kind.MAILBOX_DOWN, Kind.CREDENTIALS_REFUSED, Kind.MAILBOX_LACKING, Kind.LEDGER_UNWRITABLE)


class Setbacks:
    """One mailbox's back-offs. Each trouble is said once, and its end too."""

    def __init__(self, attended: Attended) -> None:
        self._attended = attended
        interval = attended.config.reconnect_interval
        cap = min(LONGEST_RETRY, interval * 30)
        self._backoff = Backoff(interval, max(cap, interval), blip=BLIP)
        self._refusals = Backoff(max(CREDENTIALS_RETRY, interval), LONGEST_RETRY)

    async def met(self, kind: Kind, error: MailpollerError, token_left: timedelta | None) -> float:
        """Tell of it; how many seconds this kind of trouble wants to be waited. ``token_left``: how long the token is
        good that was refused, or None."""
        mailbox, health = self._attended.mailbox, self._attended.health
        wait = self._wait(kind, error, token_left)
        refused = kind in (Kind.CREDENTIALS_REFUSED, Kind.MAILBOX_LACKING)
        event = "mailbox.refused" if refused else "mailbox.failed"
        log.warning(event, mailbox=mailbox, kind=kind.value, reason=str(error), retry_s=round(wait, 1))
        health.enter(mailbox, Condition.REFUSED if refused else Condition.RETRYING, str(error), retry_in=wait)
        health.mailboxes[mailbox].failures[kind.value] += 1
        self._attended.alarm.fault(mailbox, event, str(error), "")
        await self._attended.alarm.raised(kind, self._subject(kind), str(error), group=self._attended.group)
        return wait

    async def over(self) -> None:
        """A poll was completed: what was in its way is over."""
        self._backoff.succeeded(self._attended.clock.monotonic())
        self._refusals.reset()
        # An alarm of an earlier run ends here too, so every kind is told, and it costs nothing where there is none.
        for kind in _ENDED_BY_A_POLL:
            await self._attended.alarm.ended(kind, self._subject(kind))

    def _wait(self, kind: Kind, error: MailpollerError, token_left: timedelta | None) -> float:
        retry_after = error.retry_after if isinstance(error, TransientError) else None
        if kind is Kind.MAILBOX_LACKING:
            return Backoff(LOOK_AGAIN, LOOK_AGAIN).failed(at_least=retry_after)
        if kind is not Kind.CREDENTIALS_REFUSED:
            return self._backoff.failed(at_least=retry_after)
        wait = self._refusals.failed(at_least=retry_after)
        if token_left is not None:  # the next token may be taken
            wait = min(wait, max(self._attended.config.reconnect_interval, token_left).total_seconds())
        return wait

    def _subject(self, kind: Kind) -> str:
        return "ledger" if kind is Kind.LEDGER_UNWRITABLE else self._attended.mailbox
