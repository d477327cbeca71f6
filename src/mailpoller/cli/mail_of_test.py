"""The octets of a mail of which a test of rules says only what matters."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from mailpoller.config.tests_of_rules import AttachmentOfTest, MailOfTest

_USUAL = {
    "Date": "Sat, 14 Mar 2026 09:26:53 +0000",
    "Message-ID": "<test@mailpoller.invalid>",
    "MIME-Version": "1.0",
}


def compose(mail: MailOfTest, to: str) -> bytes:
    """RFC 5322 octets with UTF-8 in the header (RFC 6532), the same for the same block. ``to``: who gets it where
    the block does not say."""
    named = {name.lower() for name in mail.headers}
    usual = {"From": mail.from_, "To": to if mail.to is None else mail.to, "Cc": mail.cc, "Subject": mail.subject}
    fields = [(name, value) for name, value in (usual | _USUAL).items() if value and name.lower() not in named]
    for name, value in mail.headers.items():
        fields += [(name, one) for one in ([value] if isinstance(value, str) else value)]
    parts = list(_parts(mail))
    if "content-type" in named:
        body = "\r\n" + _lines(mail.text)
    elif len(parts) == 1:
        body = parts[0]
    else:
        boundary = "=_test"
        while any(boundary in part for part in parts):
            boundary += "_"
        kind = "mixed" if mail.attachments else "alternative"
        body = f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'
        body += "".join(f"--{boundary}\r\n{part}\r\n" for part in parts) + f"--{boundary}--\r\n"
    return ("".join(f"{name}: {value}\r\n" for name, value in fields) + body).encode("utf-8", "replace")


def _parts(mail: MailOfTest) -> Iterator[str]:
    yield f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{_lines(mail.text)}"
    if mail.html is not None:
        yield f"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{_lines(mail.html)}"
    for attachment in mail.attachments:
        yield _attachment(attachment)


def _attachment(attachment: AttachmentOfTest) -> str:
    octets = attachment.content.encode("utf-8", "replace")
    if attachment.size is not None:
        octets = (octets or b"x").ljust(attachment.size, b"x")[: attachment.size]
    encoded = _lines(base64.encodebytes(octets).decode())
    name = attachment.name.replace("\\", "\\\\").replace('"', '\\"')
    return (
        f"Content-Type: {attachment.type}\r\n"
        f'Content-Disposition: attachment; filename="{name}"\r\n'
        f"Content-Transfer-Encoding: base64\r\n\r\n{encoded}"
    )


def _lines(text: str) -> str:
    return "\r\n".join(text.splitlines()) + "\r\n"
