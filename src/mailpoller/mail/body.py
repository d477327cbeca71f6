"""What lies below the header: which parts are the message's own text, and what its attachments are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from mailpoller.core.body import Attachment, Body, Forwarded, TextFrom, Undone
from mailpoller.core.spool import Block
from mailpoller.mail.address import parse_addresses
from mailpoller.mail.attachment import attachment_of, shown_in
from mailpoller.mail.charset import decode
from mailpoller.mail.contents.kinds import MESSAGES as INNER
from mailpoller.mail.contents.kinds import REPORT, kind_of
from mailpoller.mail.date import read_date
from mailpoller.mail.embedded import embedded, without
from mailpoller.mail.header import read_header
from mailpoller.mail.naming import type_of
from mailpoller.mail.parameters import file_name
from mailpoller.mail.signed import CONSIDERED, is_cms, is_enveloped, unwrap
from mailpoller.mail.structure import CONTENT, Part, scan
from mailpoller.mail.transfer import BASE64_MALFORMED, base64_end, decoded, is_base64
from mailpoller.mail.understand.flowed import join
from mailpoller.mail.understand.html import render
from mailpoller.mail.words import readable

TEXT_KEPT = 5_000_000
"""Decoded octets of the message's text, and of its HTML, that are kept."""
TEXT_CUT = "text-cut"
"""Defect: the text or the HTML is longer than we keep."""
NUL = "nul"
"""Defect: a NUL in the text; it was replaced, since many databases and programs cannot hold one."""

MESSAGES = frozenset(("message/rfc822", "message/global"))
"""Types of parts that are messages."""
_AS_IT_IS = frozenset(("", "7bit", "8bit", "binary"))
_TEXT_FOR_PROGRAMS = frozenset(
    ("text/calendar", "text/x-vcalendar", "text/vcard", "text/x-vcard", "text/directory", "text/csv", "text/css",
     "text/javascript", "text/xml", "text/rfc822-headers", "text/rtf", "text/x-amp-html", "text/tab-separated-values")
)  # fmt: skip
_PGP_BEGINS = "-----BEGIN PGP MESSAGE-----"
_CR_ENDS = re.compile("\r\n?").sub
_FILE_BEGINS = re.compile(rb"begin ").search
"""In uuencode and in yEnc. For words as short as these an expression takes a half or a third of what ``in`` and
``replace`` do."""
_USUAL_TEXT = 1 << 14
_BOTH = {"text/plain", "text/html"}
_OPENED_UP_TO = 16 << 20
_DEEPEST = 3
_FEW_WORDS = 4096
_WORDS_ALONE = re.compile(rb"[A-Za-z0-9/+]++(?: [A-Za-z0-9/+]++)++").fullmatch
_META_CHARSET = re.compile(rb"""<meta[^>]{1,200}?charset\s*=\s*["']?([\w.:-]{1,40})""", re.IGNORECASE)
_META_CONSIDERED = 2048


def read_body(octets: Block, start: int, end: int, fields: Mapping[str, str]) -> Body:
    """The body of a message that lies between ``start`` and ``end``; never raises.

    ``fields``: the message's Content fields by name in lower case. The message's own text is its first ``text/plain``
    part and its first ``text/html`` part that are neither named nor marked as attachments; further ones are appended
    to them, unless they stand in a ``multipart/alternative`` or ``related``, where they are attachments. Everything
    else is an attachment. Where there is HTML alone, the text is made of it.
    """
    parts, defects = scan(octets, start, end, fields)
    part = parts[0] if len(parts) == 1 else None
    if (
        part is not None
        and part.content_type == "text/plain"
        and not part.name
        and part.disposition != "attachment"
        and part.encoding != "base64"
        and not part.flowed
    ):  # most mail that people write to people, at two thirds of the price
        found = list(defects)
        text = _text(octets, part, "text/plain", {"text/plain": TEXT_KEPT}, found)
        if "begin " not in text and _PGP_BEGINS not in text:
            return Body(
                text, "", (), tuple(dict.fromkeys(found)) if found else (), text_from="plain" if text else "none"
            )
    if len(parts) == 2 and (body := _two_texts(octets, parts, defects)) is not None:
        return body
    return _Reader(octets).read(parts, defects)


def _two_texts(octets: Block, parts: list[Part], defects: list[str]) -> Body | None:
    """A body of one text and its HTML, as most programs write it, at two thirds of the price; None if it has to be
    looked at more closely."""
    one, other = parts
    if {one.content_type, other.content_type} != _BOTH:
        return None
    for part in parts:
        if part.name or part.disposition == "attachment" or part.opaque or part.flowed or part.encoding == "base64":
            return None
    found, files, room = list(defects), list[Part](), {"text/plain": TEXT_KEPT, "text/html": TEXT_KEPT}

    def held(part: Part, data: bytes) -> bytes:
        files.append(part)
        return data

    first = _text(octets, one, one.content_type, room, found, held)
    second = _text(octets, other, other.content_type, room, found, held)
    text, html = (first, second) if one.content_type == "text/plain" else (second, first)
    if files or not text or text.isspace():
        return None
    encryption: Literal["", "pgp"] = "pgp" if _PGP_BEGINS in text else ""
    return Body(text, html, (), tuple(dict.fromkeys(found)) if found else (), text_from="plain", encryption=encryption)


class _Reader:
    """Reads one message, and those it holds: ``depth`` is how many lie around it. ``outer``: its octets are the raw
    ones, so that offsets in them mean something to who has these."""

    def __init__(self, octets: Block, depth: int = 0, *, outer: bool = True) -> None:
        self.octets = octets
        self.depth = depth
        self.outer = outer
        self.own = not depth  # what it holds is the message's, and not that of one within
        self.defects: list[str] = []
        self.undone: list[Undone] = []
        self.closed: dict[str, None] = {}
        self.forwarded: Forwarded | None = None
        self.unwrapped = False  # one is what a mail holds; a thousand would be opened for ever
        self.texts: dict[str, list[str]] = {"text/plain": [], "text/html": []}
        self.room = {"text/plain": TEXT_KEPT, "text/html": TEXT_KEPT}
        self.attachments: list[Attachment] = []
        self.encryption: Literal["", "pgp", "smime"] = ""

    def read(self, parts: list[Part], defects: list[str]) -> Body:
        self.take(parts, defects)
        text, html = _joined(self.texts["text/plain"]), _joined(self.texts["text/html"])
        made_of: TextFrom = "plain" if text else "none"
        hidden = 0
        if html and (not text or text.isspace()):
            rendered = render(html)
            text, made_of, hidden = rendered.text, "html", rendered.hidden
            if rendered.cut:
                self.undone.append(Undone("html", "too-large"))
        return Body(
            text,
            html,
            tuple(shown_in(html, self.attachments)),
            tuple(dict.fromkeys(self.defects)),
            self.forwarded,
            tuple(dict.fromkeys(self.undone)),
            made_of,
            hidden,
            tuple(self.closed),
            encryption=self.encryption or ("pgp" if _PGP_BEGINS in text else ""),
        )

    def take(self, parts: list[Part], defects: list[str]) -> None:
        self.defects += defects
        texts = self.texts
        known: set[str] = set()
        own: list[Part] = []
        for part in parts:
            kind = part.content_type
            if (
                kind in texts
                and part.disposition != "attachment"
                and not part.name
                and not part.opaque
                and (kind not in known or part.within not in ("alternative", "related"))
            ):
                known.add(kind)
                own.append(part)
        if not own and not any(self.texts.values()):
            own = next(([part] for part in parts if _may_be_the_text(part)), own)
        left = list(own)
        for part in parts:
            if left and part is left[0]:
                left.pop(0)
                self.text(part)
            else:
                self.other(part)

    def text(self, part: Part) -> None:
        part = self.really(part)
        kind = part.content_type if part.content_type in self.texts else "text/plain"
        end = part.end
        if part.encoding == "base64" and (stop := base64_end(self.octets, part.start, end)) < end:
            self.defects.append(BASE64_MALFORMED)
            self.texts[kind].append(
                _text(self.octets, part._replace(end=stop), kind, self.room, self.defects, self.files)
            )
            part = part._replace(start=stop, encoding="")
        text = _text(self.octets, part, kind, self.room, self.defects, self.files)
        if part.flowed and kind == "text/plain":
            text, whole = join(text, delsp=part.flowed == "delsp")
            if not whole:
                self.undone.append(Undone("flowed", "too-large"))
        self.texts[kind].append(text)

    def other(self, part: Part) -> None:
        if (kind := kind_of(part)) and (self.own or kind != REPORT):
            self.closed[kind] = None
        part = self.really(part)
        attachment = self.attached(self.octets, part, outer=self.outer)
        if part.content_type == "application/pgp-encrypted":
            self.encryption = "pgp"
        if part.content_type in MESSAGES and self.forwarded is None and not self.depth and part.within != "report":
            self.forwarded = self.opened(part, attachment.size)
        elif part.content_type in MESSAGES and part.within != "report":
            self.closed[INNER] = None
        elif is_cms(part.content_type, part.name) and self.depth < _DEEPEST and not self.unwrapped:
            self.unwrapped = True
            self.unwrap(part, attachment.size)

    def attached(self, octets: Block, part: Part, *, outer: bool) -> Attachment:
        attachment = attachment_of(octets, part, len(self.attachments) + 1, self.defects, outer=outer)
        self.attachments.append(attachment)
        return attachment

    def files(self, part: Part, data: bytes) -> bytes:
        """Take the files out of a text that stand in it encoded."""
        found = embedded(data)
        plain = part.encoding in _AS_IT_IS and self.outer
        for one in found:
            name = file_name({"filename": one.name}, {})
            at = part.start if plain else 0
            octets = self.octets if plain else data
            kind = type_of(name) if one.encoding else "text/plain"
            held = Part(kind, "", at + one.start, at + one.end, one.encoding, "attachment", name)
            if one.defect:
                self.defects.append(one.defect)
            self.attached(octets, held, outer=plain)
        return without(data, found) if found else data

    def really(self, part: Part) -> Part:
        """The part with the encoding that its octets have."""
        if part.encoding == "base64" and not is_base64(self.octets, part.start, part.end):
            self.defects.append(BASE64_MALFORMED)
            return part._replace(encoding="")
        return part

    def opened(self, part: Part, size: int) -> Forwarded | None:
        """The message that is this part; None if it is too large to be decoded whole."""
        if part.encoding in _AS_IT_IS:
            octets, start, end, outer = self.octets, part.start, part.end, self.outer
        elif size > _OPENED_UP_TO:
            self.undone.append(Undone("forwarded", "too-large"))
            return None
        else:
            octets, start, end, outer = self.decoded(part), 0, size, False
        header = read_header(octets, start, end, top=True)
        reader = _Reader(octets, self.depth + 1, outer=outer)
        body = reader.read(*scan(octets, header.body, end, content_fields(header.fields)))
        self.defects += (*header.defects, *body.defects)
        self.undone += body.undone
        self.closed.update(dict.fromkeys(body.closed))
        values = {name.lower(): value for name, value in reversed(header.fields)}
        return Forwarded(
            from_=parse_addresses(values.get("from", ""))[0],
            date=read_date(values["date"])[0] if values.get("date") else None,
            subject=readable(values.get("subject", "")),
            text=body.text,
            html=body.html,
            attachments=body.attachments,
        )

    def decoded(self, part: Part) -> bytes:
        return b"".join(decoded(self.octets, part.start, part.end, part.encoding, []))

    def unwrap(self, part: Part, size: int) -> None:
        """What is signed becomes this message's own, as if it had been signed beside it."""
        if size > CONSIDERED:
            self.undone.append(Undone("signed-data", "too-large"))
            return
        held = self.decoded(part)
        content = unwrap(held)
        if content is None:
            if is_enveloped(held):
                self.encryption = "smime"
            return
        self.undone.append(Undone("signature", "unchecked"))
        header = read_header(content, 0, len(content))
        reader = _Reader(content, self.depth + 1, outer=False)
        reader.texts, reader.room, reader.attachments = self.texts, self.room, self.attachments
        reader.own, reader.closed = self.own, self.closed
        reader.take(*scan(content, header.body, len(content), content_fields(header.fields)))
        self.defects += (*header.defects, *reader.defects)
        self.undone += reader.undone


def charset_in(html: bytes) -> str:
    """The charset that HTML names in a ``<meta>`` element; "" for none."""
    meta = _META_CHARSET.search(html, 0, _META_CONSIDERED)
    return "" if meta is None else meta[1].decode("ascii", "replace")


def attachments_of(octets: Block, start: int, end: int, *, outer: bool) -> list[Attachment]:
    """The attachments of a message within a message; what it holds in turn is one of them. ``outer``: its octets are
    the raw ones."""
    header = read_header(octets, start, end, top=True)
    reader = _Reader(octets, 1, outer=outer)
    reader.take(*scan(octets, header.body, end, content_fields(header.fields)))
    return reader.attachments


def content_fields(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The first value of each field that describes a body, by name in lower case."""
    found: dict[str, str] = {}
    for name, value in fields:
        key = name.lower()
        if key in CONTENT:
            found.setdefault(key, value)
    return found


def _may_be_the_text(part: Part) -> bool:
    """True for a part that a person would read, in a message that has no other: named, or of another kind of text."""
    return (
        part.content_type.startswith("text/")
        and part.content_type not in _TEXT_FOR_PROGRAMS
        and part.disposition != "attachment"
        and not part.opaque
    )


def _joined(texts: list[str]) -> str:
    """Texts one below the other: the line end before a boundary belongs to the boundary, so it is given back."""
    if len(texts) > 1:
        texts = [text if text.endswith("\n") else f"{text}\n" for text in texts[:-1] if text] + texts[-1:]
    return "".join(texts)


def _text(
    octets: Block,
    part: Part,
    kind: str,
    room: dict[str, int],
    defects: list[str],
    files: Callable[[Part, bytes], bytes] | None = None,
) -> str:
    left = room[kind]
    pieces: list[bytes] = []
    size = 0
    for piece in decoded(octets, part.start, part.end, part.encoding, defects):
        pieces.append(piece)
        size += len(piece)
        if size > left:
            break
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    cut = size > left
    if cut:
        data = data[:left]
        size = left
        defects.append(TEXT_CUT)
    room[kind] = left - size
    if files is not None and kind == "text/plain" and _FILE_BEGINS(data) is not None:
        data = files(part, data)
    charset = part.charset
    if not charset and kind == "text/html":
        charset = charset_in(data)
    text, defect = decode(data, charset)
    if defect and part.encoding == "base64" and (plain := _never_encoded(octets, part)):
        text, defect = plain, BASE64_MALFORMED
    if defect and not cut:  # a cut may well have gone through a character
        defects.append(defect)
    text = text.removeprefix("\ufeff")
    if "\r" in text:
        text = _with_line_feeds(text, quickly=left == TEXT_KEPT and len(text) <= _USUAL_TEXT)
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
        defects.append(NUL)
    return text


def _with_line_feeds(text: str, *, quickly: bool) -> str:
    """Every CRLF, and every CR alone, made LF. ``quickly``: a third of the price, unless there is nothing but these;
    so not for what somebody may send a thousand of."""
    return _CR_ENDS("\n", text) if quickly else text.replace("\r\n", "\n").replace("\r", "\n")


def _never_encoded(octets: Block, part: Part) -> str:
    """A few plain words that call themselves base64, and of which decoding made nothing readable; else ""."""
    held = octets[part.start : min(part.end, part.start + _FEW_WORDS)]
    if part.end - part.start > _FEW_WORDS or not _WORDS_ALONE(held.strip()):
        return ""
    return held.decode("ascii")
