"""A message with its verdict, and what is said of it to whom it is brought."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mailpoller.core.acknowledgement import Acknowledgement
from mailpoller.core.attributes import NONE_SAID, Attributes
from mailpoller.core.delivery import (
    QUARANTINE,
    Delivery,
)
from mailpoller.core.message import Claim, Message
from mailpoller.core.ports import Traits
from mailpoller.core.removal import ATTACHMENTS
from mailpoller.core.verdict import Deliver, Quarantine, Verdict
from mailpoller.engine.threads import told


@dataclass(slots=True)
class Judged:
    """A message with its verdict, on its way through the dispatcher. ``mid`` and octets are those of its claim."""

    claim: Claim
    message: Message
    verdict: Verdict
    repeat_of: str | None = None
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    """Queue -> what to bring there: the queues of its route that do not hold it yet."""
    receipts: dict[str, str] = field(default_factory=dict)
    route: tuple[str, ...] = ()
    waits_for: str | None = None
    """The queue that failed, if one did."""
    trouble: str = ""
    refused: bool = False
    """A queue did not take it for its own sake, though not for good."""
    acknowledgement: Acknowledgement | None = None
    """What its sender is owed if it is delivered."""

    @property
    def quarantined(self) -> bool:
        """True if it is held where a human looks, and not for what was removed from it alone."""
        if QUARANTINE not in self.receipts:
            return False
        verdict = self.verdict
        return not (isinstance(verdict, Deliver) and verdict.held and self.receipts.keys() >= set(verdict.queues))


def attributes_for(verdict: Verdict, *, quarantined: bool) -> Attributes:
    """What is said of a message to a queue, or to a quarantine."""
    if not quarantined:
        return verdict.attributes if isinstance(verdict, Deliver) else NONE_SAID
    if isinstance(verdict, Quarantine):
        return verdict.attributes
    if isinstance(verdict, Deliver) and verdict.held:
        return replace(verdict.attributes, reason=ATTACHMENTS, detail=verdict.held)
    # A retry is judged anew, and the verdict no longer says that a queue refused it before.
    return replace(verdict.attributes if isinstance(verdict, Deliver) else NONE_SAID, reason="refused")


def is_held(verdict: Verdict) -> bool:
    """True if it is delivered, and held in quarantine for what was removed from it."""
    return isinstance(verdict, Deliver) and bool(verdict.held)


def traits_of(judged: Judged) -> Traits:
    """What a message that is put off is found and known again by."""
    message = judged.message
    return Traits(
        identity=message.identity,
        received=message.raw.received,
        size=None if message.raw.truncated else message.raw.octets.size,
        message_id=message.message_id,
        sender=message.from_[0].address if message.from_ else "",
        fingerprint=message.raw.octets.digest if judged.receipts and not message.raw.truncated else None,
        conversation=told(message) if judged.receipts else None,
    )
