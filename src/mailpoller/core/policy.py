"""What becomes of a mail for its class, unless a rule says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from mailpoller.core.classification import MailClass
from mailpoller.core.message import Message
from mailpoller.core.record import record

PolicyWord = Literal["deliver", "quarantine", "discard"]

POLICIES: Mapping[MailClass, str] = {
    "auto-reply": "auto_replies",
    "challenge": "auto_replies",
    "auto-generated": "auto_generated",
    "bounce": "bounces",
    "list": "lists",
    "bulk": "bulk",
    "report": "reports",
}
"""The key of a mailbox that says what becomes of a class; of people and calendars none does."""


@record
class Policy:
    """``queue`` is where the class goes, if ``word`` is None. ``senders``: who is excepted, each an address, or a
    domain with all below it, in small letters without ``@`` before it. ``files``: those that list more of them."""

    word: PolicyWord | None = None
    queue: str = ""
    senders: frozenset[str] = frozenset()
    files: tuple[Path, ...] = ()

    @property
    def delivers(self) -> bool:
        """True if it changes nothing."""
        return self.word == "deliver"


USUAL: Mapping[MailClass, Policy] = dict.fromkeys(("auto-reply", "challenge", "bounce"), Policy("quarantine"))
"""What holds where nothing is said: nobody waits for an answer to these, and answering them begins a loop."""


def is_from(message: Message, senders: frozenset[str]) -> bool:
    """True if an address in From, or its domain or one above that, is one of ``senders``."""
    return bool(senders) and any(is_listed(sender.address, senders) for sender in message.from_[:10])


def is_listed(address: str, senders: frozenset[str]) -> bool:
    """True if the address, or its domain or one above that, is one of ``senders``, which are in small letters."""
    whole = address[:1000].lower()
    domain = whole.rpartition("@")[2]
    while domain:
        if domain in senders:
            return True
        domain = domain.partition(".")[2]
    return whole in senders
