"""A letter as the octets of a mail: a person's mail, without any mark of a machine.

Everything is 7bit, so that it goes through any relay; only an address whose part before the @ is not ASCII puts UTF-8
into the header (RFC 6532). Bcc is never in it.
"""

from __future__ import annotations

import quopri
import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from email.utils import encode_rfc2231, format_datetime

import pybase64
import structlog

from mailpoller.core.message import Address
from mailpoller.core.reply_charset import ReplyCharset
from mailpoller.core.sender import Sender
from mailpoller.mail.compose import ascii_address
from mailpoller.mail.letter import Attached, Letter, distinct
from mailpoller.mail.letter_quote import quoted_in_html
from mailpoller.mail.letter_words import phrase, unstructured
from mailpoller.mail.reply_charset import CODECS, EURO, written

log = structlog.get_logger(__name__)

REFERENCES = 20
"""Message ids in References: the first and the last ones (RFC 5537 section 3.4.4 lets the middle be left out)."""

_CRLF = "\r\n"


def letter_octets(
    letter: Letter,
    sender: Sender,
    *,
    message_id: str,
    at: datetime,
    wish: ReplyCharset | None = None,
    more: Iterable[tuple[str, str]] = (),
) -> bytes:
    """The mail, header and body in one charset: by ``wish``, else UTF-8. Costs time in proportion to its size.
    ``more``: fields in ASCII that it bears beside its own."""
    charset = "utf-8"
    if wish is not None:
        letter, sender, charset = _in_charset(letter, sender, wish)
    to, cc = mailboxes(letter.to, charset), mailboxes(letter.cc, charset)
    fields = [
        *own_fields(sender, message_id, at, charset),
        ("To", to if to or cc else "undisclosed-recipients:;"),
        ("Cc", cc),
        ("Subject", unstructured("Subject", letter.subject, charset)),
        *thread_fields(letter),
        *more,
        ("MIME-Version", "1.0"),
    ]
    head = "".join(f"{name}: {value}{_CRLF}" for name, value in fields if value).encode("utf-8")
    return head + _content(letter, sender, charset)


def _in_charset(letter: Letter, sender: Sender, wish: ReplyCharset) -> tuple[Letter, Sender, str]:
    """All words of a mail as one charset holds them."""
    names = [one.name for one in (*letter.to, *letter.cc)]
    words = [
        letter.subject,
        letter.text or "",
        letter.html or "",
        letter.quoted,
        sender.display_name,
        sender.text,
        sender.html,
        *names,
    ]
    chosen = written("\n".join(words), wish, letter.incoming_charset)
    if not chosen.euro_as_text:
        return letter, sender, chosen.charset

    def plain(text: str) -> str:
        return text.replace(EURO, "EUR")

    def named(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        return tuple(Address(plain(one.name), one.address) for one in addresses)

    log.info("outbox.euro_replaced", charset=chosen.charset, signs="".join(words).count(EURO))
    letter = replace(
        letter,
        to=named(letter.to),
        cc=named(letter.cc),
        subject=plain(letter.subject),
        text=letter.text and plain(letter.text),
        html=letter.html and plain(letter.html),
        quoted=plain(letter.quoted),
    )
    sender = replace(sender, display_name=plain(sender.display_name), text=plain(sender.text), html=plain(sender.html))
    return letter, sender, chosen.charset


def own_fields(sender: Sender, message_id: str, at: datetime, charset: str) -> list[tuple[str, str]]:
    """The fields that nobody who hands in a mail decides: whose it is, and which."""
    author = Address(sender.display_name, ascii_address(sender.address))
    answers = [("Reply-To", ascii_address(sender.reply_to))] if sender.reply_to else []
    return [
        ("From", mailboxes([author], charset)),
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


def mailboxes(addresses: Iterable[Address], charset: str) -> str:
    """Addresses as a field of the header has them, one to a line."""
    return f",{_CRLF} ".join(
        f"{phrase(one.name, charset)}{_CRLF} <{one.address}>" if one.name else one.address for one in addresses
    )


def _content(letter: Letter, sender: Sender, charset: str) -> bytes:
    """The body with its Content- fields."""
    bodies = []
    if letter.text is not None:
        below = (f"\n-- \n{sender.text}" if sender.text else "") + (f"\n\n{letter.quoted}" if letter.quoted else "")
        bodies.append(_text(letter.text + below, "plain", charset))
    if letter.html is not None:
        below = sender.html + (quoted_in_html(letter.quoted) if letter.quoted else "")
        bodies.append(_text(_with_signature(letter.html, below), "html", charset))
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
    codec = CODECS.get(charset, charset)
    octets = text.replace("\n", _CRLF).encode(codec)
    if codec == "iso2022_jp" and all(len(one) < 900 for one in octets.split(b"\r\n")):
        # As it is made to be sent, and as everybody sends it (RFC 1468).
        return f"Content-Type: text/{subtype}; charset={charset}{_CRLF}".encode() + (
            f"Content-Transfer-Encoding: 7bit{_CRLF}{_CRLF}".encode() + octets
        )
    kind = f"Content-Type: text/{subtype}; charset={charset}{_CRLF}Content-Transfer-Encoding: "
    # Mostly ASCII stays readable, and everything else takes less room in Base64.
    if sum(one > 126 or one == 0x1B for one in octets) * 6 < len(octets):
        readable = quopri.encodestring(text.encode(codec)).replace(b"\n", b"\r\n")
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
