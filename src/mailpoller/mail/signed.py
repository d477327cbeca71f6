"""What an opaque S/MIME signature holds: CMS SignedData (RFC 5652 section 5, RFC 8551 section 3.5.2) taken apart.

No key is needed for that, and nothing is checked: a few lengths of BER are followed, in bounded steps.
"""

from __future__ import annotations

CONSIDERED = 16 << 20
"""Octets of one that are looked at; a larger one stays closed."""

_TYPES = frozenset(("application/pkcs7-mime", "application/x-pkcs7-mime"))
_ENVELOPED = (bytes.fromhex("2a864886f70d010703"), bytes.fromhex("2a864886f70d0109100117"))
"""EnvelopedData (RFC 5652 section 6) and AuthEnvelopedData (RFC 5083)."""
_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
_SEQUENCE, _OCTETS, _OCTETS_IN_PIECES, _OID, _EXPLICIT = 0x30, 0x04, 0x24, 0x06, 0xA0
_PIECES_KEPT = 20_000
_DEEPEST = 8


class _Malformed(ValueError):
    pass


def unwrap(octets: bytes) -> bytes | None:
    """The content that is signed, or None: not signed data, detached, cut off within the content, or malformed."""
    try:
        body = _Walk(octets)
        body.enter(_SEQUENCE)
        if body.value(_OID) != _SIGNED_DATA:
            return None
        body.enter(_EXPLICIT)
        body.enter(_SEQUENCE)
        body.skip()  # version
        body.skip()  # digest algorithms
        body.enter(_SEQUENCE)
        body.skip()  # the type of what is signed
        body.enter(_EXPLICIT)
        return body.text()
    except (_Malformed, IndexError):
        return None


def is_cms(kind: str, name: str) -> bool:
    """True for a part that is CMS by its type, or by its name where the type says nothing (RFC 8551 section 3.2.1)."""
    return kind in _TYPES or (kind == "application/octet-stream" and name.lower().endswith(".p7m"))


def is_enveloped(octets: bytes) -> bool:
    """True for CMS that is encrypted."""
    try:
        body = _Walk(octets)
        body.enter(_SEQUENCE)
        return body.value(_OID) in _ENVELOPED
    except (_Malformed, IndexError):
        return False


class _Walk:
    """Goes through tags and lengths from the front; a length may be missing (indefinite, X.690 section 8.1.3.6)."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.at = 0
        self.steps = 0

    def head(self) -> tuple[int, int]:
        """Tag and length of what begins here; -1 for an indefinite one."""
        self.steps += 1
        if self.steps > _PIECES_KEPT:
            raise _Malformed
        tag, length = self.octets[self.at], self.octets[self.at + 1]
        self.at += 2
        if tag & 0x1F == 0x1F:
            raise _Malformed
        if length == 0x80:
            return tag, -1
        if length > 0x80:
            count = length & 0x7F
            if count > 4:
                raise _Malformed
            length = int.from_bytes(self.octets[self.at : self.at + count], "big")
            self.at += count
        return tag, length

    def enter(self, wanted: int) -> None:
        if self.head()[0] != wanted:
            raise _Malformed

    def value(self, wanted: int) -> bytes:
        tag, length = self.head()
        if tag != wanted or length < 0 or self.at + length > len(self.octets):
            raise _Malformed
        self.at += length
        return self.octets[self.at - length : self.at]

    def skip(self, depth: int = 0) -> None:
        _, length = self.head()
        if length >= 0:
            self.at += length
            return
        if depth > _DEEPEST:
            raise _Malformed
        while not self.ended():
            self.skip(depth + 1)

    def ended(self) -> bool:
        """True at the end of what has no length, which is then passed."""
        if self.octets[self.at] or self.octets[self.at + 1]:
            return False
        self.at += 2
        return True

    def text(self, depth: int = 0) -> bytes:
        """An octet string, whole or in pieces."""
        tag, length = self.head()
        if tag == _OCTETS and 0 <= length <= len(self.octets) - self.at:
            self.at += length
            return self.octets[self.at - length : self.at]
        if tag != _OCTETS_IN_PIECES or depth > _DEEPEST:
            raise _Malformed
        end = self.at + length
        pieces = []
        while self.at < end if length >= 0 else not self.ended():
            pieces.append(self.text(depth + 1))
        return b"".join(pieces)
