"""What lies below the header: which parts are the message's own text, and what its attachments are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

from mailpoller.core.message import Attachment, Body
from mailpoller.core.spool import Block
from mailpoller.mail.charset import decode
from mailpoller.mail.structure import Part, scan
from mailpoller.mail.transfer import decoded
from mailpoller.mail.words import readable

TEXT_KEPT = 5_000_000
"""Decoded octets of the message's text, and of its HTML, that are kept."""
TEXT_CUT = "text-cut"
"""Defect: the text or the HTML is longer than we keep."""
NUL = "nul"
"""Defect: a NUL in the text; it was replaced, since many databases and programs cannot hold one."""

_META_CHARSET = re.compile(rb"""<meta[^>]{1,200}?charset\s*=\s*["']?([\w.:-]{1,40})""", re.IGNORECASE)
_META_CONSIDERED = 2048


def read_body(octets: Block, start: int, end: int, fields: Mapping[str, str]) -> Body:
    """The body of a message that lies between ``start`` and ``end``; never raises.

    ``fields``: the message's Content fields by name in lower case. The message's own text is its first ``text/plain``
    part and its first ``text/html`` part that are neither named nor marked as attachments; further ones are appended
    to them, unless they stand in a ``multipart/alternative`` or ``related``, where they are attachments. Everything
    else is an attachment.
    """
    parts, defects = scan(octets, start, end, fields)
    texts: dict[str, list[str]] = {"text/plain": [], "text/html": []}
    room = {"text/plain": TEXT_KEPT, "text/html": TEXT_KEPT}
    attachments: list[Attachment] = []
    for part in parts:
        kind = part.content_type
        if (
            kind in texts
            and part.disposition != "attachment"
            and not part.name
            and not part.opaque
            and (not texts[kind] or part.within not in ("alternative", "related"))
        ):
            texts[kind].append(_text(octets, part, room, defects))
        else:
            attachments.append(_attachment(octets, part, defects))
    return Body(
        _joined(texts["text/plain"]), _joined(texts["text/html"]), tuple(attachments), tuple(dict.fromkeys(defects))
    )


def _joined(texts: list[str]) -> str:
    """Texts one below the other: the line end before a boundary belongs to the boundary, so it is given back."""
    if len(texts) > 1:
        texts = [text if text.endswith("\n") else f"{text}\n" for text in texts[:-1] if text] + texts[-1:]
    return "".join(texts)


def _text(octets: Block, part: Part, room: dict[str, int], defects: list[str]) -> str:
    left = room[part.content_type]
    pieces: list[bytes] = []
    size = 0
    for piece in decoded(octets, part.start, part.end, part.encoding, defects):
        pieces.append(piece)
        size += len(piece)
        if size > left:
            break
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    cut = size > left
    if cut:
        data = data[:left]
        size = left
        defects.append(TEXT_CUT)
    room[part.content_type] = left - size
    charset = part.charset
    if not charset and part.content_type == "text/html":
        meta = _META_CHARSET.search(data, 0, _META_CONSIDERED)
        if meta is not None:
            charset = meta[1].decode("ascii", "replace")
    text, defect = decode(data, charset)
    if defect and not cut:  # a cut may well have gone through a character
        defects.append(defect)
    text = text.removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
        defects.append(NUL)
    return text


def _attachment(octets: Block, part: Part, defects: list[str]) -> Attachment:
    digest = sha256()
    size = 0
    for piece in decoded(octets, part.start, part.end, part.encoding, defects):
        digest.update(piece)
        size += len(piece)
    inline = part.disposition == "inline" or (not part.disposition and bool(part.content_id))
    return Attachment(
        name=part.name,
        content_type=part.content_type,
        size=size,
        sha256=digest.hexdigest(),
        inline=inline,
        content_id=readable(part.content_id),
        start=part.start,
        end=part.end,
        encoding=readable(part.encoding),
    )
