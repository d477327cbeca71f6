"""Text of ``format=flowed``: lines that were only broken to be sent are one again (RFC 3676)."""

from __future__ import annotations

from itertools import islice

LINES = 20_000
"""Lines that are looked at; the rest stays as it is."""

_SIGNATURE = "-- "


def join(text: str, *, delsp: bool) -> tuple[str, bool]:
    """The text with whole paragraphs, and False if it has more than :data:`LINES` lines. ``delsp``: the space at
    which a line was broken is no part of the text (section 4.1).

    Lines end with line feeds. Quotes keep their marks, ``>`` for each level and a space; ``-- `` above a signature
    stays a line of its own (section 4.3).
    """
    written: list[str] = []
    depth = -1  # of the paragraph that goes on in the next line; -1 if none does
    lines = text.split("\n", LINES)
    rest = lines[LINES:]
    for line in islice(lines, LINES):
        content = line.lstrip(">")
        quotes = len(line) - len(content)
        content = content.removeprefix(" ")
        if content == _SIGNATURE:
            depth = -1
            written.append(f"\n{_marks(quotes)}{content}")
            continue
        flows = content.endswith(" ")
        if flows and delsp:
            content = content[:-1]
        written.append(content if quotes == depth else f"\n{_marks(quotes)}{content}")
        depth = quotes if flows else -1
    joined = "".join(written)[1:]
    return (f"{joined}\n{rest[0]}", False) if rest else (joined, True)


def _marks(quotes: int) -> str:
    return ">" * quotes + " " if quotes else ""
