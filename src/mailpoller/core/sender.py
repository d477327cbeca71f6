"""Whom a mail is from, as its recipients see it."""

from __future__ import annotations

from mailpoller.core.record import record


@record
class Sender:
    """Whom a reply is from. ``text`` and ``html``: what is put below it."""

    address: str
    display_name: str = ""
    reply_to: str = ""
    text: str = ""
    html: str = ""
