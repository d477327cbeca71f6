"""The messages within a message, however they are held: forwarded, forwarded in turn, or a digest of many (RFC 2046
section 5.1.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mailpoller.core.body import Attachment
from mailpoller.core.spool import Block
from mailpoller.mail.body import MESSAGES, attachments_of, content_fields
from mailpoller.mail.contents.leaf import LARGEST, Leaf
from mailpoller.mail.contents.unpack import Closed
from mailpoller.mail.header import read_header
from mailpoller.mail.signed import is_cms, unwrap
from mailpoller.mail.structure import scan
from mailpoller.mail.transfer import is_base64

DEEPEST = 3
"""Messages within messages that are opened, the first one counted."""
MOST = 50
"""Messages of one mail that are opened."""
ATTACHMENTS_KEPT = 500
"""Attachments of these that are told."""
OCTETS = 64 << 20
"""Octets of all of these, each counted as often as it lies within one."""

_AS_IT_IS = frozenset(("", "7bit", "8bit", "binary"))


@dataclass(slots=True)
class Inner:
    """What was found in some of them: the parts, and the attachments of those that nobody else tells of. ``why``: what
    keeps others closed, in constant words."""

    leaves: list[Leaf] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    why: list[str] = field(default_factory=list)


def leaves_of(octets: Block, start: int, end: int, *, top: bool) -> list[Leaf]:
    """The parts of a message, and those that lie in its first opaque signature, as a body is read, too."""
    header = read_header(octets, start, end, top=top)
    parts, _ = scan(octets, header.body, end, content_fields(header.fields))
    leaves = [Leaf(octets, part) for part in parts]
    signed = next((leaf for leaf in leaves if is_cms(leaf.part.content_type, leaf.part.name)), None) if top else None
    if signed is not None:
        try:
            content = unwrap(signed.octets())
        except Closed:
            content = None
        leaves += leaves_of(content, 0, len(content), top=False) if content is not None else []
    return leaves


def messages_within(leaves: Sequence[Leaf], outermost: Block) -> tuple[Inner, Inner]:
    """What is in the message that ``leaves`` hold first, with all that lies in it, and what is in the others.

    ``leaves``: those of the mail itself, whose octets are ``outermost``. Bounded in depth, number and octets.
    """
    walk = _Walk(outermost)
    first, others = Inner(), Inner()
    told = False
    for leaf in leaves:
        if _is_message(leaf):
            # The body opens the first that it can, and none of what was signed.
            forwarded = not told and leaf.held is outermost
            told = walk.open(leaf, first if forwarded else others, 1, told=forwarded) or told
    return first, others


class _Walk:
    def __init__(self, outermost: Block) -> None:
        self.outermost = outermost
        self.messages = self.attachments = self.octets = 0

    def open(self, leaf: Leaf, found: Inner, depth: int, *, told: bool) -> bool:
        """``told``: its attachments are those of the body's forwarded message already. False if it is none, since it
        is too large to be decoded."""
        if depth > DEEPEST or self.messages == MOST:
            found.why.append("too-deep" if depth > DEEPEST else "too-many")
            return True
        self.messages += 1
        part = leaf.part
        octets, start, end = leaf.held, part.start, part.end
        if part.encoding not in _AS_IT_IS and (part.encoding != "base64" or is_base64(octets, start, end)):
            try:
                octets = leaf.octets(min(LARGEST, OCTETS - self.octets))
            except Closed as closed:
                found.why.append(str(closed))
                return False
            start, end = 0, len(octets)
        if self.octets + end - start > OCTETS:
            found.why.append("too-large")
            return True
        self.octets += end - start
        if not told:
            outer = octets is self.outermost
            self.take(attachments_of(octets, start, end, outer=outer), found)
        within = leaves_of(octets, start, end, top=True)
        found.leaves += within
        for one in within:
            if _is_message(one):
                self.open(one, found, depth + 1, told=False)
        return True

    def take(self, attachments: Sequence[Attachment], found: Inner) -> None:
        room = ATTACHMENTS_KEPT - self.attachments
        if len(attachments) > room:
            found.why.append("too-many")
        self.attachments += len(attachments[:room])
        found.attachments += attachments[:room]


def _is_message(leaf: Leaf) -> bool:
    return leaf.part.content_type in MESSAGES and leaf.part.within != "report"
