"""TNEF, Microsoft's ``winmail.dat`` (MS-OXTNEF): its attachments, and its text where that is plain.

The octets are gone through once, from the front; nothing is copied but names and text. Its
HTML and its rich text are handed on as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from mailpoller.core.body import Attachment
from mailpoller.mail.body import charset_in
from mailpoller.mail.charset import decode
from mailpoller.mail.contents.unpack import Closed
from mailpoller.mail.filetype import Looker
from mailpoller.mail.naming import suffix_of, type_of
from mailpoller.mail.parameters import file_name
from mailpoller.mail.words import clean

ATTACHMENTS_KEPT = 500
"""Attachments of one that are told."""
TEXT_KEPT = 1_000_000
"""Octets of its text that are kept."""
RICH_KEPT = 4_000_000
"""Octets of its compressed RTF that are kept."""

_SIGNATURE = 0x223E9F78
_ATTRIBUTES, _PROPERTIES = 20_000, 50_000
_DEEPEST = 3
_ATTRIBUTE = struct.Struct("<BII")
_LONG = struct.Struct("<I")
_KEY_OCTETS, _CHECKSUM_OCTETS, _GUID_OCTETS = 2, 2, 16

# Attributes (section 2.1.3.3) and properties (MS-OXPROPS) that are looked at.
_BODY, _CODE_PAGE, _MESSAGE_PROPERTIES = 0x0002800C, 0x00069007, 0x00069003
_BEGIN, _TITLE, _DATA, _ATTACHMENT_PROPERTIES = 0x00069002, 0x00018010, 0x0006800F, 0x00069005
_P_BODY, _P_RTF, _P_HTML = 0x1000, 0x1009, 0x1013
_P_OBJECT, _P_LONG_NAME, _P_NAME, _P_DISPLAY_NAME, _P_TYPE, _P_ID = 0x3701, 0x3707, 0x3704, 0x3001, 0x370E, 0x3712
_NAMED = 0x8000
_MANY = 0x1000
_FIXED = {0x02: 4, 0x03: 4, 0x04: 4, 0x05: 8, 0x06: 8, 0x07: 8, 0x0A: 4, 0x0B: 4, 0x14: 8, 0x40: 8, 0x48: 16}
_UNICODE, _STRING, _OBJECT, _BINARY = 0x1F, 0x1E, 0x0D, 0x102
_VARIABLE = frozenset((_UNICODE, _STRING, _OBJECT, _BINARY))


class Opened(NamedTuple):
    """What is in one. ``text``: "" if it is not plain, or not there; then it may be in ``html``, or in ``rich``, which
    is compressed RTF."""

    attachments: tuple[Attachment, ...]
    text: str
    html: str = ""
    rich: bytes = b""


def read_tnef(octets: bytes) -> Opened:
    """Its attachments in order, those of messages within it behind these messages. What is cut off is read up to the
    cut.

    Raises :class:`~mailpoller.mail.contents.unpack.Closed` for what is no TNEF, or has more pieces than we look at.
    """
    reader = _Reader()
    reader.read(memoryview(octets), 0)
    text = reader.text.replace("\r\n", "\n").replace("\r", "\n")
    html = reader.html.replace("\r\n", "\n").replace("\r", "\n")
    return Opened(tuple(reader.attachments), text, html, reader.rich)


class _Attached:
    """An attachment, as its attributes come."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.kind = ""
        self.content_id = ""
        self.data: memoryview | None = None
        self.inner: memoryview | None = None


class _Reader:
    def __init__(self) -> None:
        self.attachments: list[Attachment] = []
        self.text = ""
        self.html = ""
        self.rich = b""
        self.charset = "windows-1252"
        self.attributes = 0
        self.properties = 0

    def read(self, octets: memoryview, depth: int) -> None:
        if len(octets) < _LONG.size + _KEY_OCTETS or _LONG.unpack_from(octets)[0] != _SIGNATURE:
            raise Closed("malformed")
        current: _Attached | None = None
        at = _LONG.size + _KEY_OCTETS
        while at + _ATTRIBUTE.size <= len(octets):
            self.attributes += 1
            if self.attributes > _ATTRIBUTES:
                raise Closed("too-large")
            _, name, length = _ATTRIBUTE.unpack_from(octets, at)
            at += _ATTRIBUTE.size
            data = octets[at : at + length]
            at += length + _CHECKSUM_OCTETS
            if name == _BEGIN:
                self.take(current, depth)
                current = _Attached()
            elif current is not None and name in (_TITLE, _DATA, _ATTACHMENT_PROPERTIES):
                self.attached(current, name, data)
            elif not depth:
                self.of_the_message(name, data)
        self.take(current, depth)

    def of_the_message(self, name: int, data: memoryview) -> None:
        if name == _CODE_PAGE and len(data) >= _LONG.size:
            self.charset = f"windows-{_LONG.unpack_from(data)[0]}"
        elif name == _BODY and not self.text:
            self.text = self.decoded(data)
        elif name == _MESSAGE_PROPERTIES:
            for key, kind, value in self.listed(data):
                if key == _P_BODY and kind in (_UNICODE, _STRING):
                    self.text = self.words(kind, value) or self.text
                elif key == _P_HTML and kind == _BINARY:
                    html = bytes(value[:TEXT_KEPT])
                    self.html = self.html or decode(html, charset_in(html) or self.charset)[0].replace("\0", "\ufffd")
                elif key == _P_RTF and kind == _BINARY:
                    self.rich = self.rich or bytes(value[:RICH_KEPT])

    def attached(self, current: _Attached, name: int, data: memoryview) -> None:
        if name == _TITLE:
            current.names[_P_NAME] = self.decoded(data[:2000])
        elif name == _DATA:
            current.data = data
        else:
            for key, kind, value in self.listed(data):
                if kind in (_UNICODE, _STRING):
                    if key in (_P_LONG_NAME, _P_NAME, _P_DISPLAY_NAME):
                        current.names[key] = self.words(kind, value[:2000])
                    elif key == _P_TYPE:
                        current.kind = self.words(kind, value[:200])
                    elif key == _P_ID:
                        current.content_id = self.words(kind, value[:2000])
                elif key == _P_OBJECT and kind == _OBJECT:
                    current.inner = value[_GUID_OCTETS:]
                elif key == _P_OBJECT and current.data is None:
                    current.data = value

    def take(self, current: _Attached | None, depth: int) -> None:
        """An attachment is complete when another one begins."""
        if current is None:
            return
        if len(self.attachments) == ATTACHMENTS_KEPT:
            raise Closed("too-large")
        order = (_P_LONG_NAME, _P_NAME, _P_DISPLAY_NAME)
        written = next((name for key in order if (name := current.names.get(key, "").strip())), "")
        name = file_name({"filename": written}, {})
        message = current.inner is not None and bytes(current.inner[: _LONG.size]) == _LONG.pack(_SIGNATURE)
        data = current.inner if current.inner is not None else current.data
        octets = memoryview(b"") if data is None else data
        kind = clean(current.kind).strip().lower()
        if "/" not in kind or len(kind) > 100:
            kind = "application/ms-tnef" if message else type_of(name)
        looker = Looker()
        looker.feed(bytes(octets))
        look = looker.look()
        content_id = clean(current.content_id).strip()[:998]
        self.attachments.append(
            Attachment(
                name=name or f"part-{len(self.attachments) + 1}.{suffix_of(kind)}",
                content_type=kind,
                size=len(octets),
                sha256=sha256(octets).hexdigest(),
                inline=bool(content_id),
                content_id=content_id and f"<{content_id.strip('<>')}>",
                within="tnef",
                detected_type=look.kind,
                macros=look.macros,
                encrypted=look.encrypted,
            )
        )
        if message and depth < _DEEPEST:
            self.read(octets, depth + 1)

    def listed(self, data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
        """(id, type, value) of each property that has one value (section 2.1.3.4); up to where it is cut off."""
        try:
            yield from self._listed(data)
        except struct.error:
            return

    def _listed(self, data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
        at = _LONG.size
        for _ in range(_LONG.unpack_from(data)[0]):
            self.properties += 1
            if self.properties > _PROPERTIES:
                raise Closed("too-large")
            kind, key = struct.unpack_from("<HH", data, at)
            at += 4
            if key >= _NAMED:
                (by_name,) = _LONG.unpack_from(data, at + _GUID_OCTETS)
                at += _GUID_OCTETS + _LONG.size
                (length,) = _LONG.unpack_from(data, at)
                at += _LONG.size + (_padded(length) if by_name else 0)
            single = kind & ~_MANY
            count = 1
            if kind & _MANY or single in _VARIABLE:
                (count,) = _LONG.unpack_from(data, at)
                at += _LONG.size
            if single in _FIXED:
                at += count * _FIXED[single]
                continue
            if single not in _VARIABLE:
                return  # nobody knows where the next one begins
            for _ in range(count):
                self.properties += 1
                if self.properties > _PROPERTIES:
                    raise Closed("too-large")
                (length,) = _LONG.unpack_from(data, at)
                at += _LONG.size
                if not kind & _MANY:
                    yield key, single, data[at : at + length]
                at += _padded(length)

    def words(self, kind: int, value: memoryview) -> str:
        if kind == _UNICODE:
            return bytes(value[:TEXT_KEPT]).decode("utf-16-le", "replace").partition("\0")[0]
        return self.decoded(value)

    def decoded(self, value: memoryview) -> str:
        return decode(bytes(value[:TEXT_KEPT]).partition(b"\0")[0], self.charset)[0]


def _padded(length: int) -> int:
    return (length + 3) & ~3
