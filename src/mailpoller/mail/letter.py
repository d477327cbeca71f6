"""What somebody wants to have sent, as it was handed in: checked, or refused with the reason.

Everything in it may come from a program that took it from a stranger. So no field may hold what would end a line of the
header or begin another one, and whatever SMTP has no place for is refused here: nothing is ever half sent.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, cast, get_args

import pybase64

from mailpoller.core.errors import EntryRefused
from mailpoller.core.message import Address
from mailpoller.core.record import record
from mailpoller.core.sender import Quote
from mailpoller.mail.address import parse_addresses
from mailpoller.mail.compose import ascii_address

KEYS = (
    "attachments", "bcc", "cc", "conversation", "department", "html", "identity", "in_reply_to",
    "incoming_charset", "key", "mailbox",
    "quote", "references", "reply_to", "subject", "text", "to",
)  # fmt: skip
"""What an entry may say. ``reply_to`` is the mid of the message that is answered."""

LONGEST_LINE = 2000
"""Characters of a subject, or of a name."""
LONGEST_LIST = 1 << 20
"""Characters of all addresses of a field."""
MOST_ATTACHMENTS = 100

_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,500}>")
_LOCAL = re.compile(
    r"[^\x00-\x20\"(),:;<>@\[\\\]\x7f]{1,64}|\"(?:[^\x00-\x20\"\\\x7f]|\\[!-~]){1,62}\"",
)
_DOMAIN = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
    r"|\[(?:IPv6:[0-9A-Fa-f:.]{2,45}|[0-9.]{7,15})\]"
)
_DIGEST = re.compile(r"(?:sha256:)?([0-9A-Fa-f]{64})")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")


@record
class Attached:
    """A file that goes along."""

    name: str
    media_type: str
    octets: bytes


@record
class Referred:
    """A part of the message ``mid`` (nothing: of the one that is answered) that goes along, by its SHA-256 in small
    hexadecimal digits; named and typed as it was there, if nothing is said."""

    sha256: str
    mid: str = ""
    name: str = ""
    media_type: str = ""


@record
class Letter:
    """Recipients, words and files. ``in_reply_to`` and ``references`` are message ids in their brackets.
    ``incoming_charset``: that of the message which is answered, or nothing. ``referred``: parts of mail that are still
    to be found, each with its place among the attachments. ``quote``: what of the message that is answered is to stand
    below, or nothing if that was not said; ``quoted``: that, once it is found."""

    to: tuple[Address, ...]
    cc: tuple[Address, ...]
    bcc: tuple[Address, ...]
    subject: str
    text: str | None
    html: str | None
    attachments: tuple[Attached, ...] = ()
    in_reply_to: str = ""
    references: tuple[str, ...] = ()
    incoming_charset: str = ""
    referred: tuple[tuple[int, Referred], ...] = ()
    quote: Quote | None = None
    quoted: str = ""

    @property
    def recipients(self) -> tuple[str, ...]:
        """Every address once, in the order in which they stand."""
        return distinct(one.address for one in (*self.to, *self.cc, *self.bcc))


def letter_of(entry: Mapping[str, Any]) -> Letter:
    """The letter that an entry describes. Takes time in proportion to it. Raises :class:`EntryRefused`."""
    for key in entry:
        if key not in KEYS:
            raise EntryRefused(f"an entry has no key {_shown(key)}; it has {', '.join(KEYS)}")
    text, html = _body(entry, "text"), _body(entry, "html")
    given = _attachments(entry.get("attachments"))
    attachments = tuple(one for one in given if isinstance(one, Attached))
    referred = tuple((at, one) for at, one in enumerate(given) if isinstance(one, Referred))
    if text is None and html is None and not given:
        raise EntryRefused("there is nothing to send: neither text nor html nor attachments")
    return Letter(
        addresses(entry.get("to"), "to"),
        addresses(entry.get("cc"), "cc"),
        addresses(entry.get("bcc"), "bcc"),
        line(entry.get("subject"), "subject"),
        text,
        html,
        attachments,
        message_id(entry.get("in_reply_to"), "in_reply_to"),
        message_ids(entry.get("references"), "references"),
        line(entry.get("incoming_charset"), "incoming_charset", 100),
        referred,
        _quote(line(entry.get("quote"), "quote", 100)),
    )


def _quote(written: str) -> Quote | None:
    for one in get_args(Quote):
        if written == one:
            return cast(Quote, one)
    if written:
        raise EntryRefused("quote is none, top or full")
    return None


def addresses(written: object, what: str) -> tuple[Address, ...]:
    """The addresses of a field: text as in a header, or a list of such. Each must be one that can be sent to."""
    if written is None:
        return ()
    given = written if isinstance(written, list) else [written]
    items = [one for one in given if isinstance(one, str)]
    if len(items) < len(given) or sum(map(len, items)) > LONGEST_LIST:
        raise EntryRefused(f"{what} is an address or a list of addresses, of a megabyte at most")
    return tuple(address for item in items for address in _addresses(item, what))


def _addresses(item: str, what: str) -> Iterable[Address]:
    found, defect = parse_addresses(line(item, what, LONGEST_LIST))
    if not found or defect or sum(bool(one.name) for one in found) > item.count("<"):
        raise EntryRefused(f"{what} holds what is no mail address")  # a name without brackets may be half an address
    return [Address(line(one.name, what), deliverable(one.address, what)) for one in found]


def deliverable(address: str, what: str) -> str:
    """The address as SMTP takes it (RFC 5321 section 4.1.2), its domain in A-labels (RFC 5890)."""
    local, _, domain = ascii_address(address).rpartition("@")
    if not _LOCAL.fullmatch(local) or len(local.encode("utf-8", "replace")) > 64:
        raise EntryRefused(f"{what} holds an address whose part before the @ cannot be sent to")
    if not local.startswith('"') and (local.startswith(".") or local.endswith(".") or ".." in local):
        raise EntryRefused(f"{what} holds an address with a dot too many before the @")
    if not _DOMAIN.fullmatch(domain):
        raise EntryRefused(f"{what} holds an address whose domain is none")
    return f"{local}@{domain if domain.startswith('[') else domain.lower()}"


def line(written: object, what: str, longest: int = LONGEST_LINE) -> str:
    """A text on one line, without what a header has no place for."""
    if written is None:
        return ""
    if not isinstance(written, str) or len(written) > longest:
        raise EntryRefused(f"{what} is text of {longest} characters at most")
    if any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in written):
        raise EntryRefused(f"{what} holds a line break or a control character")
    return written.strip()


def message_id(written: object, what: str) -> str:
    """A message id in its brackets (RFC 5322 section 3.6.4), or nothing."""
    found = line(written, what)
    if found and not _MESSAGE_ID.fullmatch(found):
        raise EntryRefused(f"{what} is a message id: <…> in ASCII, without spaces")
    return found


def message_ids(written: object, what: str) -> tuple[str, ...]:
    """Several of them: a list, or text with spaces between them."""
    items = line(written, what, LONGEST_LIST).split() if not isinstance(written, list) else written
    return tuple(filter(None, (message_id(one, what) for one in items)))


def distinct(found: Iterable[str]) -> tuple[str, ...]:
    """Each once, in their order."""
    return tuple(dict.fromkeys(found))


def _body(entry: Mapping[str, Any], what: str) -> str | None:
    written = entry.get(what)
    if written is None:
        return None
    if not isinstance(written, str):
        raise EntryRefused(f"{what} is text")
    if "\0" in written or not _encodes(written):
        raise EntryRefused(f"{what} holds characters that are none (a NUL, or half of a pair)")
    return written.replace("\r\n", "\n").replace("\r", "\n")


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _attachments(written: object) -> tuple[Attached | Referred, ...]:
    if written is None:
        return ()
    if not isinstance(written, list) or len(written) > MOST_ATTACHMENTS:
        raise EntryRefused(f"attachments is a list of {MOST_ATTACHMENTS} at most")
    return tuple(map(_attachment, written))


def _attachment(written: object) -> Attached | Referred:
    if not isinstance(written, dict):
        raise EntryRefused("an attachment is a block of name, type, and base64 or digest")
    name = line(written.get("name"), "the name of an attachment", 255)
    media_type = line(written.get("type"), "the type of an attachment").lower()
    if media_type and not _MEDIA_TYPE.fullmatch(media_type):
        raise EntryRefused("the type of an attachment is a media type, such as application/pdf")
    if "digest" in written:
        if set(written) - {"name", "type", "digest", "mid"}:
            raise EntryRefused("an attachment by its digest is a block of digest, mid, name and type")
        found = _DIGEST.fullmatch(line(written["digest"], "the digest of an attachment"))
        if found is None:
            raise EntryRefused("the digest of an attachment is sha256: and 64 hexadecimal digits")
        mid = line(written.get("mid"), "the mid of an attachment", 100).lower()
        return Referred(found[1].lower(), mid, name, media_type)
    if set(written) - {"name", "type", "base64"}:
        raise EntryRefused("an attachment is a block of name, type, and base64 or digest")
    encoded = written.get("base64")
    try:
        octets = pybase64.b64decode(encoded if isinstance(encoded, str) else "!", validate=True)
    except ValueError:
        raise EntryRefused("the base64 of an attachment is none") from None
    return attached(name, media_type, octets)


def attached(name: str, media_type: str, octets: bytes) -> Attached:
    """An attachment, of whatever it was called and called itself, as a header has place for it."""
    name = "".join(one for one in name if unicodedata.category(one) not in ("Cc", "Cs", "Zl", "Zp")).strip()[:255]
    if not _MEDIA_TYPE.fullmatch(media_type) or media_type.startswith(("multipart/", "message/")):
        media_type = "application/octet-stream"  # these cannot be encoded (RFC 2046 section 5.2.1, RFC 2045 6.4)
    return Attached(name or "attachment", media_type, octets)


def _shown(key: object) -> str:
    return key if isinstance(key, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", key) else "of that name"
