"""What one mailbox's messages owe their senders: decided when they are judged, told beside their outcome."""

from __future__ import annotations

from datetime import datetime

import structlog

from mailpoller.core.acknowledge_config import AcknowledgeConfig
from mailpoller.core.acknowledgement import Acknowledgement
from mailpoller.core.message import Message
from mailpoller.core.ports import Clock
from mailpoller.core.source_config import SourceConfig
from mailpoller.core.verdict import Deliver, Verdict
from mailpoller.engine.threads import begun
from mailpoller.mail.acknowledgement import acknowledgement_of, objection
from mailpoller.mail.date import parse_date

log = structlog.get_logger(__name__)

_CONSIDERED = 2000
"""Characters of a Received field."""


class Acknowledging:
    """Tells of one mailbox's messages whether their senders are to be told that they have come."""

    def __init__(self, config: SourceConfig, clock: Clock) -> None:
        self._config = config.acknowledge if config.mode == "live" else None
        self._own = frozenset(address.casefold() for address in config.own_addresses())
        self._clock = clock

    def __bool__(self) -> bool:
        return self._config is not None

    def owed(self, message: Message, verdict: Verdict, *, repeated: bool) -> Acknowledgement | None:
        """What is owed if the message is delivered by this verdict; None for mail that nobody is told of. Never raises
        but MemoryError.

        ``repeated``: equal octets were settled before. Whether it is the sender's first in the period, and whether
        there were too many, is looked at when it is sent.
        """
        if self._config is None or repeated or message.raw.claim.generation or not isinstance(verdict, Deliver):
            return None
        try:
            return self._owed(self._config, message, verdict)
        except MemoryError:
            raise
        except Exception:  # a bug here must not hold up the mail
            log.exception("acknowledgement.crashed", mid=message.raw.claim.mid)
            return None

    def _owed(self, config: AcknowledgeConfig, message: Message, verdict: Deliver) -> Acknowledgement | None:
        claim = message.raw.claim
        chosen = config.chosen(verdict.rules)
        # The older of both: what somebody puts into the mailbox later, a client may have put there as of today.
        received = min((one for one in (message.raw.received, _noted(message)) if one is not None), default=None)
        if chosen is None or received is None or self._clock.now() - received > config.max_age:
            return None
        if reason := objection(message, self._own):
            log.debug("acknowledgement.objected", mid=claim.mid, mailbox=claim.ref.folder.mailbox, reason=reason)
            return None
        rule = getattr(chosen, "rule", "")
        return acknowledgement_of(message, self._own, received, rule=rule, conversation=begun(message))


def _noted(message: Message) -> datetime | None:
    """When the delivering server says that it received the mail."""
    received = message.header("received")
    return parse_date(received[0][:_CONSIDERED].rpartition(";")[2].strip()) if received else None
