"""A part as the readers of contents are given it."""

from __future__ import annotations

from mailpoller.core.spool import Block
from mailpoller.mail.contents.unpack import Closed
from mailpoller.mail.structure import Part
from mailpoller.mail.transfer import decoded

LARGEST = 16 << 20
"""Decoded octets of a part that is opened at most."""


class Leaf:
    """A part that is decoded when somebody asks."""

    def __init__(self, octets: Block, part: Part) -> None:
        self.held = octets
        self.part = part

    def octets(self, most: int = LARGEST) -> bytes:
        """All of them. Raises :class:`~mailpoller.mail.contents.unpack.Closed` if there are more than ``most``."""
        held: list[bytes] = []
        size = 0
        for piece in decoded(self.held, self.part.start, self.part.end, self.part.encoding, []):
            held.append(piece)
            size += len(piece)
            if size > most:
                raise Closed("too-large")
        return b"".join(held)
