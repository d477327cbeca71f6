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

_TAG = re.compile(r"<(/?+)([A-Za-z][^\s/>]*+)((?:[^>\"']++|\"[^\"]*+\"|'[^']*+')*+)>")
_BROKEN_TAG = re.compile(r"<(/?+)([A-Za-z][^\s/>]*+)([^>]*+)>")
_LONGEST_TAG = 1 << 16
_FAILURES = 20

_NAMES = frozenset(("a", "b", "br", "div", "p", "span", "td", "tr"))
"""Those that are most often written, in the letters that we know."""
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
        begin = html.find("<", at)
        if begin < 0:
            writer.text(html[at:])
            return False
        tag = _TAG.match(html, begin, begin + _LONGEST_TAG) if failures < _FAILURES else None
        if tag is None:
            end = html.find(">", begin) + 1
            if not end:  # no tag ends any more, so none begins
                writer.text(html[at:])
                return False
            tag = _BROKEN_TAG.match(html, begin, end)
            failures += tag is not None  # it has a quote that is never closed, or is very long
        if tag is None:
            if html.startswith("<!--", begin):
                if begin > at:
                    writer.text(html[at:begin])
                stop = -1 if "--" in unclosed else html.find("-->", begin + 2)
                if stop < 0:
                    unclosed.add("--")
                at = stop + 3 if stop >= 0 else begin + 4
            elif html[begin + 1] in "!?":
                if begin > at:
                    writer.text(html[at:begin])
                at = end
            else:  # a sign, and no tag
                writer.text(html[at : begin + 1])
                at = begin + 1
            continue
        if begin > at:
            writer.text(html[at:begin])
        at = tag.end()
        closing, name, rest = tag.groups()
        if name not in _NAMES:
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
            writer.begin(name, rest)
    return at < len(html)
