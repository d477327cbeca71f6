"""An address of a mailbox, and how what comes to it is answered."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from mailpoller.core.component import Block
from mailpoller.core.literals import OutgoingName
from mailpoller.core.reply_charset import PRESETS, Euro, Preset, Replies, ReplyCharset, WrittenCharset


class Charset(Block):
    """In what charset answers are written; what it does not hold is written in a larger one, in the end in UTF-8."""

    default: WrittenCharset = "utf-8"
    """The charset of this mailbox's customers."""
    replies: Replies = "choose"
    """``choose``: the first that holds the answer of US-ASCII, the charset of the message that is answered, and
    ``default``. ``incoming`` and ``default``: that one, if it holds it."""
    euro: Euro = "ignore"
    """Where the charset lacks that sign and nothing else: ISO-8859-15, UTF-8, the text EUR, or what holds for any other
    character."""


class OwnAddress(Block):
    """One of a mailbox's addresses, answered from in a way of its own."""

    address: Annotated[str, StringConstraints(min_length=1, max_length=320)]
    """As it stands in To and Cc."""
    outgoing: OutgoingName | None = None
    """What comes to this address is answered by this outgoing. Without it: by the mailbox's."""
    charset: Preset | Charset | None = None
    """In what such answers are written. Without it: as the mailbox's."""


def reply_charset(written: Preset | Charset | None) -> ReplyCharset | None:
    """The same as the engine reads it; None: UTF-8."""
    if isinstance(written, Charset):
        return ReplyCharset(written.default, written.replies, written.euro)
    return None if written is None else PRESETS[written]
