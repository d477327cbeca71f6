"""How a labelled mail is put together."""

from __future__ import annotations

from email.header import Header

BASE = {
    "From": "Jane Doe <jane@example.org>",
    "To": "Support <support@example.com>",
    "Subject": "my order",
    "Date": "Sat, 14 Mar 2026 09:26:53 +0100",
    "Message-ID": "<made@example.org>",
    "MIME-Version": "1.0",
    "Content-Type": "text/plain; charset=utf-8",
}


def mail(body: str = "Hello,\n\nplease see to it.\n", /, **fields: str | None) -> bytes:
    """A mail with the usual fields, changed by ``fields`` (``_`` for a hyphen; None leaves one out)."""
    values: dict[str, str | None] = dict(BASE)
    for name, value in fields.items():
        written = name.replace("_", "-")
        for known in values:
            if known.lower() == written.lower():
                written = known
        values[written] = value
    lines = [f"{name}: {_encoded(value)}" for name, value in values.items() if value is not None]
    return ("\r\n".join(lines) + "\r\n\r\n" + body.replace("\n", "\r\n")).encode()


def _encoded(value: str) -> str:
    return value if value.isascii() else Header(value, "utf-8", maxlinelen=900).encode(maxlinelen=0)


def multipart(subtype: str, *parts: str) -> str:
    """The body of a multipart whose boundary is ``b``; each part with its own header."""
    return "".join(f"--b\n{part}\n" for part in parts) + "--b--\n"
