"""Whom a mail is from, as its recipients see it."""

from __future__ import annotations

from typing import Literal

from mailpoller.core.record import record

Quote = Literal["none", "top", "full"]
"""What of the message that is answered stands below an answer: nothing, what was written for it, or all of it."""


@record
class Sender:
    """Whom a reply is from. ``text`` and ``html``: what is put below it. ``quote``: what of the message that is
    answered, where an entry does not say."""

    address: str
    display_name: str = ""
    reply_to: str = ""
    text: str = ""
    html: str = ""
    quote: Quote = "none"
