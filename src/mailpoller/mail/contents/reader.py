"""Opens what is closed in a message: each kind by its own reader, and each part for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from mailpoller.core.body import Attachment, Contents, Undone
from mailpoller.core.contents import Calendar, Report
from mailpoller.core.message import Message
from mailpoller.mail.contents import kinds
from mailpoller.mail.contents.calendar import CONSIDERED, read_calendar
from mailpoller.mail.contents.compressed_rtf import unpacked_rtf
from mailpoller.mail.contents.inner import Inner, leaves_of, messages_within
from mailpoller.mail.contents.leaf import Leaf
from mailpoller.mail.contents.reports import read_report
from mailpoller.mail.contents.rtf import read_rtf
from mailpoller.mail.contents.tnef import Opened, read_tnef
from mailpoller.mail.contents.unpack import Closed
from mailpoller.mail.parser import with_line_feeds
from mailpoller.mail.understand.html import render

_TRIED = 5
"""Parts of one kind that are opened."""


def read_contents(message: Message, wanted: Sequence[str]) -> Contents:
    """What is in the parts of these kinds (:data:`mailpoller.mail.contents.kinds.KINDS`), of which a report is looked
    for in a message of that class alone. Its octets are open.

    Never raises but MemoryError; bounded in time and memory.
    """
    octets = with_line_feeds(message.raw.octets.view())
    leaves = leaves_of(octets, 0, len(octets), top=True)
    readers: list[tuple[str, _Read]] = [(kinds.CALENDAR, _calendar), (kinds.TNEF, _tnef)]
    if message.classification.kind == kinds.REPORT:
        readers.insert(0, (kinds.REPORT, _report))
    found = _found_in(leaves, [one for one in readers if one[0] in wanted])
    own = _contents(found, found.attachments)
    if all(kind == kinds.REPORT for kind in wanted):
        return own
    try:
        first, others = messages_within(leaves, octets)
        forwarded = _within(first, worded=True)
        beside = _within(others, worded=False)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # a bug of ours is no reason to lose what stands outside
        return replace(own, undone=(*own.undone, Undone(kinds.MESSAGES, kinds.FAILED)))
    why = (Undone(kinds.MESSAGES, word) for word in (*first.why, *others.why))
    undone = tuple(dict.fromkeys((*own.undone, *forwarded.undone, *beside.undone, *why)))
    told = replace(forwarded, undone=())
    return replace(
        own,
        attachments=(*own.attachments, *(replace(one, within="message") for one in beside.attachments)),
        undone=undone,
        forwarded=told if told != Contents() else None,
    )


def _within(inner: Inner, *, worded: bool) -> Contents:
    """What is in messages within the mail."""
    found = _found_in(inner.leaves, [(kinds.CALENDAR, _calendar), (kinds.TNEF, _tnef)], worded=worded)
    attachments = [replace(one, within="message") for one in inner.attachments] + found.attachments
    return _contents(found, attachments)


def _contents(found: _Found, attachments: Sequence[Attachment]) -> Contents:
    return Contents(
        found.report,
        found.calendar,
        tuple(attachments),
        found.text,
        tuple(found.undone),
        html=found.html,
        hidden=found.hidden,
    )


def _found_in(leaves: Sequence[Leaf], readers: Iterable[tuple[str, _Read]], *, worded: bool = True) -> _Found:
    """What these readers find, each in the parts of its kind."""
    found = _Found(worded=worded)
    for kind, read in readers:
        try:
            why = read([leaf for leaf in leaves if kinds.kind_of(leaf.part) == kind], found)
        except (MemoryError, RecursionError):
            raise
        except Exception:  # a bug of one reader's is no reason to lose what the others find
            why = [kinds.FAILED]
        found.undone += [Undone(kind, word) for word in why]
    return found


@dataclass(slots=True)
class _Found:
    report: Report | None = None
    calendar: Calendar | None = None
    attachments: list[Attachment] = field(default_factory=list)
    text: str = ""
    html: str = ""
    hidden: int = 0
    worded: bool = True  # somebody tells its text
    undone: list[Undone] = field(default_factory=list)


_Read = Callable[[Sequence[Leaf], _Found], Iterable[str]]


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


def _words_of(opened: Opened, found: _Found) -> list[str]:
    """Note the text of a TNEF, whatever it is written in; in words what keeps us from it."""
    html = opened.html
    found.text = opened.text
    if not found.text and not html and opened.rich:
        found.worded = False  # one is looked at: each may take half a second
        try:
            rich = read_rtf(unpacked_rtf(opened.rich))
        except Closed:
            return ["rich-text"]
        if rich.kind == "plain":
            found.text = rich.text
        else:
            html = rich.text
    if not found.text and html:
        rendered = render(html)
        found.text, found.html, found.hidden = rendered.text, html, rendered.hidden
        return ["too-large"] if rendered.cut else []
    return []


def _tnef(leaves: Sequence[Leaf], found: _Found) -> Iterable[str]:
    why: list[str] = []
    for leaf in leaves[:_TRIED]:
        try:
            opened = read_tnef(leaf.octets())
        except Closed as closed:
            why.append(str(closed))
            continue
        found.attachments += opened.attachments
        if not found.text and found.worded:
            why += _words_of(opened, found)
    return dict.fromkeys(why + (["too-many"] if len(leaves) > _TRIED else []))
