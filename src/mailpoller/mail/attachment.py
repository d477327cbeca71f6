"""What is told of an attachment: its name, its types, its size and digest."""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import sha256
from urllib.parse import unquote

from mailpoller.core.body import Attachment
from mailpoller.core.spool import Block
from mailpoller.mail.filetype import Looker
from mailpoller.mail.naming import OCTETS, suffix_of
from mailpoller.mail.structure import Part
from mailpoller.mail.transfer import decoded
from mailpoller.mail.words import readable

_CID = re.compile(r"\bcid:([^\"'\s<>)]{1,998}+)", re.IGNORECASE)
_NAMED_BY_ANOTHER = frozenset((OCTETS, "application/binary", "application/unknown"))


def attachment_of(octets: Block, part: Part, number: int, defects: list[str], *, outer: bool) -> Attachment:
    """The attachment that a part is. ``number``: which one it is, for a name if it has none. ``outer``: its offsets
    are those of the raw octets."""
    digest = sha256()
    size = 0
    looker = Looker()
    for piece in decoded(octets, part.start, part.end, part.encoding, defects):
        digest.update(piece)
        size += len(piece)
        looker.feed(piece)
    look = looker.look()
    return Attachment(
        name=part.name or _named(part.content_type, look.kind, number),
        content_type=part.content_type,
        size=size,
        sha256=digest.hexdigest(),
        inline=part.disposition == "inline" or (not part.disposition and bool(part.content_id)),
        content_id=readable(part.content_id),
        start=part.start if outer else 0,
        end=part.end if outer else 0,
        encoding=readable(part.encoding),
        detected_type=look.kind,
        macros=look.macros,
        encrypted=look.encrypted,
    )


def _named(kind: str, detected: str, number: int) -> str:
    return f"part-{number}.{suffix_of(detected if kind in _NAMED_BY_ANOTHER and detected else kind)}"


def shown_in(html: str, attachments: list[Attachment]) -> list[Attachment]:
    """The attachments, in which those are inline that the HTML shows by their Content-ID (RFC 2392), whatever they say
    themselves."""
    if "cid:" not in html or not any(one.content_id and not one.inline for one in attachments):
        return attachments
    shown = {unquote(found) for found in _CID.findall(html)}
    return [
        replace(one, inline=True) if not one.inline and one.content_id.strip("<> ") in shown else one
        for one in attachments
    ]
