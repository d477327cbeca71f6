"""Plain text of HTML, as a person would read it: one pass over its tags, in time and memory linear in it.

What HTML looks like to whom it was sent is for a browser. This keeps the words, in lines and paragraphs, quotes
behind ``>``, lists and tables in rows, each link's address once, and leaves out what nobody was to see.
"""

from __future__ import annotations

import re

from mailpoller.core.record import record
from mailpoller.mail.understand.markup import Writer

CHARACTERS = 500_000
"""Characters of HTML that are looked at."""
TAGS = 20_000
"""Tags that are looked at: a tag costs a hundred times what a character does."""

_MARKUP = re.compile(r"<(?:(/?+)([A-Za-z][^\s/>]*+)|(!--)|[!?])")
_PLAIN_TAG = re.compile(r"[^>\"']*+>")
_QUOTED_TAG = re.compile(r"(?:[^>\"']++|\"[^\"]*+\"|'[^']*+')*+>")
_LONGEST_TAG = 1 << 16
_FAILURES = 20

_UNREAD = frozenset(("script", "style", "title", "template", "xml"))
_CLOSES = {name: re.compile(rf"</{name}(?![\w-])", re.IGNORECASE) for name in _UNREAD}


@record
class Rendered:
    """``hidden``: characters of text that nobody was to see, and that were left out. ``cut``: there was more."""

    text: str
    hidden: int
    cut: bool


def render(html: str) -> Rendered:
    """The text of HTML, however broken that is. Never raises; at most :data:`CHARACTERS` and :data:`TAGS` of it."""
    writer = Writer()
    cut = len(html) > CHARACTERS
    if cut:
        html = html[:CHARACTERS]
        if (tag := html.rfind("<")) > html.rfind(">"):
            html = html[:tag]  # what is cut in two is no text
    cut = _read(html, writer) or cut
    return Rendered("".join(writer.out).strip("\n"), writer.hidden, cut)


def _read(html: str, writer: Writer) -> bool:
    """Write it all; True if there were more tags than we look at."""
    at = failures = 0
    unclosed: set[str] = set()
    for _ in range(TAGS):
        found = _MARKUP.search(html, at)
        if found is None:
            writer.text(html[at:])
            return False
        begin, end = found.span()
        if begin > at:
            writer.text(html[at:begin])
        closing, name, comment = found.groups()
        if comment:
            stop = -1 if "--" in unclosed else html.find("-->", begin + 2)
            if stop < 0:
                unclosed.add("--")
            at = stop + 3 if stop >= 0 else end
            continue
        plain = _PLAIN_TAG.match(html, end)
        if plain is None and failures < _FAILURES:
            plain = _QUOTED_TAG.match(html, end, end + _LONGEST_TAG)
            failures += plain is None
        at = plain.end() if plain is not None else html.find(">", end) + 1
        if not at:  # no tag ends any more, so none begins
            writer.text(html[begin:])
            return False
        if not name:
            continue
        name = name.lower()
        if closing:
            writer.end(name)
        elif name in _UNREAD:
            close = None if name in unclosed else _CLOSES[name].search(html, at)
            if close is None:
                unclosed.add(name)
            else:
                at = close.start()
        else:
            writer.begin(name, html[end : at - 1])
    return at < len(html)
