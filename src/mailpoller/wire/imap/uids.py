"""Sets of uids, and the answers that hold them (RFC 3501 section 7.2.5, RFC 4731)."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator

from mailpoller.wire.imap.reader import ProtocolViolation

MAX_UIDS = 1_200_000
"""How many uids one answer may name, in all its pieces; ``1:4294967295`` is short to send and long to expand."""


_PIECE = 64 << 10


# --- uids ------------------------------------------------------------------------------------------------------------
def read_search(words: bytes, most: int = MAX_UIDS) -> array[int]:
    """The uids of a SEARCH answer (``4 7 12``, perhaps with ``(MODSEQ n)``), as they come; ``most`` of them at most."""
    words = words.partition(b"(")[0]
    uids: array[int] = array("I")
    try:
        for piece in _pieces(words, b" "):
            uids.extend(map(int, piece.split()))
            if len(uids) > most:
                raise ProtocolViolation(_TOO_MANY)
    except (ValueError, OverflowError):
        raise ProtocolViolation("a SEARCH answer has something that is no uid") from None
    return uids


_TOO_MANY = f"an answer names more than {MAX_UIDS} uids"


def read_esearch(words: bytes, most: int = MAX_UIDS) -> array[int]:
    """The uids of an ESEARCH answer (RFC 4731): ``(TAG "A1") UID ALL 1:4,7``; without ALL nothing was found."""
    found = re.search(rb"(?i:\bALL) ([\d:,]++)", words)
    return read_set(found[1], most) if found else array("I")


def read_set(words: bytes, most: int = MAX_UIDS) -> array[int]:
    """The uids of a sequence set, as they come. Raises :class:`ProtocolViolation` if they are more than ``most``, and
    then before a range is expanded."""
    uids: array[int] = array("I")
    try:
        for piece in _pieces(words, b","):
            if b":" not in piece:
                uids.extend(map(int, piece.split(b",")))
            else:
                for low, high in _ranges(piece):
                    if high - low + len(uids) >= most:
                        raise ProtocolViolation(_TOO_MANY)
                    uids.extend(range(low, high + 1))
            if len(uids) > most:
                raise ProtocolViolation(_TOO_MANY)
    except (ValueError, OverflowError):
        raise ProtocolViolation("a set has something that is no uid") from None
    return uids


def count_set(words: bytes) -> int:
    """How many numbers a sequence set names, without expanding it. Raises :class:`ProtocolViolation`."""
    try:
        return sum(high - low + 1 for low, high in _ranges(words))
    except ValueError:
        raise ProtocolViolation("a set has something that is no uid") from None


def _ranges(words: bytes) -> Iterator[tuple[int, int]]:
    for part in words.split(b","):
        first, colon, last = part.partition(b":")
        low = int(first)
        high = int(last) if colon else low
        yield min(low, high), max(low, high)


def _pieces(words: bytes, between: bytes) -> Iterator[bytes]:
    """``words`` cut where ``between`` stands, 64 KB at a time: all of it split at once is twenty times as large."""
    position, end = 0, len(words)
    while end - position > _PIECE:
        cut = words.find(between, position + _PIECE)
        if cut < 0:
            break
        yield words[position:cut]
        position = cut + 1
    yield words[position:]
