"""Messages for the tests of rules and pipeline, made without a parser."""

from __future__ import annotations

from typing import Any

from mailpoller.core.body import Attachment, Body
from mailpoller.core.message import Address, Claim, Folder, Message, MessageRef, RawMessage
from mailpoller.core.spool import Octets

FOLDER = Folder("support", "INBOX", "epoch-1")


def addresses(*written: str) -> tuple[Address, ...]:
    return tuple(Address("", one) for one in written)


def attached(name: str, content_type: str = "application/pdf", size: int = 1000) -> Attachment:
    return Attachment(name, content_type, size, "00" * 32)


class BodyReads:
    """Counts how often a message's body is parsed."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.count = 0

    def __call__(self) -> Body:
        self.count += 1
        return self.body


def a_message(
    *,
    octets: bytes = b"Subject: hello\r\n\r\nhello\r\n",
    truncated: bool = False,
    announced: int | None = None,
    text: str = "",
    html: str = "",
    attachments: tuple[Attachment, ...] = (),
    load: BodyReads | None = None,
    **fields: Any,
) -> Message:
    ref = MessageRef(FOLDER, "1")
    raw = RawMessage(Claim(ref, "mid-1"), Octets.of(octets), truncated, announced)
    given: dict[str, Any] = {
        "headers": (), "subject": "", "from_": (), "sender": (), "to": (), "cc": (), "bcc": (), "reply_to": (),
        "return_path": None, "message_id": "", "in_reply_to": (), "references": (), "date": None, "auto": None,
        "looped": False, "header_defects": (),
    }  # fmt: skip
    return Message(raw=raw, load=load or BodyReads(Body(text, html, attachments)), **(given | fields))
