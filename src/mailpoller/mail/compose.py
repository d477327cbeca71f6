"""Mail that we write ourselves: quarantine notes with the original attached, alerts, test mails.

Everything here is marked so that no machine answers it and we never take it for somebody's mail: ``Auto-Submitted``
(RFC 3834 section 5), ``X-Auto-Response-Suppress`` (Exchange) and our own loop header. The envelope sender is null.

Whatever comes from a stranger's mail (subject, sender, file name) is made printable and short before it enters a
header or the note, and the original is attached bit for bit, in a form that survives the way there:

* ``whole``: as message/rfc822 if the octets are lines as SMTP knows them (7bit or 8bit data, RFC 2045 section 2),
  else as ``encoded``; RFC 2046 section 5.2.1 allows no other encoding for message/rfc822;
* ``encoded``: base64 of the exact octets, application/octet-stream, named ``.eml`` so that mail readers open it;
* ``header``: only the header, because the whole is larger than the relay takes.
"""

from __future__ import annotations

import quopri
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from email.header import Header
from email.utils import format_datetime
from typing import Literal

import pybase64

from mailpoller.core.message import RawMessage
from mailpoller.core.ports import Mail
from mailpoller.core.record import record
from mailpoller.core.spool import Block
from mailpoller.mail.loop import LOOP_HEADER

Form = Literal["whole", "encoded", "header"]
Domain = Literal["7bit", "8bit", "binary"]

_STEP = 1 << 16
_LONGEST_LINE = 998
_HEADER_LIMIT = 1 << 16
_BASE64_STEP = 57 * 1024
"""A multiple of 57: every piece but the last ends with a full line of 76 characters."""


@record
class Section:
    """One paragraph of an alert: a headline, what it is about (a line each), and what to do."""

    headline: str
    lines: tuple[str, ...] = ()
    advice: str = ""


def data_domain(octets: Block) -> Domain:
    """Which kind of data the octets are, in the words of RFC 2045 sections 2.7 to 2.9.

    ``7bit`` and ``8bit`` data are lines of at most 998 octets that end in CRLF, without NUL and without CR or LF
    anywhere else; all else is ``binary`` and cannot be sent as it is. Time is linear, and the loop gives other
    threads their turn.
    """
    size, start, line_start, eight = len(octets), 0, 0, False
    while start < size:
        end = start + _STEP
        if octets[end - 1 : end] == b"\r":  # a CRLF is not torn apart
            end += 1
        piece = octets[start:end]
        if not piece.count(b"\r\n") == piece.count(b"\n") == piece.count(b"\r") or b"\0" in piece:
            return "binary"
        eight = eight or not piece.isascii()
        start = end
    while size - line_start > _LONGEST_LINE:
        line_end = octets.rfind(b"\n", line_start, line_start + _LONGEST_LINE + 2)
        if line_end < 0:
            return "binary"
        line_start = line_end + 1
    return "8bit" if eight else "7bit"


def printable(text: str, limit: int = 200) -> str:
    """``text`` on one line, without control or formatting characters, at most ``limit`` characters long."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return " ".join("".join(one if one.isprintable() else " " for one in cut).split())


def ascii_address(address: str) -> str:
    """The address with its domain in A-labels (RFC 5890), so that only a non-ASCII local part needs SMTPUTF8."""
    local, at, domain = address.rpartition("@")
    try:
        return f"{local}{at}{domain.encode('idna').decode('ascii')}" if not domain.isascii() else address
    except UnicodeError:
        return address


def quarantine_mail(
    *,
    sender: str,
    recipients: Sequence[str],
    raw: RawMessage,
    delivery_id: str,
    at: datetime,
    subject: str,
    explanation: Sequence[str],
    trace: Sequence[tuple[str, str]],
    form: Form = "whole",
) -> Mail:
    """A note to humans with the original attached.

    ``explanation`` are paragraphs: why it is here and what to do; ``trace`` are names and values. The Message-ID is
    made from ``delivery_id`` alone, so that a repeat can be recognised. Costs time in proportion to the original:
    large ones in a thread.
    """
    octets = raw.octets.view()
    domain = data_domain(octets) if form == "whole" else "binary"
    note = [*explanation, "\n".join(f"{name + ':':<14} {printable(value, 400)}" for name, value in trace)]
    attachment, encoding = _attachment(octets, form, domain, printable(delivery_id, 64))
    boundary = f"=_{secrets.token_hex(12)}"
    head = _header(
        [
            ("From", f"mailpoller <{ascii_address(sender)}>"),
            ("To", ", ".join(map(ascii_address, recipients))),
            ("Subject", subject),
            ("Date", format_datetime(at)),
            ("Message-ID", f"<{printable(delivery_id, 64)}@{_domain(sender)}>"),
            *_MARKS,
            ("MIME-Version", "1.0"),
            ("Content-Type", f'multipart/mixed; boundary="{boundary}"'),
            ("Content-Transfer-Encoding", encoding),
        ]
    )
    rule = f"--{boundary}".encode()
    parts = [head, b"\r\n", rule, b"\r\n", _text("\n\n".join(note)), b"\r\n", rule, b"\r\n"]
    whole = b"".join([*parts, *attachment, b"\r\n", rule, b"--\r\n"])
    return Mail("", tuple(map(ascii_address, recipients)), whole)


def alert_mail(
    *, sender: str, recipients: Sequence[str], subject: str, sections: Sequence[Section], footer: str, at: datetime
) -> Mail:
    """An alert or a recovery notice: plain text, a section for each trouble."""
    blocks = ["\n".join(filter(None, [one.headline, *one.lines, one.advice])) for one in sections]
    return _plain_mail(sender, recipients, subject, "\n\n".join([*blocks, f"-- \n{footer}"]), at)


def test_mail(*, sender: str, recipients: Sequence[str], footer: str, at: datetime) -> Mail:
    """What ``check --live --send-to`` sends."""
    text = "This is a test. If you can read it, mailpoller can send mail to you by this way.\n\n-- \n" + footer
    return _plain_mail(sender, recipients, "[mailpoller] test mail", text, at)


test_mail.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


_MARKS = (
    ("Auto-Submitted", "auto-generated"),
    ("X-Auto-Response-Suppress", "All"),
    (LOOP_HEADER, "1"),
)


def _plain_mail(sender: str, recipients: Sequence[str], subject: str, text: str, at: datetime) -> Mail:
    head = _header(
        [
            ("From", f"mailpoller <{ascii_address(sender)}>"),
            ("To", ", ".join(map(ascii_address, recipients))),
            ("Subject", subject),
            ("Date", format_datetime(at)),
            ("Message-ID", f"<{secrets.token_hex(16)}@{_domain(sender)}>"),
            *_MARKS,
            ("MIME-Version", "1.0"),
        ]
    )
    return Mail("", tuple(map(ascii_address, recipients)), head + _text(text) + b"\r\n")


def _header(fields: Iterable[tuple[str, str]]) -> bytes:
    """Header fields, one to a line or folded (RFC 5322 section 2.2.3); the empty line that ends them is the
    caller's."""
    lines = []
    for name, value in fields:
        clean = printable(value, 20_000)
        if name in ("From", "To", "Message-ID"):  # structured: folded between addresses, and never an encoded word
            lines.append(f"{name}: {clean}".replace(", ", ",\r\n ").encode("utf-8"))
        elif clean.isascii() and len(clean) < 900:
            lines.append(f"{name}: {clean}".encode("ascii"))
        else:
            lines.append(
                f"{name}: ".encode() + Header(clean, "utf-8", header_name=name).encode(linesep="\r\n").encode("ascii")
            )
    return b"\r\n".join(lines) + b"\r\n"


def _domain(sender: str) -> str:
    return ascii_address(sender).rpartition("@")[2] or "localhost"


def _text(text: str) -> bytes:
    """A text/plain part, its header included, without a last line end."""
    octets = "".join(one if one.isprintable() or one == "\n" else " " for one in text).encode("utf-8")
    kind = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: "
    if octets.isascii() and all(len(line) < 200 for line in octets.split(b"\n")):
        return kind + b"7bit\r\n\r\n" + octets.replace(b"\n", b"\r\n")
    return kind + b"quoted-printable\r\n\r\n" + quopri.encodestring(octets).replace(b"\n", b"\r\n")


def _attachment(octets: Block, form: Form, domain: Domain, name: str) -> tuple[list[bytes], str]:
    """The attached part in pieces, and the transfer encoding that the mail as a whole needs."""
    if form == "header":
        return _header_attachment(octets, name)
    disposition = f'Content-Disposition: attachment; filename="{name}.eml"\r\n'.encode()
    if domain == "binary":
        kind = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
        return [kind, disposition, b"\r\n", *_base64(octets)], "7bit"
    kind = f"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: {domain}\r\n".encode()
    return [kind, disposition, b"\r\n", octets[:]], domain


def _header_attachment(octets: Block, name: str) -> tuple[list[bytes], str]:
    ends = [
        end for end in (octets.find(b"\r\n\r\n", 0, _HEADER_LIMIT), octets.find(b"\n\n", 0, _HEADER_LIMIT)) if end >= 0
    ]
    header = octets[: min(ends, default=_HEADER_LIMIT)]
    disposition = f'Content-Disposition: attachment; filename="{name}.txt"\r\n\r\n'.encode()
    if data_domain(header) == "7bit":
        return [
            b"Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit\r\n",
            disposition,
            header,
        ], "7bit"
    # RFC 6522 section 4: 7bit only
    kind = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
    return [kind, disposition, *_base64(header)], "7bit"


def _base64(octets: Block) -> Iterator[bytes]:
    """In pieces, so that the interpreter can turn to other threads between them."""
    for start in range(0, len(octets), _BASE64_STEP):
        yield pybase64.encodebytes(octets[start : start + _BASE64_STEP]).replace(b"\n", b"\r\n")
