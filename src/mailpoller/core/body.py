"""What a parser found in a message's body: text, attachments, and what was left closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal

from mailpoller.core.address import Address as Address
from mailpoller.core.contents import Calendar, Report
from mailpoller.core.record import record


@record
class Attachment:
    """A leaf part that is not the message's own text.

    ``size`` and ``sha256`` (hex) are of the decoded octets. ``start`` and ``end`` bound the still encoded body in
    the raw octets, ``encoding`` is its Content-Transfer-Encoding, so that it can be cut out without a second parse.
    ``within``: ``tnef`` if it lies inside of such an attachment, where no offsets lead; ``message`` if it is one of a
    message that is an attachment; else "". ``detected_type``: what its octets are of, "" if they have no signature.
    ``macros``: it holds programs that run when it is opened. ``encrypted``: it cannot be read without a key. All three
    are told without unpacking anything. ``removed``: its octets are in the quarantine alone.
    """

    name: str
    content_type: str
    size: int
    sha256: str
    inline: bool = False
    content_id: str = ""
    start: int = 0
    end: int = 0
    encoding: str = ""
    within: str = ""
    detected_type: str = ""
    macros: bool = False
    encrypted: bool = False
    removed: bool = False


@record
class Forwarded:
    """A message within the message (``message/rfc822``), as far as a person would look at it; dates are aware.

    The offsets of its attachments are those of the raw octets, or 0 if it was encoded as a whole. ``attachments`` and
    ``calendar`` are also those of the messages within it.
    """

    from_: tuple[Address, ...]
    date: datetime | None
    subject: str
    text: str
    html: str
    attachments: tuple[Attachment, ...]
    calendar: Calendar | None = None

    def opened(self, contents: Contents) -> Forwarded:
        """This message with what was found in its closed parts, and in messages within it."""
        own = "" if self.text.strip() or self.html.strip() else contents.text
        return replace(
            self,
            text=own or self.text,
            html=contents.html if own else self.html,
            attachments=(*self.attachments, *contents.attachments),
            calendar=contents.calendar,
        )


@record
class Undone:
    """Something that was not done with a message: ``what``, and ``why``, both constant words."""

    what: str
    why: str


TextFrom = Literal["plain", "html", "none"]
RICH_TEXT = Undone("tnef", "rich-text")
"""The text of a TNEF attachment is not plain, which matters where the mail has no other."""


@record
class Body:
    """What lies below the header: the message's own text and HTML (decoded, valid Unicode) and its attachments.

    ``forwarded``: the first message within it that was opened, or None; it is among the attachments all the same.
    ``text_from``: what the text was made of; ``text_hidden``: characters of the HTML's text that nobody was to see,
    and that are not in it.
    ``closed``: the kinds of its parts that take a reader of their own (:class:`Contents`). ``report`` and
    ``calendar``: what such readers found. ``encryption``: ``pgp`` or ``smime`` if the mail can be read with a key
    alone, else "".
    """

    text: str
    html: str
    attachments: tuple[Attachment, ...]
    defects: tuple[str, ...] = ()
    forwarded: Forwarded | None = None
    undone: tuple[Undone, ...] = ()
    text_from: TextFrom = "none"
    text_hidden: int = 0
    closed: tuple[str, ...] = ()
    report: Report | None = None
    calendar: Calendar | None = None
    encryption: Literal["", "pgp", "smime"] = ""

    def opened(self, contents: Contents) -> Body:
        """This body with what was found in its closed parts. A text found there is its own if it has no other."""
        worded = bool(self.text.strip() or self.html.strip())
        own = "" if worded else contents.text
        undone = [one for one in contents.undone if not (worded and one == RICH_TEXT)]
        return replace(
            self,
            text=own or self.text,
            html=contents.html if own else self.html,
            text_from=("html" if contents.html else "plain") if own else self.text_from,
            text_hidden=contents.hidden if own else self.text_hidden,
            closed=(),
            report=contents.report,
            calendar=contents.calendar,
            attachments=(*self.attachments, *contents.attachments),
            forwarded=self._forwarded(contents),
            undone=(*self.undone, *undone),
        )

    def _forwarded(self, contents: Contents) -> Forwarded | None:
        within = contents.forwarded
        return self.forwarded if self.forwarded is None or within is None else self.forwarded.opened(within)


@record
class Contents:
    """What readers found in the parts that a body left closed, and what they could not do.

    ``forwarded``: what they found in the message of that name. ``html``: that of which ``text`` was made, "" for none;
    ``hidden``: characters of it that nobody was to see.
    """

    report: Report | None = None
    calendar: Calendar | None = None
    attachments: tuple[Attachment, ...] = ()
    text: str = ""
    undone: tuple[Undone, ...] = ()
    forwarded: Contents | None = None
    html: str = ""
    hidden: int = 0

    @classmethod
    def unread(cls, closed: Sequence[str], why: str) -> Contents:
        """Of parts of these kinds that stay closed, for a reason in one constant word."""
        return cls(undone=tuple(Undone(kind, why) for kind in closed))
