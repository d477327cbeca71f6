"""Which attachments of a mailbox's mail go no further than the quarantine."""

from __future__ import annotations

from dataclasses import replace

from mailpoller.core.body import Attachment, Body, Forwarded
from mailpoller.core.record import record

ATTACHMENTS = "attachments"
"""The reason of a message that is held for what was removed from it, and was brought to its queues all the same."""

_CONTAINERS = frozenset(("application/ms-tnef", "application/vnd.ms-tnef"))
_MESSAGES = frozenset(("message/rfc822", "message/global"))


@record
class Removal:
    """What is removed. ``every``: all attachments. Else those that are, or call themselves, of one of ``types``
    (``image/*`` is every kind of image), whose names end in one of ``suffixes``, and, with ``macros`` and
    ``encrypted``, those that are so. All in small letters."""

    every: bool = False
    types: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    macros: bool = False
    encrypted: bool = False

    def takes(self, one: Attachment) -> bool:
        """True if it is removed."""
        if self.every or (self.macros and one.macros) or (self.encrypted and one.encrypted):
            return True
        if self.suffixes and one.name.lower().rstrip(". ").endswith(self.suffixes):
            return True
        kinds = {one.content_type.lower(), one.detected_type.lower()} - {""}
        return any(kind in self.types or f"{kind.partition('/')[0]}/*" in self.types for kind in kinds)

    def applied(self, body: Body) -> tuple[Body, int]:
        """The body without what is removed, and how many attachments that are. They are still told of, by name, size
        and digest, as ``removed``; what was read out of them is not."""
        kept = self._left(body.attachments)
        gone = _gone(kept)
        forwarded = body.forwarded
        if forwarded is not None:
            # A message that was forwarded within the text is none of the attachments, and has none.
            forwarded = None if gone & _MESSAGES and not self.every else self._inside(forwarded)
        number = sum(one.removed for one in (*kept, *(forwarded.attachments if forwarded is not None else ())))
        if not number:
            return body, 0
        calendar = None if "text/calendar" in gone and not self.every else body.calendar
        return replace(body, attachments=kept, forwarded=forwarded, calendar=calendar), number

    def _inside(self, forwarded: Forwarded) -> Forwarded:
        kept = self._left(forwarded.attachments)
        calendar = None if "text/calendar" in _gone(kept) and not self.every else forwarded.calendar
        return replace(forwarded, attachments=kept, calendar=calendar)

    def _left(self, attachments: tuple[Attachment, ...]) -> tuple[Attachment, ...]:
        """All of them, those removed that are taken or lie in what is."""
        boxes = [one for one in attachments if one.content_type.lower() in _CONTAINERS | _MESSAGES and self.takes(one)]
        boxed = {one.within or ("message" if one.content_type.lower() in _MESSAGES else "tnef") for one in boxes}
        return tuple(self._without(one, one.within in boxed) for one in attachments)

    def _without(self, one: Attachment, boxed: bool) -> Attachment:
        return replace(one, removed=True, start=0, end=0) if boxed or self.takes(one) else one


def _gone(kept: tuple[Attachment, ...]) -> set[str]:
    return {one.content_type.lower() for one in kept if one.removed}
