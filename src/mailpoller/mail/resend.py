"""A message that is sent on as it is, under a few fields of ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime

from mailpoller.core.spool import Block
from mailpoller.mail.compose import ascii_address, data_domain
from mailpoller.mail.loop import LOOP_HEADER

_BEFORE = re.compile(rb"(?:\xef\xbb\xbf)?(?:>?From [^\r\n]{0,998}\r?\n)?")
"""What stands before a header and is no part of it: a byte order mark, the first line of an mbox."""
_BLANK = re.compile(rb"\s+(?=[!-9;-~]{1,998}:)")
_LINE_END = re.compile(rb"\r\n|\r|\n")


def resent(octets: Block, *, sender: str, recipients: Sequence[str], message_id: str, at: datetime) -> bytes:
    """The message with Resent-From, -To, -Date and -Message-ID before its own fields, none of which is touched
    (RFC 5322 section 3.6.6), and the field by which we know it again.

    Octets that are lines as SMTP has them stay as they are; else every line ends with CRLF (RFC 5321 section 2.3.8).
    ``message_id`` without its brackets. Costs time in proportion to the message: large ones in a thread.
    """
    fields = (
        ("Resent-From", ascii_address(sender)),
        ("Resent-To", ",\r\n ".join(map(ascii_address, recipients))),
        ("Resent-Date", format_datetime(at)),
        ("Resent-Message-ID", f"<{message_id}>"),
        (LOOP_HEADER, "1"),
    )
    head = "".join(f"{name}: {value}\r\n" for name, value in fields).encode("utf-8")
    whole = octets[:]
    if data_domain(octets) == "binary":
        whole = _LINE_END.sub(b"\r\n", whole)
    return head + whole[_begin(whole) :]


def _begin(octets: bytes) -> int:
    """Where the header begins: before it there may be what is no part of it, and empty lines."""
    found = _BEFORE.match(octets)
    start = found.end() if found is not None else 0
    blank = _BLANK.match(octets, start)
    return blank.end() if blank is not None and octets[start : start + 1] in b"\r\n" else start
