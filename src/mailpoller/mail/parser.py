"""From octets to a :class:`~mailpoller.core.message.Message`: the header at once, the body when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from hashlib import sha256

from mailpoller.core.body import Body
from mailpoller.core.message import Address, Message, RawMessage
from mailpoller.core.spool import Block
from mailpoller.mail.address import CUT, KEPT, parse_addresses
from mailpoller.mail.automatic import classify
from mailpoller.mail.body import read_body
from mailpoller.mail.date import read_date
from mailpoller.mail.header import read_header
from mailpoller.mail.loop import LOOP_HEADER
from mailpoller.mail.structure import CONTENT, Part, scan
from mailpoller.mail.understand.classify import classify as classify_mail
from mailpoller.mail.understand.reply import split
from mailpoller.mail.words import clean, readable_fields

FIELD_REPEATED = "field-repeated"
"""Defect: a field that may stand once (RFC 5322 section 3.6) stands there again; addresses are joined, else the first
counts."""
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
_GMAIL_HOP = re.compile(r"by (?:2002:[0-9a-f:]{1,40}|10\.\d{1,3}\.\d{1,3}\.\d{1,3}) with SMTP id ", re.IGNORECASE)
_FIRST_LINE_WITHIN = 1 << 16
_CR_LIMIT = 1 << 24
_OPENED = 1 << 18


def parse(raw: RawMessage) -> Message:
    """Read the header block; ``Message.body`` reads the rest on first use, while ``raw.octets`` are still open.

    Never raises, whatever the octets are: what is wrong with them is in ``Message.defects``. Time and memory are
    bounded: one megabyte and 2,000 fields of header, 10,000 addresses a field, 50 levels, 1,000 parts, 5 MB of text
    and of HTML.
    """
    octets = raw.octets.view()
    defects: list[str] = []
    if octets.find(b"\n", 0, _FIRST_LINE_WITHIN) < 0 and _ends_lines_with_cr(octets):
        octets = _with_line_feeds(octets)
        defects.append(LINES_END_WITH_CR)
    header = read_header(octets, 0, len(octets), top=True)
    defects += header.defects
    headers = readable_fields(header.fields, plain=header.plain)
    fields = _Fields(header.fields, defects)
    first = fields.first
    date = fields.value("date")
    sent, fault = read_date(date) if date else (None, "")
    if fault:
        defects.append(fault)
    return_path = _return_path(fields.value("return-path")) if _noted_here(fields) else None
    content = fields.content()
    addresses = fields.addresses
    return Message(
        raw=raw,
        headers=headers,
        subject=headers[first["subject"]][1] if "subject" in first else "",
        from_=addresses("from") if "from" in first else (),
        sender=addresses("sender") if "sender" in first else (),
        to=addresses("to") if "to" in first else (),
        cc=addresses("cc") if "cc" in first else (),
        bcc=addresses("bcc") if "bcc" in first else (),
        reply_to=addresses("reply-to") if "reply-to" in first else (),
        return_path=return_path,
        message_id=_message_id(fields.value("message-id")) if "message-id" in first else "",
        in_reply_to=_message_ids(fields.value("in-reply-to")) if "in-reply-to" in first else (),
        references=_message_ids(fields.value("references")) if "references" in first else (),
        date=sent,
        auto=classify(fields.every("auto-submitted") if "auto-submitted" in first else (), return_path),
        looped=_LOOP in first,
        header_defects=tuple(defects),
        load=partial(_load, raw, header.body, content, LINES_END_WITH_CR in defects),
        identity=_identity(fields),
        # A closure: a partial costs three times as much to make.
        classify=lambda message: classify_mail(message, first, content, lambda: _open(raw, header.body, content)),
        split=split,
    )


_IDENTIFYING = ("message-id", "date", "from", "subject", "received")
_NOTHING = "\0" * (len(_IDENTIFYING) - 1)
IDENTITY_OCTETS = 16


def _identity(fields: _Fields) -> bytes | None:
    """See :attr:`Message.identity`. Of several fields of one name the first counts: of Received that of the last
    server, which is its own for every message."""
    text = "\0".join(fields.values(_IDENTIFYING))
    if text == _NOTHING:
        return None
    return sha256(text.encode("utf-8", "surrogatepass")).digest()[:IDENTITY_OCTETS]


class _Fields:
    """The fields of a header by name in lower case, still encoded; what is wrong with them goes to ``defects``."""

    __slots__ = ("_fields", "again", "defects", "first")

    def __init__(self, fields: list[tuple[str, str]], defects: list[str]) -> None:
        self._fields = fields
        self.defects = defects
        first: dict[str, int] = {}
        again: set[str] = set()
        for index, (name, _) in enumerate(fields):
            key = name.lower()
            if key in first:
                again.add(key)
            else:
                first[key] = index
        self.first = first
        """Where each field stands first."""
        self.again = again
        """The fields that stand there more than once."""
        if again and not _ONCE.isdisjoint(again):
            defects.append(FIELD_REPEATED)

    def value(self, key: str) -> str:
        """The first value; "" without such a field."""
        at = self.first.get(key)
        return "" if at is None else self._fields[at][1]

    def values(self, keys: Iterable[str]) -> list[str]:
        """The first value of each."""
        fields, first = self._fields, self.first
        return [fields[first[key]][1] if key in first else "" for key in keys]

    def every(self, key: str) -> list[str]:
        """All values, in order."""
        if key in self.again:
            return [value for name, value in self._fields if name.lower() == key]
        return [self.value(key)] if key in self.first else []

    def above(self, at: int, key: str) -> list[str]:
        """The values of those that stand above the field ``at``."""
        return [value for name, value in self._fields[:at] if name.lower() == key]

    def addresses(self, key: str) -> tuple[Address, ...]:
        """The addresses of all these fields together."""
        if key not in self.first:
            return ()
        found, defect = parse_addresses(self.value(key))
        for value in self.every(key)[1:] if key in self.again else ():
            others, fault = parse_addresses(value)
            found, defect = found + others, defect or fault
            if len(found) > KEPT:
                found, defect = found[:KEPT], CUT
                break
        if defect and defect not in self.defects:
            self.defects.append(defect)
        return found

    def content(self) -> dict[str, str]:
        """The first value of each field that describes the body."""
        fields, first = self._fields, self.first
        return {key: fields[first[key]][1] for key in CONTENT if key in first}


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


def _open(raw: RawMessage, start: int, fields: dict[str, str]) -> tuple[Block, list[Part]]:
    """The octets and the parts in the first of them, which is where a report stands."""
    octets = with_line_feeds(raw.octets.view())
    return octets, scan(octets, start, min(len(octets), start + _OPENED), fields)[0]


def with_line_feeds(octets: Block) -> Block:
    """The octets as they are read: with a line feed for each carriage return, if none of their lines ends with one."""
    if octets.find(b"\n", 0, _FIRST_LINE_WITHIN) < 0 and _ends_lines_with_cr(octets):
        return _with_line_feeds(octets)
    return octets


def _ends_lines_with_cr(octets: Block) -> bool:
    """No line feed where the first line should end, but a carriage return, and small enough to be copied."""
    return octets.find(b"\r", 0, _FIRST_LINE_WITHIN) >= 0 and len(octets) <= _CR_LIMIT


def _with_line_feeds(octets: Block) -> bytes:
    """Each CR made LF: as long as before, so that every offset holds for the original too."""
    return octets[:].replace(b"\r", b"\n")


def _noted_here(fields: _Fields) -> bool:
    """True if the Return-Path is that of the server that delivered the message (RFC 5321 section 4.4): it stands above
    the first Received, and what is below may be a stranger's. Gmail alone puts a hop inside of itself above both."""
    at, received = fields.first.get("return-path"), fields.first.get("received")
    if at is None or received is None or at < received:
        return at is not None
    return all(_GMAIL_HOP.match(value) for value in fields.above(at, "received"))


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
    if not value:
        return ""
    found = _MESSAGE_ID.search(value)
    return clean(found[0] if found else value)[:_LONGEST_ID]


def _message_ids(value: str) -> tuple[str, ...]:
    """Every ``<…>`` in order, brackets included: the last thousand, which are the nearest ancestors."""
    if not value:
        return ()
    return tuple(clean(found)[:_LONGEST_ID] for found in _MESSAGE_ID.findall(value)[-_IDS_KEPT:])
