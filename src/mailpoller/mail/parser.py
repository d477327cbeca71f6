"""From octets to a :class:`~mailpoller.core.message.Message`: the header at once, the body when it is asked for."""

from __future__ import annotations

import re
from functools import partial

from mailpoller.core.message import Address, Body, Message, RawMessage
from mailpoller.core.spool import Block
from mailpoller.mail.address import parse_addresses
from mailpoller.mail.automatic import classify
from mailpoller.mail.body import read_body
from mailpoller.mail.date import parse_date
from mailpoller.mail.header import Field, read_header
from mailpoller.mail.loop import LOOP_HEADER
from mailpoller.mail.words import clean, readable

DATE_MALFORMED = "date-malformed"
"""Defect: the Date is none, or lies outside of the calendar."""
FIELD_REPEATED = "field-repeated"
"""Defect: a field that may stand once (RFC 5322 section 3.6) stands there again; addresses are joined, else the first counts."""
LINES_END_WITH_CR = "lines-end-with-cr"
"""Defect: no line feed at all: carriage returns are taken for line ends."""
UNPARSED = "unparsed"
"""Defect: nobody has looked at the octets; see :func:`unparsed`."""

_LOOP = LOOP_HEADER.lower()
_ONCE = frozenset(
    ("from", "sender", "reply-to", "to", "cc", "bcc", "message-id", "in-reply-to", "references", "subject", "date")
)
_MESSAGE_ID = re.compile(r"<[^<>]++>")
_LONGEST_ID = 998
_IDS_KEPT = 1000
_COMMENT = re.compile(r"\([^()]*+\)")
_FIRST_LINE_WITHIN = 1 << 16
_CR_LIMIT = 1 << 24


def parse(raw: RawMessage) -> Message:
    """Read the header block; ``Message.body`` reads the rest on first use, while ``raw.octets`` are still open.

    Never raises, whatever the octets are: what is wrong with them is in ``Message.defects``. Time and memory are bounded:
    one megabyte and 2,000 fields of header, 10,000 addresses a field, 50 levels, 1,000 parts, 5 MB of text and of HTML.
    """
    octets = raw.octets.view()
    defects: list[str] = []
    if octets.find(b"\n", 0, _FIRST_LINE_WITHIN) < 0 and _ends_lines_with_cr(octets):
        octets = _with_line_feeds(octets)
        defects.append(LINES_END_WITH_CR)
    header = read_header(octets, 0, len(octets))
    defects += header.defects
    first: dict[str, int] = {}
    again: dict[str, list[int]] = {}
    headers: list[tuple[str, str]] = []
    fields = header.fields
    for index, (key, name, value) in enumerate(fields):
        headers.append((name, readable(value)))
        if key not in first:
            first[key] = index
        else:
            again.setdefault(key, []).append(index)
    if again and not _ONCE.isdisjoint(again):
        defects.append(FIELD_REPEATED)

    def addresses(key: str) -> tuple[Address, ...]:
        index = first.get(key)
        if index is None:
            return ()
        found, defect = parse_addresses(fields[index].value)
        if key in again:
            for more in again[key]:
                others, fault = parse_addresses(fields[more].value)
                found, defect = found + others, defect or fault
        if defect and defect not in defects:
            defects.append(defect)
        return found

    def every(key: str) -> list[str]:
        return [fields[index].value for index in (first[key], *again.get(key, ()))] if key in first else []

    def text(key: str) -> str:
        index = first.get(key)
        return "" if index is None else fields[index].value

    written_date = text("date")
    date = parse_date(written_date) if written_date else None
    if date is None and written_date:
        defects.append(DATE_MALFORMED)
    return_path = _return_path(fields[first["return-path"]].value) if "return-path" in first else None
    message_id = text("message-id")
    in_reply_to = text("in-reply-to")
    references = text("references")
    return Message(
        raw=raw,
        headers=headers,
        subject=headers[first["subject"]][1] if "subject" in first else "",
        from_=addresses("from"),
        sender=addresses("sender"),
        to=addresses("to"),
        cc=addresses("cc"),
        bcc=addresses("bcc"),
        reply_to=addresses("reply-to"),
        return_path=return_path,
        message_id=_message_id(message_id) if message_id else "",
        in_reply_to=_message_ids(in_reply_to) if in_reply_to else (),
        references=_message_ids(references) if references else (),
        date=date,
        auto=classify(every("auto-submitted"), return_path),
        looped=_LOOP in first,
        header_defects=tuple(defects),
        load=partial(_load, raw, header.body, _content_fields(fields), LINES_END_WITH_CR in defects),
    )


def unparsed(raw: RawMessage) -> Message:
    """A message at whose octets nobody looks: for one that is suspected of killing the parser."""
    return Message(
        raw=raw,
        headers=(),
        subject="",
        from_=(),
        sender=(),
        to=(),
        cc=(),
        bcc=(),
        reply_to=(),
        return_path=None,
        message_id="",
        in_reply_to=(),
        references=(),
        date=None,
        auto=None,
        looped=False,
        header_defects=(UNPARSED,),
        load=partial(Body, "", "", ()),
    )


def _load(raw: RawMessage, start: int, fields: dict[str, str], carriage_returns: bool) -> Body:
    octets = raw.octets.view()
    if carriage_returns:
        octets = _with_line_feeds(octets)
    return read_body(octets, start, len(octets), fields)


def _ends_lines_with_cr(octets: Block) -> bool:
    """No line feed where the first line should end, but a carriage return, and small enough to be copied."""
    return octets.find(b"\r", 0, _FIRST_LINE_WITHIN) >= 0 and len(octets) <= _CR_LIMIT


def _with_line_feeds(octets: Block) -> bytes:
    """Each CR made LF: as long as before, so that every offset holds for the original too."""
    return octets[:].replace(b"\r", b"\n")


def _content_fields(fields: list[Field]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, _, value in fields:
        if key.startswith("content-"):
            found.setdefault(key, value)
    return found


def _return_path(value: str) -> str | None:
    """The envelope sender; "" for the null sender ``<>``, None for a field that says nothing."""
    if "(" in value:
        value = _COMMENT.sub("", value)
    _, bracket, rest = value.partition("<")
    if bracket and not rest.partition(">")[0].strip():
        return ""
    found, _ = parse_addresses(value)
    return found[0].address or None if found else None


def _message_id(value: str) -> str:
    """The first ``<…>``, brackets included; without one the value as it stands."""
    found = _MESSAGE_ID.search(value)
    return clean(found[0] if found else value)[:_LONGEST_ID]


def _message_ids(value: str) -> tuple[str, ...]:
    """Every ``<…>`` in order, brackets included: the last thousand, which are the nearest ancestors."""
    return tuple(clean(found)[:_LONGEST_ID] for found in _MESSAGE_ID.findall(value)[-_IDS_KEPT:])
