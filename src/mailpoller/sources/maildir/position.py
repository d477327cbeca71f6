"""How far a listing of a Maildir has got, as text that the ledger keeps."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterable
from hashlib import blake2b

from mailpoller.core.message import Position
from mailpoller.core.record import record
from mailpoller.sources.maildir.directory import Stamps

_VERSION, _OLD = "2", "1"
_DIGEST_SIZE = 8

SETTLING_NS = 2_000_000_000
"""A directory that changed less than this before it was listed may change again without a new time stamp (clock
ticks of 4 ms, whole seconds on old file systems); its stamp proves nothing, and it is listed again next time."""


def digest(uid: str) -> bytes:
    """Eight octets that stand for a uid: among a million of them a new one is mistaken once in 10^13 times."""
    return blake2b(uid.encode(), digest_size=_DIGEST_SIZE).digest()


@record
class Reached:
    """What is known at a position.

    ``new`` and ``cur``: the stamps of the directories, nanoseconds; None where it proves nothing. ``unwanted``:
    digests of the messages that ``start`` did not want and that are still there: file names and times do not tell
    them from what is moved in later, so they are kept one by one, 11 characters each. ``places``: see
    :class:`~mailpoller.sources.maildir.directory.Stamps`, None if it is not known. ``count``: how many messages there
    were.
    """

    new: int | None
    cur: int | None
    unwanted: frozenset[bytes] = frozenset()
    places: tuple[int, int] | None = None
    count: int = 0

    @classmethod
    def at(cls, stamps: Stamps, unwanted: Iterable[bytes], count: int) -> Reached:
        """What a listing made at ``stamps`` knows."""
        quiet = stamps.asked - SETTLING_NS
        return cls(
            stamps.new if stamps.new < quiet else None,
            stamps.cur if stamps.cur < quiet else None,
            frozenset(unwanted),
            stamps.places,
            count,
        )

    def replaced(self, stamps: Stamps) -> bool:
        """True if other directories lie there now: another file system is mounted, or none, or a copy was put back."""
        return self.places is not None and self.places != stamps.places

    @classmethod
    def parse(cls, position: Position) -> Reached:
        """The inverse of :meth:`write`. A text that is not ours knows nothing: all is listed, and the ledger tells
        what it has; taking ``start`` anew could skip mail instead."""
        parts = position.split(" ")
        if (parts[0], len(parts)) not in ((_VERSION, 8), (_OLD, 5)):
            return cls(None, None)
        try:
            new, cur = (None if part == "-" else int(part) for part in parts[2:4])
            packed = base64.b64decode(parts[4], validate=True)
            known = [int(part) for part in parts[5:]]
        except (ValueError, binascii.Error):
            return cls(None, None)
        unwanted = frozenset(packed[n : n + _DIGEST_SIZE] for n in range(0, len(packed), _DIGEST_SIZE))
        if not known:
            return cls(new, cur, unwanted)
        return cls(new, cur, unwanted, (known[0], known[1]), known[2])

    def write(self) -> Position:
        """The text. No two are equal, even if they know the same: a session tells by it which of its listings is
        meant."""
        packed = base64.b64encode(b"".join(sorted(self.unwanted))).decode()
        new, cur = ("-" if stamp is None else str(stamp) for stamp in (self.new, self.cur))
        text = f"{secrets.token_hex(8)} {new} {cur} {packed}"
        if self.places is None:
            return Position(f"{_OLD} {text}")
        return Position(f"{_VERSION} {text} {self.places[0]} {self.places[1]} {self.count}")
