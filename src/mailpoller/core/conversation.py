"""Which conversation a message belongs to."""

from __future__ import annotations

from typing import Literal

from mailpoller.core.record import record

FoundBy = Literal["token", "pattern", "thread"]


@record
class Conversation:
    """``id``: what the help desk calls the conversation, "" if only the thread is known. ``found_by``: our signed
    token, a pattern of the configuration, or the fields that answer a message. ``verified``: the id stood in a token
    that nobody but a holder of the key makes; what a pattern finds anybody can write. ``forged``: it stood in one
    that is signed wrongly, or by a key that is not known. ``thread``: the Message-ID that the thread begins with, as
    the message says itself; "" if it begins one.
    """

    id: str
    found_by: FoundBy
    verified: bool = False
    forged: bool = False
    thread: str = ""
