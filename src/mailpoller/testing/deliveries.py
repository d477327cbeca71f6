"""Deliveries made to order, for tests of sinks."""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path

from mailpoller.core.attributes import Attributes, Priority
from mailpoller.core.delivery import Delivery, Event
from mailpoller.core.identity import mint_delivery_id, mint_mid
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.ports import OctetsPlace
from mailpoller.core.spool import Octets, Spool

SAMPLE = b"From: ada@example.com\r\nTo: support@example.com\r\nSubject: hello\r\n\r\nHello.\r\n"

HOSTILE = bytes(range(256)) + b"\0\0From \r\r\n\n.\r\n..\r\n\xff\xfe\xed\xa0\x80 \x1a\n\r"
"""Octets that something on the way likes to change: NULs, bare CR and LF, lone dots, invalid UTF-8, no line end."""


def make_delivery(
    uid: int = 1,
    octets: bytes | Octets = SAMPLE,
    *,
    queue: str = "support",
    mailbox: str = "support",
    place: OctetsPlace = "beside",
    octets_wanted: bool = True,
    text: str = "Hello.",
    topic: str = "",
    priority: Priority = "normal",
    tags: tuple[str, ...] = (),
    reason: str = "",
    detail: str = "",
) -> Delivery:
    """A delivery of the message ``uid``, as the engine would make it. Same uid and queue: same delivery id.

    ``place`` is the sink's ``octets_place``.
    """
    held = Octets.of(octets) if isinstance(octets, bytes) else octets
    ref = MessageRef(Folder(mailbox, "INBOX", "imap imap.example.com support 1"), str(uid), held.size)
    mid = mint_mid(mailbox, "INBOX", ref.folder.epoch, ref.uid)
    delivery_id = mint_delivery_id(mid, queue)
    data: dict[str, object] = {"mailbox": mailbox, "uid": ref.uid, "text": text, "size": held.size}
    if octets_wanted and place == "inside":
        data["raw"] = base64.b64encode(held.view()).decode()
    envelope = {
        "specversion": "1.0",
        "id": mid,
        "source": f"/mailboxes/{mailbox}",
        "type": "mailpoller.message",
        "deliveryid": delivery_id,
    }
    return Delivery(
        delivery_id=delivery_id,
        mid=mid,
        queue=queue,
        event=Event(_json(envelope), (_json(data),)),
        raw=RawMessage(Claim(ref, mid), held, announced=held.size),
        octets_wanted=octets_wanted,
        attributes=Attributes(topic, priority, tags, reason, detail),
    )


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def spooled(octets: bytes, directory: Path | None = None) -> Octets:
    """The octets of a message that is too large for memory: in a spool file in ``directory``, a new one if it is
    None."""
    spool = Spool(directory or Path(tempfile.mkdtemp(prefix="spool-")), threshold=0)
    intake = spool.begin(limit=len(octets))
    intake.write(octets)
    return intake.finish()
