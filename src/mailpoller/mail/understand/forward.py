"""A message that was forwarded within the text of another one."""

from __future__ import annotations

from mailpoller.core.body import Forwarded
from mailpoller.core.message import Message
from mailpoller.mail.address import parse_addresses
from mailpoller.mail.date import read_date
from mailpoller.mail.understand.quoted_header import find_header
from mailpoller.mail.understand.quoting import FORWARD_SUBJECTS

_ABOVE = 10
_LONGEST_VALUE = 2000


def inline(message: Message) -> Forwarded | None:
    """The message that stands below another one's text under its own header: where a line calls it forwarded, or the
    subject does. None without one, and where an earlier mail is only quoted. Its attachments are those of the message
    around it; its date is None where that is written for people, or names no zone."""
    said = message.said
    if said.earlier is None or not (said.forward or message.subject.lstrip().lower().startswith(FORWARD_SUBJECTS)):
        return None
    lines = message.body.text[said.earlier :].split("\n")
    if next((line for line in lines[1:] if line.strip()), "").startswith(">"):  # as Apple writes it
        lines = [line.removeprefix(">").removeprefix(" ") for line in lines]
    for at in range(min(len(lines), _ABOVE)):
        header = find_header(lines, at) or (find_header(lines, at, mixed=True) if said.forward else None)
        if header is not None:
            values = header.values
            sender = values["from"][:_LONGEST_VALUE].replace("[mailto:", "<").replace("]", ">")
            date, fault = read_date(values["date"][:_LONGEST_VALUE])
            return Forwarded(
                from_=parse_addresses(sender)[0],
                date=None if fault else date,
                subject=values.get("subject", "")[:_LONGEST_VALUE],
                text="\n".join(lines[header.end :]).strip("\n"),
                html="",
                attachments=(),
            )
    return None
