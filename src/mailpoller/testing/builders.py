"""Messages for tests and the demo: octets with CRLF line ends, as a server would send them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

SENT = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
"""The Date of every built message that is not given another: the same arguments make the same octets."""


def plain(
    *,
    subject: str = "Where is my parcel?",
    text: str = "Hello,\n\nI ordered a fortnight ago.\n\nErika Müller\n",
    sender: str = "Erika Müller <erika@example.com>",
    to: str = "support@example.org",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A message of text alone. ``headers`` are added, or take the place of those that are there."""
    return _message(subject, text, sender, to, headers).as_bytes()


def html(
    *,
    subject: str = "Your invoice",
    text: str = "Please find your invoice at our site.\n",
    markup: str = "<html><body><p>Please find your invoice at <b>our site</b>.</p></body></html>\n",
    sender: str = "Billing <billing@example.com>",
    to: str = "support@example.org",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Text and HTML as alternatives."""
    message = _message(subject, text, sender, to, headers)
    message.add_alternative(markup, subtype="html")
    message.set_boundary("=_alternative_1")
    return message.as_bytes()


def with_attachment(
    *,
    subject: str = "Signed contract",
    text: str = "The contract is attached.\n",
    markup: str = "",
    sender: str = "Jürgen Groß <juergen@example.com>",
    to: str = "support@example.org",
    name: str = "Vertrag für Müller.pdf",
    content_type: str = "application/pdf",
    content: bytes = b"%PDF-1.4 not really\n",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Text, HTML if ``markup`` is given, and one attachment in base64."""
    message = _message(subject, text, sender, to, headers)
    if markup:
        message.add_alternative(markup, subtype="html")
        message.set_boundary("=_alternative_1")
    kind, _, subtype = content_type.partition("/")
    message.add_attachment(content, maintype=kind, subtype=subtype, filename=name)
    message.set_boundary("=_mixed_1")
    return message.as_bytes()


def auto_reply(
    *,
    subject: str = "Out of office",
    text: str = "I am back on Monday.\n",
    sender: str = "Erika Müller <erika@example.com>",
    to: str = "support@example.org",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """What a vacation responder sends: ``Auto-Submitted: auto-replied``."""
    return plain(
        subject=subject, text=text, sender=sender, to=to, headers={"Auto-Submitted": "auto-replied", **(headers or {})}
    )


def bounce(
    *,
    to: str = "support@example.org",
    failed: str = "nobody@example.com",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """A delivery status notification (RFC 3464) with a null Return-Path."""
    lines = [
        "Return-Path: <>",
        "From: Mail Delivery System <MAILER-DAEMON@example.com>",
        f"To: {to}",
        "Subject: Undelivered Mail Returned to Sender",
        f"Date: {format_datetime(SENT)}",
        "Message-ID: <bounce.1@example.com>",
        "MIME-Version: 1.0",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
        'Content-Type: multipart/report; report-type=delivery-status; boundary="=_report_1"',
        "",
        "--=_report_1",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"Your message to <{failed}> could not be delivered.",
        "",
        "--=_report_1",
        "Content-Type: message/delivery-status",
        "",
        "Reporting-MTA: dns; mail.example.com",
        "",
        f"Final-Recipient: rfc822; {failed}",
        "Action: failed",
        "Status: 5.1.1",
        "",
        "--=_report_1",
        "Content-Type: text/rfc822-headers",
        "",
        f"From: {to}",
        f"To: {failed}",
        "Subject: Hello",
        "",
        "--=_report_1--",
        "",
    ]
    return "\r\n".join(lines).encode()


def broken(*, sender: str = "mailer@example.com", to: str = "support@example.org") -> bytes:
    """Much that goes wrong at once: a line that is no field, raw octets in a header, an unknown charset, base64 that is
    none, a boundary that is never closed, a NUL. It has a subject and a text all the same."""
    return (
        b"From: =?x-nonsense?q?Broken=FF?= <" + sender.encode() + b">\r\n"
        b"To: " + to.encode() + b"\r\n"
        b"this line is no field\r\n"
        b"Subject: Gr\xfc\xdfe from a broken mailer\r\n"
        b"Date: Foo, 99 Bar 0000 99:99:99 +9999\r\n"
        b"Content-Type: multipart/mixed; boundary=broken\r\n"
        b"\r\n"
        b"--broken\r\n"
        b"Content-Type: text/plain; charset=x-nonsense\r\n"
        b"\r\n"
        b"The text\0 arrives, \xfcmlauts and all.\r\n"
        b"--broken\r\n"
        b'Content-Type: application/pdf; name="../../etc/passwd"\r\n'
        b"Content-Transfer-Encoding: base64\r\n"
        b"\r\n"
        b"!!!abc=d=\r\n"
    )


def _message(subject: str, text: str, sender: str, to: str, headers: Mapping[str, str] | None) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = format_datetime(SENT)
    message["Message-ID"] = "<1.20260314092653@example.com>"
    for name, value in (headers or {}).items():
        del message[name]
        message[name] = value
    message.set_content(text)
    return message
