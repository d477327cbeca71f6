"""The message that is answered, quoted below the answer."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC
from html import escape

from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.sender import Quote
from mailpoller.core.spool import Block, Octets
from mailpoller.mail.compose import printable
from mailpoller.mail.parser import parse
from mailpoller.mail.understand.reply import split

LONGEST = 64_000
"""Characters that are quoted; what is longer is cut, and says so."""
CUT = "[…]"

_BREAKS = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")


def quotation(octets: Block, wish: Quote) -> str:
    """The words of a message as text: a line that says whose and when, then each of its lines behind a ``>``. ``top``:
    what was written for that mail, without what it quotes itself. Empty if it has no words. Takes time in proportion
    to the message; never raises."""
    nobody = Claim(MessageRef(Folder("", "", ""), ""), "")
    message = parse(RawMessage(nobody, Octets(octets, len(octets), b"")))
    text = message.body.text
    if wish == "top":
        start, end = split(text).reply
        text = text[start:end]
    text = "".join(
        one if one in "\n\t" or unicodedata.category(one) not in ("Cc", "Cs") else "\ufffd"
        for one in _BREAKS.sub("\n", text[: LONGEST + 1])
    ).strip("\n")
    if not text.strip():
        return ""
    lines = [line.rstrip() for line in text[:LONGEST].split("\n")]
    if len(text) > LONGEST:
        lines.append(CUT)
    author = message.from_[0] if message.from_ else None
    whose = printable(author.name or author.address, 200) if author is not None else ""
    when = f"{message.date.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if message.date is not None else ""
    said = ", ".join(filter(None, (whose, when)))
    return "\n".join(
        (*([f"{said}:"] if said else []), *(f">{line}" if line[:1] == ">" else f"> {line}".rstrip() for line in lines))
    )


def quoted_in_html(quoted: str) -> str:
    """The same at the end of HTML."""
    return f'<blockquote type="cite"><pre style="white-space: pre-wrap">{escape(quoted)}</pre></blockquote>'
