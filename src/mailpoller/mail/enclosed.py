"""What goes along in a mail that is to be sent, read as its recipients' programs read it."""

from __future__ import annotations

from mailpoller.core.body import Attachment
from mailpoller.mail.body import content_fields, read_body
from mailpoller.mail.header import read_header


def enclosed(octets: bytes) -> tuple[Attachment, ...]:
    """All of a mail's parts that are not its own text, files within a text among them. Never raises; costs time in
    proportion to its size."""
    header = read_header(octets, 0, len(octets), top=True)
    return read_body(octets, header.body, len(octets), content_fields(header.fields)).attachments
