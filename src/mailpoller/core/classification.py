"""What kind of mail a message is, and by what that is known."""

from __future__ import annotations

from typing import Literal, get_args

from mailpoller.core.record import record

MailClass = Literal[
    "human", "auto-reply", "auto-generated", "bounce", "list", "bulk", "report", "calendar", "challenge"
]
MAIL_CLASSES: tuple[MailClass, ...] = get_args(MailClass)


@record
class BouncedRecipient:
    """What became of one recipient, as the reporting server tells it (RFC 3464 section 2.3); "" for what it does not.

    ``final_recipient`` and ``original_recipient`` are addresses without their type; ``action`` is ``failed``,
    ``delayed``, ``delivered``, ``relayed`` or ``expanded``; ``status`` is that of RFC 3463; ``diagnostic`` one line.
    """

    final_recipient: str
    original_recipient: str = ""
    action: str = ""
    status: str = ""
    diagnostic: str = ""
    remote_mta: str = ""


@record
class Bounce:
    """What a bounce tells of the message that was not, or not yet, delivered; "" for what it does not.

    ``envelope_id``: what its sender called it at the relay (ENVID of RFC 3461).
    """

    recipients: tuple[BouncedRecipient, ...] = ()
    message_id: str = ""
    recipient: str = ""
    subject: str = ""
    envelope_id: str = ""


@record
class Classification:
    """``kind``: the class. ``subclass`` says more where there is more to say, else "": of a bounce ``hard``, ``soft``,
    ``delayed`` or ``success``; of a report ``dmarc``, ``arf``, ``mdn`` or ``tls-rpt``; of an auto-reply ``absence``,
    ``answer`` or ``null-return-path``. ``evidence``: by what it is known, constant words, the strongest first; empty
    for a human, of whom nothing is known. ``bounce``: only of a bounce.
    """

    kind: MailClass
    subclass: str = ""
    evidence: tuple[str, ...] = ()
    bounce: Bounce | None = None


HUMAN = Classification("human")
