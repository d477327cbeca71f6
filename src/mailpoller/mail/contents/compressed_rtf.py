"""Compressed RTF, as TNEF and Outlook hold the text of a mail (MS-OXRTFCP)."""

from __future__ import annotations

import struct
from zlib import crc32

from mailpoller.mail.contents.unpack import Closed

LARGEST = 2_000_000
"""Octets of RTF that are unpacked at most; what a person writes has a few thousand."""

_HEAD = struct.Struct("<IIII")
_COMPRESSED, _PLAIN = 0x75465A4C, 0x414C454D
_SIZE_OCTETS = 4
_WINDOW = 4096
# What the window holds at first (section 2.1.2.1).
_DICTIONARY = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor MS Sans Serif"
    rb"SymbolArialTimes New RomanCourier{\colortbl\red0\green0\blue0" b"\r\n" rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)  # fmt: skip


def unpacked_rtf(octets: bytes) -> bytes:
    """The RTF in it.

    Raises :class:`~mailpoller.mail.contents.unpack.Closed`: ``too-large`` for more than ``LARGEST`` octets,
    ``malformed`` for what is none, is cut off or has another checksum.
    """
    if len(octets) < _HEAD.size:
        raise Closed("malformed")
    packed, raw, kind, checksum = _HEAD.unpack_from(octets)
    data = octets[_HEAD.size : packed + _SIZE_OCTETS]
    if raw > LARGEST or len(octets) > 2 * LARGEST:
        raise Closed("too-large")
    if len(data) < packed + _SIZE_OCTETS - _HEAD.size:
        raise Closed("malformed")
    if kind == _PLAIN:
        return data[:raw]
    if kind != _COMPRESSED or _crc(data) != checksum:
        raise Closed("malformed")
    return _inflated(data, raw)


def _crc(data: bytes) -> int:
    """Section 2.1.3.2: the checksum of zip, begun with 0 and not inverted at the end."""
    return crc32(data, 0xFFFFFFFF) ^ 0xFFFFFFFF


def _inflated(data: bytes, raw: int) -> bytes:
    """Section 2.1.3.1.4. The window is the last 4,096 octets of what was written, behind the dictionary."""
    out = bytearray(_WINDOW - len(_DICTIONARY)) + _DICTIONARY  # what stands before it was never written: zeros
    # Place 0 of the window is where the dictionary begins: a reference says where, and not how far back.
    base = _WINDOW - len(_DICTIONARY)
    end = len(out) + raw
    at, size = 0, len(data)
    while at < size:
        control = data[at]
        at += 1
        for bit in range(8):
            if not control >> bit & 1:
                if at >= size:
                    raise Closed("malformed")
                out.append(data[at])
                at += 1
            else:
                if at + 2 > size:
                    raise Closed("malformed")
                reference = data[at] << 8 | data[at + 1]
                at += 2
                written = len(out) - base
                back = (written - (reference >> 4)) % _WINDOW
                if not back:
                    return bytes(out[base + len(_DICTIONARY) :][:raw])
                length = (reference & 0xF) + 2
                start = len(out) - back
                if back >= length:
                    out += out[start : start + length]
                else:
                    out += (out[start:] * (length // back + 1))[:length]
            if len(out) > end:
                return bytes(out[base + len(_DICTIONARY) :][:raw])
    if len(out) == end:
        return bytes(out[base + len(_DICTIONARY) :])
    raise Closed("malformed")
