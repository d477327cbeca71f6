"""What a server gives *instead of* a mail that it cannot give: notices of its own, which must not be taken for that
mail."""

from __future__ import annotations

import re

from mailpoller.core.spool import Octets

LONGEST = 8192
"""Octets of a notice, at most; what is longer is somebody's mail."""

_OWN = re.compile(
    rb"(?ims)"
    # Courier, of a message that another session has removed, and of one that it cannot show without UTF8 (RFC 6856).
    rb"^Subject:\s+message unavailable\s*$"
    rb"|^This message is no longer available on the server\."
    rb"|^Subject:.{0,80}\bcannot open message\b"
    # Exchange, in the language that it was installed in first; the number stands on a line of its own where it is
    # folded.
    rb"|^Subject:\s+Retrieval\s+using\s+the\s+(?:IMAP4?|POP3?)\s+protocol\s+failed\s+for\s+the\s+following\s+message"
    rb"|^The server could(?:n.{1,5}t| not) retrieve the following message:"
)
"""Notices that are known word by word: any contradiction in size is enough."""
_ENCLOSING = re.compile(rb"From: Mail Delivery Subsystem <postmaster>\r?\nSubject: Cannot display Unicode content\r?\n")
"""The same, but the mail is enclosed, so that they are of any length: what Courier gives to whom it was not told that
he has UTF8."""
_LIKE = re.compile(
    rb"(?is)\b(?:message|mail|e-mail|nachricht|contents?)\b.{0,120}?"
    rb"\b(?:(?:could(?:n'?t| not)|can(?:'t|not| not)) be "
    rb"(?:retrieved|displayed|read|opened|downloaded|converted|rendered|loaded)"
    rb"|(?:is|was) (?:no longer available|unavailable|not available|corrupt(?:ed)?|damaged)"
    rb"|(?:retrieval|conversion) failed)"
    rb"|\b(?:unable|failed|failure|error|not able) (?:to|in|while|when) "
    rb"(?:retriev|convert|read|open|load|render|fetch|download)\w* (?:\w+ ){0,4}?(?:message|mail|e-mail)\b"
    rb"|\b(?:impossible de (?:r.{1,7}cup.{1,7}rer|lire)|no se (?:puede|pudo) "
    rb"recuperar)\b.{0,80}?\b(?:message|mensaje)\b"
    rb"|\bkonnte nicht abgerufen werden\b|\bfehler beim abrufen\b"
)
"""Words of a notice that nobody has shown us yet: only where the size differs by far, too."""


def stand_in(octets: Octets, announced: int | None) -> str:
    """Why ``octets`` are a notice of the server's in place of a mail, in words; empty if they are none, as far as can
    be told.

    ``announced`` is the size that the server has told of the mail. No size, or one that is kept, is no contradiction:
    then somebody may have sent just these words. Costs a comparison where the size is kept or the mail is long.
    """
    if announced is None or announced == octets.size or not octets.size:
        return ""
    held = octets.head(LONGEST)
    enclosing = _ENCLOSING.match(held) is not None
    if octets.size > LONGEST and not enclosing:
        return ""
    known = enclosing or _OWN.search(held) is not None
    if known or (abs(announced - octets.size) > max(announced, octets.size) // 2 and _LIKE.search(held) is not None):
        return (
            f"the server gives a notice of its own in place of the message ({octets.size} octets instead of "
            f"{announced})"
        )
    return ""
