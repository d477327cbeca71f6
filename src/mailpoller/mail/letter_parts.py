"""What a mail that is to be sent takes over from one that came."""

from __future__ import annotations

from hashlib import sha256

from mailpoller.core.body import Attachment
from mailpoller.core.errors import EntryRefused
from mailpoller.core.spool import Block
from mailpoller.mail.body import content_fields, read_body
from mailpoller.mail.header import read_header
from mailpoller.mail.letter import Attached, Referred, attached
from mailpoller.mail.transfer import decoded

WHOLE = "message.eml"
"""What a message is called that goes along as a whole."""


def parts_of(octets: Block, wanted: tuple[Referred, ...], largest: int) -> tuple[Attached, ...]:
    """The parts of a message that are referred to, decoded, each with the digest that was said. The message itself is
    one, too. Takes time in proportion to the message, and memory to what is asked for: ``largest`` octets of all
    together. Raises :class:`EntryRefused`."""
    header = read_header(octets, 0, len(octets), top=True)
    found = {one.sha256: one for one in read_body(octets, header.body, len(octets), content_fields(header.fields))
             .attachments if one.end > one.start or not one.size}  # fmt: skip
    size = sum(found[one.sha256].size if one.sha256 in found else len(octets) for one in wanted)
    if size > largest:
        raise EntryRefused(f"the attachments have {size} octets, more than the outgoing takes (max_size), {largest}")
    return tuple(_part(octets, one, found.get(one.sha256)) for one in wanted)


def _part(octets: Block, wanted: Referred, part: Attachment | None) -> Attached:
    if part is None:
        held = bytes(octets) if sha256(octets).hexdigest() == wanted.sha256 else None
    else:
        held = b"".join(decoded(octets, part.start, part.end, part.encoding, []))
        held = held if sha256(held).hexdigest() == wanted.sha256 else None
    if held is None:
        raise EntryRefused(f"the message {wanted.mid} has no part of the digest sha256:{wanted.sha256}")
    name = wanted.name or (WHOLE if part is None else part.name)
    return attached(name, wanted.media_type or ("" if part is None else part.content_type), held)
