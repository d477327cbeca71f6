"""What a message's header tells where the server tells nothing: a fingerprint to know it by, and when it came."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256

from mailpoller.mail.date import parse_date
from mailpoller.mail.header import read_header
from mailpoller.sources.pop3.reader import ProtocolViolation

CONSIDERED = 64 << 10
"""Octets of a header that are looked at."""
LONGEST_TOP = 8 << 20
"""Octets of an answer to ``TOP n 0``: larger than any honest header."""

_VOLATILE = frozenset(
    (b"status", b"x-status", b"x-keywords", b"x-uid", b"x-uidl", b"x-imap", b"x-imapbase", b"x-mozilla-status",
     b"x-mozilla-status2", b"content-length", b"lines")
)  # fmt: skip
"""Fields that servers write into messages after they were delivered."""


class HeaderTaker:
    """Takes the beginning of a message, up to the end of its header; what comes after that is passed over."""

    __slots__ = ("_held", "_most", "_size")

    def __init__(self, most: int = LONGEST_TOP) -> None:
        self._held = bytearray()
        self._most = most
        self._size = 0

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._most:
            raise ProtocolViolation(f"a header or message is larger than {self._most} octets")
        if len(self._held) < CONSIDERED:
            self._held += chunk[:CONSIDERED]

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        self._held.clear()

    @property
    def text(self) -> bytes:
        """The header without the empty line that ends it."""
        end = self._held.find(b"\r\n\r\n")
        return bytes(self._held[:CONSIDERED] if end < 0 else self._held[: end + 2])


def fingerprint(header: bytes) -> str:
    """SHA-256 of the header without what servers add later; 24 hexadecimal digits of it."""
    found = sha256()
    for line, volatile in _lines(header):
        if not volatile:
            found.update(line + b"\n")
    return found.hexdigest()[:24]


def added(header: bytes) -> int:
    """Octets of what servers add later."""
    return sum(len(line) + 2 for line, volatile in _lines(header) if volatile)


def _lines(header: bytes) -> Iterator[tuple[bytes, bool]]:
    volatile = False
    for line in header.split(b"\r\n"):
        if line[:1] not in (b" ", b"\t"):
            volatile = line.partition(b":")[0].strip().lower() in _VOLATILE
        yield line, volatile


def received_at(header: bytes) -> datetime | None:
    """When the server that keeps the maildrop took the message, by the topmost Received field; None if that is not
    told.

    Date is not asked: it is the sender's, and may be any.
    """
    for name, value in read_header(header, 0, len(header)).fields:
        if name.lower() == "received":
            return parse_date(value.rpartition(";")[2].strip())
    return None
