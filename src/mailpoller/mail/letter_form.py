"""A letter as the octets of a mail: a person's mail, without any mark of a machine.

Everything is 7bit, so that it goes through any relay; only an address whose part before the @ is not ASCII puts UTF-8
into the header (RFC 6532). Bcc is never in it.
"""

from __future__ import annotations

import quopri
import secrets
from collections.abc import Iterable
from datetime import datetime
from email.header import Header
from email.utils import encode_rfc2231, format_datetime

import pybase64

from mailpoller.core.message import Address
from mailpoller.core.sender import Sender
from mailpoller.mail.compose import ascii_address
from mailpoller.mail.letter import Attached, Letter, distinct

REFERENCES = 20
"""Message ids in References: the first and the last ones (RFC 5537 section 3.4.4 lets the middle be left out)."""

_SPECIALS = frozenset('()<>[]:;@\\,."')
_CRLF = "\r\n"


def letter_octets(letter: Letter, sender: Sender, *, message_id: str, at: datetime, charset: str = "utf-8") -> bytes:
    """The mail, header and body in one charset. Costs time in proportion to its size."""
    to, cc = _mailboxes(letter.to, charset), _mailboxes(letter.cc, charset)
    fields = [
        *own_fields(sender, message_id, at, charset),
        ("To", to if to or cc else "undisclosed-recipients:;"),
        ("Cc", cc),
        ("Subject", unstructured("Subject", letter.subject, charset)),
        *thread_fields(letter),
        ("MIME-Version", "1.0"),
    ]
    head = "".join(f"{name}: {value}{_CRLF}" for name, value in fields if value).encode("utf-8")
    return head + _content(letter, sender, charset)


def own_fields(sender: Sender, message_id: str, at: datetime, charset: str) -> list[tuple[str, str]]:
    """The fields that nobody who hands in a mail decides: whose it is, and which."""
    author = Address(sender.display_name, ascii_address(sender.address))
    answers = [("Reply-To", ascii_address(sender.reply_to))] if sender.reply_to else []
    return [
        ("From", _mailboxes([author], charset)),
        *answers,
        ("Date", format_datetime(at)),
        ("Message-ID", message_id),
    ]


def thread_fields(letter: Letter) -> list[tuple[str, str]]:
    """In-Reply-To and References (RFC 5322 section 3.6.4)."""
    chain = distinct((*letter.references, *filter(None, [letter.in_reply_to])))
    if len(chain) > REFERENCES:
        chain = (chain[0], *chain[1 - REFERENCES :])
    answered = letter.in_reply_to or (chain[-1] if chain else "")
    return [("In-Reply-To", answered), ("References", f"{_CRLF} ".join(chain))]


def unstructured(name: str, value: str, charset: str) -> str:
    """A field's value, folded; in encoded words if it is not ASCII, is too long, or looks like one."""
    plain = value.isascii() and "=?" not in value
    if plain and len(value) + len(name) < 76:
        return value
    if plain and all(len(word) < 900 for word in value.split(" ")):
        return Header(value, "us-ascii", header_name=name).encode(linesep=_CRLF)
    return Header(value, "utf-8" if value.isascii() else charset, header_name=name).encode(linesep=_CRLF)


def _mailboxes(addresses: Iterable[Address], charset: str) -> str:
    return f",{_CRLF} ".join(
        f"{_phrase(one.name, charset)}{_CRLF} <{one.address}>" if one.name else one.address for one in addresses
    )


def _phrase(name: str, charset: str) -> str:
    if not name.isascii() or "=?" in name or len(name) > 60:
        return Header(name, "utf-8" if name.isascii() else charset, header_name="Resent-From").encode(linesep=_CRLF)
    if any(one in _SPECIALS for one in name):
        return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return name


def _content(letter: Letter, sender: Sender, charset: str) -> bytes:
    """The body with its Content- fields."""
    bodies = []
    if letter.text is not None:
        bodies.append(_text(letter.text + (f"\n-- \n{sender.text}" if sender.text else ""), "plain", charset))
    if letter.html is not None:
        bodies.append(_text(_with_signature(letter.html, sender.html), "html", charset))
    body = bodies[0] if len(bodies) == 1 else _multipart("alternative", bodies) if bodies else b""
    if not letter.attachments:
        return body
    return _multipart("mixed", [*([body] if body else []), *map(_attached, letter.attachments)])


def _with_signature(html: str, signature: str) -> str:
    if not signature:
        return html
    end = html.lower().rfind("</body")
    return html + signature if end < 0 else html[:end] + signature + html[end:]


def _text(text: str, subtype: str, charset: str) -> bytes:
    """A text part. Raises :class:`UnicodeEncodeError` if the charset does not hold it."""
    if text and not text.endswith("\n"):
        text += "\n"
    if text.isascii() and all(len(one) < 200 for one in text.split("\n")) and "\x1b" not in text:
        kind = f"Content-Type: text/{subtype}; charset=us-ascii{_CRLF}Content-Transfer-Encoding: 7bit{_CRLF}{_CRLF}"
        return (kind + text.replace("\n", _CRLF)).encode("ascii")
    octets = text.replace("\n", _CRLF).encode(charset)
    kind = f"Content-Type: text/{subtype}; charset={charset}{_CRLF}Content-Transfer-Encoding: "
    # Mostly ASCII stays readable, and everything else takes less room in Base64.
    if sum(one > 126 or one == 0x1B for one in octets) * 6 < len(octets):
        readable = quopri.encodestring(text.encode(charset)).replace(b"\n", b"\r\n")
        return f"{kind}quoted-printable{_CRLF}{_CRLF}".encode() + readable
    return f"{kind}base64{_CRLF}{_CRLF}".encode() + _base64(octets)


def _attached(one: Attached) -> bytes:
    if one.name.isascii():
        name = '"' + one.name.replace("\\", "\\\\").replace('"', '\\"') + '"'
        disposition = f"attachment;{_CRLF} filename={name}"
    else:
        disposition = f"attachment;{_CRLF} filename*={encode_rfc2231(one.name, 'utf-8')}"
    head = (
        f"Content-Type: {one.media_type}{_CRLF}Content-Disposition: {disposition}{_CRLF}"
        f"Content-Transfer-Encoding: base64{_CRLF}{_CRLF}"
    )
    return head.encode("ascii") + _base64(one.octets)


def _base64(octets: bytes) -> bytes:
    return pybase64.encodebytes(octets).replace(b"\n", b"\r\n")


def _multipart(subtype: str, parts: Iterable[bytes]) -> bytes:
    boundary = f"=_{secrets.token_hex(12)}"  # "=_" is in no quoted-printable and no Base64 (RFC 2045 section 6.7)
    head = f'Content-Type: multipart/{subtype}; boundary="{boundary}"{_CRLF}{_CRLF}'.encode()
    rule = f"--{boundary}".encode()
    return head + b"".join(rule + b"\r\n" + part + b"\r\n" for part in parts) + rule + b"--\r\n"
