"""Opens what is closed in a message: each kind by its own reader, and each part for itself."""

from __future__ import annotations

from collections.abc import Sequence

from mailpoller.core.message import Contents, Message, Undone
from mailpoller.mail.body import content_fields
from mailpoller.mail.contents import kinds
from mailpoller.mail.contents.leaf import Leaf
from mailpoller.mail.contents.reports import read_report
from mailpoller.mail.header import read_header
from mailpoller.mail.parser import with_line_feeds
from mailpoller.mail.structure import scan


def read_contents(message: Message, wanted: Sequence[str]) -> Contents:
    """What is in the parts of these kinds (:data:`mailpoller.mail.contents.kinds.KINDS`), of which a report is looked
    for in a message of that class alone. Its octets are open.

    Never raises but MemoryError; bounded in time and memory.
    """
    octets = with_line_feeds(message.raw.octets.view())
    header = read_header(octets, 0, len(octets), top=True)
    parts, _ = scan(octets, header.body, len(octets), content_fields(header.fields))
    leaves = [Leaf(octets, part) for part in parts]
    undone: list[Undone] = []
    report = None
    if kinds.REPORT in wanted and message.classification.kind == kinds.REPORT:
        report, why = read_report([leaf for leaf in leaves if kinds.kind_of(leaf.part) == kinds.REPORT])
        undone += [Undone(kinds.REPORT, why)] if why else []
    return Contents(report=report, undone=tuple(undone))
