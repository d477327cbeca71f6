"""The messages that the demonstration starts with, each one telling something about what mailpoller does with mail."""

from __future__ import annotations

from base64 import encodebytes
from datetime import UTC, datetime
from email.utils import format_datetime

from mailpoller.core.record import record


@record
class DemoMessage:
    """``name`` is one word, ``about`` says what is worth watching, ``goes_to`` where it ends: a queue or
    ``quarantine``."""

    name: str
    about: str
    goes_to: str
    octets: bytes


def _compose(header: str, body: str, *, number: int, sent: datetime) -> bytes:
    """A message with CRLF line ends. ``header`` holds the fields but for Date, Message-ID and MIME-Version."""
    frame = (
        f"Date: {format_datetime(sent)}\nMessage-ID: "
        f"<demo-{number}.{int(sent.timestamp())}@example.org>\nMIME-Version: 1.0"
    )
    return f"{header.strip()}\n{frame}\n\n{body.lstrip()}".replace("\n", "\r\n").encode("utf-8")


_PLAIN = """
From: =?utf-8?q?Ren=C3=A9e?= Lindqvist <renee@customer.example>
To: support@example.com
Subject: =?utf-8?q?Where_is_my_order_=E2=80=93_number_4711=3F?=
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit
"""

_HTML = """
From: Omar Haddad <omar@customer.example>
To: Support <support@example.com>
Subject: The printer prints stripes
Content-Type: multipart/mixed; boundary="outer"
"""

_HTML_BODY = """
--outer
Content-Type: multipart/alternative; boundary="inner"

--inner
Content-Type: text/plain; charset=us-ascii

It prints stripes. See the picture.
--inner
Content-Type: text/html; charset=us-ascii

<p>It prints <b>stripes</b>. See the picture.</p>
--inner--
--outer
Content-Type: image/png; name="stripes.png"
Content-Disposition: attachment; filename="stripes.png"
Content-Transfer-Encoding: base64

{picture}--outer--
"""

_PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000002000000010802000000"
    "7b40e8dd0000000f4944415478da63f8ffff3f030303000ef802fe70f03fb20000000049454e44ae426082"
)

_INVOICE = """
From: Accounts <accounts@supplier.example>
To: support@example.com
Subject: Invoice 2210 of Example Paper Ltd
Content-Type: text/plain; charset=us-ascii
"""

_AUTO_REPLY = """
Return-Path: <>
From: Ada Byron <ada@customer.example>
To: support@example.com
Subject: Out of office: your question
Auto-Submitted: auto-replied
Content-Type: text/plain; charset=us-ascii
"""

_BROKEN = """
To: undisclosed recipients:;;
Subject: =?x-no-such-charset?B?//8?= and so on
Content-Type: multipart/mixed; boundary="never-seen"
Content-Transfer-Encoding: x-rot13
"""


def messages(sent: datetime | None = None) -> tuple[DemoMessage, ...]:
    """The demonstration's messages, dated ``sent`` (aware; default: now)."""
    at = sent or datetime.now(UTC)
    picture = encodebytes(_PICTURE).decode("ascii")
    written = (
        ("plain", "plain text, not ASCII, in header and body", "support", _PLAIN, "Still nothing here. Grüße, Renée\n"),
        ("html", "HTML with its plain twin, and a picture", "support", _HTML, _HTML_BODY.format(picture=picture)),
        ("invoice", "the rule `invoices` sends it to another queue", "billing", _INVOICE, "Please find it attached.\n"),
        ("auto-reply", "automatic mail would start a loop", "quarantine", _AUTO_REPLY, "I am away until Monday.\n"),
        (
            "broken",
            "no sender, and nothing else as it should be: the rule `unanswerable`",
            "quarantine",
            _BROKEN,
            "--never-closed\n\0no part\n",
        ),
    )
    return tuple(
        DemoMessage(name, about, goes_to, _compose(header, body, number=number, sent=at))
        for number, (name, about, goes_to, header, body) in enumerate(written, start=1)
    )


def further(octets: bytes) -> bytes:
    """A message that somebody typed, made fit for a mailbox: CRLF line ends, and a header if there is none."""
    lines = octets.replace(b"\r\n", b"\n")
    first = lines.split(b"\n", 1)[0]
    if b":" not in first or b" " in first.split(b":", 1)[0]:
        lines = (
            b"From: You <you@example.org>\nTo: support@example.com\nSubject: A further message\n"
            b"Content-Type: text/plain; charset=utf-8\n\n" + lines
        )
    return lines.replace(b"\n", b"\r\n")
