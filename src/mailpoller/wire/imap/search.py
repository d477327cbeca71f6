"""What a SEARCH found, in either form of its answer."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from mailpoller.wire.imap.reader import Response
from mailpoller.wire.imap.uids import MAX_UIDS, read_esearch, read_search


def hits(answers: Sequence[Response]) -> array[int]:
    """The uids in answers to a SEARCH, as they come. Raises :class:`ProtocolViolation`."""
    found: array[int] = array("I")
    for response in answers:
        line = response[0]
        assert isinstance(line, bytes)
        _, keyword, *rest = line.split(b" ", 2)
        words, left = rest[0] if rest else b"", MAX_UIDS - len(found)
        found.extend(read_search(words, left) if keyword.upper() == b"SEARCH" else read_esearch(words, left))
    return found
