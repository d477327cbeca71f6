"""What somebody wrote in a mail, apart from what he quoted and signed with."""

from __future__ import annotations

from mailpoller.core.record import record

Span = tuple[int, int]
"""[start, end) in Unicode code points of a text."""


@record
class Said:
    """Pieces of a text, by their places in it. They do not overlap, and but for white space nothing is outside of
    them. ``reply``: what was written for this mail; never empty where the text is not. ``quoted``: what earlier mails
    said, with the line that tells whose; None where nothing is quoted, or where the reply stands between quotes and
    these stay with it. ``signature``: from the line above it on, or the line that a telephone added. ``earlier``:
    where an earlier mail begins that stands below as a whole, without marks, or None; ``forward``: a line above it
    calls it forwarded. ``cut``: the text is longer than what is looked at, and all of it is the reply.
    """

    reply: Span
    quoted: Span | None = None
    signature: Span | None = None
    earlier: int | None = None
    forward: bool = False
    cut: bool = False
