"""One file out of gzip (RFC 1952) or zip (APPNOTE 4.3), no larger than it may be."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

LARGEST = 50_000_000
"""Octets that come out of an archive at most."""
RATIO = 100
"""Times its size that may come out of one at most."""

_PIECE = 1 << 16
_FED = 1 << 14
_GZIP = b"\x1f\x8b"
_MEMBERS = 20
_LOCAL = b"PK\x03\x04"
_LOCAL_SIZE = 30
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _SIZE_FOLLOWS = 1, 8


class Closed(ValueError):
    """It stays closed, for the reason in one constant word: ``too-large``, ``encrypted`` or ``malformed``."""


def unpacked(octets: bytes, suffixes: tuple[str, ...]) -> Iterator[bytes]:
    """The octets in pieces of 64 KiB: those of gzip, or of the first member of a zip whose name ends as wanted, or the
    octets themselves if they are neither. Raises :class:`Closed`."""
    if octets.startswith(_GZIP):
        return _bounded(octets, 0, 31, len(octets))
    if octets.startswith(_LOCAL):
        return _member(octets, suffixes)
    return (octets[at : at + _PIECE] for at in range(0, len(octets), _PIECE))


def _member(octets: bytes, suffixes: tuple[str, ...]) -> Iterator[bytes]:
    at = 0
    for _ in range(_MEMBERS):
        head = octets[at : at + _LOCAL_SIZE]
        if len(head) < _LOCAL_SIZE or not head.startswith(_LOCAL):
            break
        flags, method = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
        size = int.from_bytes(head[18:22], "little")
        begin = at + _LOCAL_SIZE + int.from_bytes(head[26:28], "little")
        name = octets[at + _LOCAL_SIZE : begin].decode("utf-8", "replace").lower()
        begin += int.from_bytes(head[28:30], "little")
        if name.endswith(suffixes):
            if flags & _ENCRYPTED:
                raise Closed("encrypted")
            if method == _STORED and not flags & _SIZE_FOLLOWS:
                return (octets[one : min(one + _PIECE, begin + size)] for one in range(begin, begin + size, _PIECE))
            if method != _DEFLATED:
                raise Closed("malformed")
            return _bounded(octets, begin, -15, size if not flags & _SIZE_FOLLOWS else len(octets) - begin)
        if flags & _SIZE_FOLLOWS:
            at = octets.find(_LOCAL, begin)
            if at < 0:
                break
        else:
            at = begin + size
    raise Closed("malformed")


def _bounded(octets: bytes, begin: int, window: int, size: int) -> Iterator[bytes]:
    """What a deflated stream holds (RFC 1951); of several gzip members all."""
    end = min(begin + size, len(octets))
    left = min(LARGEST, RATIO * max(end - begin, 1))
    for _ in range(_MEMBERS):
        stream = zlib.decompressobj(window)
        waiting = b""
        while not stream.eof:
            if not waiting:
                # In small pieces, since what is not yet consumed is copied every time.
                waiting = octets[begin : min(begin + _FED, end)]
                begin += len(waiting)
            try:
                piece = stream.decompress(waiting, _PIECE)
            except zlib.error:
                raise Closed("malformed") from None
            cut = not waiting and not piece
            waiting = stream.unconsumed_tail
            left -= len(piece)
            if left < 0:
                raise Closed("too-large")
            if piece:
                yield piece
            elif cut:
                raise Closed("malformed")
        begin -= len(stream.unused_data)
        if window < 0 or octets[begin : begin + 2] != _GZIP:
            return
