"""Which attachments the mail that leaves in a mailbox's name may have."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import Field, StringConstraints

from mailpoller.core.body import Attachment
from mailpoller.core.component import Block
from mailpoller.core.literals import Size
from mailpoller.core.record import record

_KIND = r"^[A-Za-z0-9!#$&^_.+-]+/([A-Za-z0-9!#$&^_.+-]+|\*)$"

_NOTHING_SAID = "application/octet-stream"


@record
class Enclosures:
    """What may go along. ``types``: media types in small letters, ``image/*`` is every kind of image; none: all.
    ``max_size``: octets of all attachments of a mail together, decoded."""

    types: frozenset[str] = frozenset()
    max_size: int = 20_000_000

    def objection(self, attachments: Collection[Attachment]) -> str:
        """Why these may not go along, in words; "" if they may. What an attachment calls itself and what its octets
        are must both be allowed."""
        for one in attachments:
            if self.types and (kind := next((kind for kind in _kinds(one) if not self._allows(kind)), "")):
                return f"the mailbox sends no attachments of the type {kind} (outbound_attachments.types)"
        size = sum(one.size for one in attachments)
        if size > self.max_size:
            return f"attachments of {size} octets are more than outbound_attachments.max_size, {self.max_size}"
        return ""

    def _allows(self, kind: str) -> bool:
        return kind in self.types or f"{kind.partition('/')[0]}/*" in self.types


class OutboundAttachments(Block):
    """Which attachments may go along."""

    types: list[Annotated[str, StringConstraints(pattern=_KIND, max_length=127)]] = Field(default=[], max_length=1000)
    """Media types: ``application/pdf``, ``image/*``. What an attachment calls itself and what its octets are must both
    be among them. None: all."""
    max_size: Size = 20_000_000
    """Octets of all attachments of a mail together, before they are encoded."""


def enclosures(written: bool | OutboundAttachments) -> Enclosures | None:
    """The same as the engine reads it; None: no attachment may go along."""
    if isinstance(written, OutboundAttachments):
        return Enclosures(frozenset(one.lower() for one in written.types), written.max_size)
    return Enclosures() if written else None


def _kinds(one: Attachment) -> list[str]:
    declared, detected = one.content_type.lower(), one.detected_type.lower()
    if detected and declared == _NOTHING_SAID:
        return [detected]
    return [kind for kind in (declared, detected) if kind]
