"""Opens what is closed in a message: each kind by its own reader, and each part for itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mailpoller.core.body import Attachment, Contents, Undone
from mailpoller.core.contents import Calendar, Report
from mailpoller.core.message import Message
from mailpoller.core.spool import Block
from mailpoller.mail.body import content_fields
from mailpoller.mail.contents import kinds
from mailpoller.mail.contents.calendar import CONSIDERED, read_calendar
from mailpoller.mail.contents.leaf import Leaf
from mailpoller.mail.contents.reports import read_report
from mailpoller.mail.contents.tnef import read_tnef
from mailpoller.mail.contents.unpack import Closed
from mailpoller.mail.header import read_header
from mailpoller.mail.parser import with_line_feeds
from mailpoller.mail.signed import is_cms, unwrap
from mailpoller.mail.structure import scan

_TRIED = 5
"""Parts of one kind that are opened."""


def read_contents(message: Message, wanted: Sequence[str]) -> Contents:
    """What is in the parts of these kinds (:data:`mailpoller.mail.contents.kinds.KINDS`), of which a report is looked
    for in a message of that class alone. Its octets are open.

    Never raises but MemoryError; bounded in time and memory.
    """
    leaves = _leaves(with_line_feeds(message.raw.octets.view()), top=True)
    found = _Found()
    for kind, read in (
        (kinds.REPORT, _report),
        (kinds.CALENDAR, _calendar),
        (kinds.TNEF, _tnef),
    ):
        if kind not in wanted or (kind == kinds.REPORT and message.classification.kind != kinds.REPORT):
            continue
        try:
            why = read([leaf for leaf in leaves if kinds.kind_of(leaf.part) == kind], found)
        except (MemoryError, RecursionError):
            raise
        except Exception:  # a bug of one reader's is no reason to lose what the others find
            why = [kinds.FAILED]
        found.undone += [Undone(kind, word) for word in why]
    return Contents(found.report, found.calendar, tuple(found.attachments), found.text, tuple(found.undone))


def _leaves(octets: Block, *, top: bool) -> list[Leaf]:
    """The parts of a message, and those that lie in its first opaque signature, as a body is read, too."""
    header = read_header(octets, 0, len(octets), top=top)
    parts, _ = scan(octets, header.body, len(octets), content_fields(header.fields))
    leaves = [Leaf(octets, part) for part in parts]
    signed = next((leaf for leaf in leaves if is_cms(leaf.part.content_type, leaf.part.name)), None) if top else None
    if signed is not None:
        try:
            content = unwrap(signed.octets())
        except Closed:
            content = None
        leaves += _leaves(content, top=False) if content is not None else []
    return leaves


@dataclass(slots=True)
class _Found:
    report: Report | None = None
    calendar: Calendar | None = None
    attachments: list[Attachment] = field(default_factory=list)
    text: str = ""
    undone: list[Undone] = field(default_factory=list)


def _report(leaves: Sequence[Leaf], found: _Found) -> Iterable[str]:
    found.report, why = read_report(leaves)
    return [why] if why else []


def _calendar(leaves: Sequence[Leaf], found: _Found) -> Iterable[str]:
    """The first that can be read; of several forms of one invitation that which says what it is sent for."""
    why = ""
    for leaf in leaves[:_TRIED]:
        try:
            read = read_calendar(leaf.octets(CONSIDERED), leaf.part.charset)
        except Closed as closed:
            why = why or str(closed)
            continue
        if found.calendar is None or (read.method and not found.calendar.method):
            found.calendar = read
    return [why] if why and found.calendar is None else []


def _tnef(leaves: Sequence[Leaf], found: _Found) -> Iterable[str]:
    why: list[str] = []
    for leaf in leaves[:_TRIED]:
        try:
            opened = read_tnef(leaf.octets())
        except Closed as closed:
            why.append(str(closed))
            continue
        found.attachments += opened.attachments
        found.text = found.text or opened.text
        if opened.rich and not opened.text:
            why.append("rich-text")
    return dict.fromkeys(why + (["too-many"] if len(leaves) > _TRIED else []))
