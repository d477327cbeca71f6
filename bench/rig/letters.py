"""Messages as customers send them: the same ones for the same seed.

Two mixes. ``small``: 5 to 10 KB of text, HTML and header, 8 KB in the mean. ``standard``: of each hundred 70 small,
25 of 50 to 150 KB and 5 of 1 to 5 MB, with attachments; about 176 KB in the mean. A hundred bodies are used in turn,
each time beneath a header of its own, so that no two messages of a mailbox are equal. Line ends are LF, as a delivery
agent leaves them on disk.
"""

from __future__ import annotations

import base64
import quopri
import random
from collections.abc import Iterator
from email.utils import formatdate
from typing import Literal

Mix = Literal["small", "standard"]

POOL = 100
_FIRST = 1_750_000_000
_PROSE = """please see the attached order and let us know when our shipment leaves your warehouse because the customer
has asked twice about refund invoice contract Lieferung Grüße Überweisung façade résumé delivery tomorrow thank you"""
_WORDS = _PROSE.split()


def letters(mix: Mix, count: int, *, user: str, seed: int = 1) -> Iterator[bytes]:
    """``count`` messages to ``user``, one at a time."""
    rng = random.Random(f"{seed} {mix}")
    bodies = [_body(rng, size) for size in _sizes(rng, mix)]
    for number in range(count):
        yield _header(rng, user, number) + bodies[number % POOL]


def large(size: int, count: int, *, user: str, seed: int = 1) -> Iterator[bytes]:
    """``count`` messages of ``size`` octets or a little more, each with one attachment."""
    rng = random.Random(f"{seed} large")
    body = _body(rng, size)
    for number in range(count):
        yield _header(rng, user, number) + body


def _sizes(rng: random.Random, mix: Mix) -> list[int]:
    # Exact shares rather than drawn ones, so that a short run has the mean of a long one.
    sizes = [rng.randint(4_000, 8_000) for _ in range(POOL if mix == "small" else 70)]
    if mix == "standard":
        sizes += [rng.randint(50_000, 150_000) for _ in range(25)]
        sizes += [1_000_000 + 1_000_000 * step for step in range(5)]
        rng.shuffle(sizes)
    return sizes


def _header(rng: random.Random, user: str, number: int) -> bytes:
    when = formatdate(_FIRST + number)
    token = f"{rng.getrandbits(96):024x}"
    subject = base64.b64encode(f"Bestellung {number} für {user}".encode()).decode()
    received = "".join(
        f"Received: from out{hop}.example.net (out{hop}.example.net [192.0.2.{hop}])\n"
        f"\tby in{hop}.example.org (Postfix) with ESMTPS id {token[:12]}{hop}\n\tfor <{user}@example.org>; {when}\n"
        for hop in range(3)
    )
    return (
        f"Return-Path: <writer{number % 89}@example.com>\n{received}"
        "Authentication-Results: in0.example.org; dkim=pass header.d=example.com; spf=pass\n"
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1;\n"
        f"\th=from:to:subject:date; bh={token}{token[:19]}=;\n\tb={token * 3}=\n"
        f"From: =?utf-8?q?J=C3=BCrgen_Schr=C3=B6der?= <writer{number % 89}@example.com>\n"
        f"To: Support <{user}@example.org>\nSubject: =?utf-8?b?{subject}?=\nDate: {when}\n"
        f"Message-ID: <{token}.{number}@example.com>\nMIME-Version: 1.0\n"
    ).encode()


def _body(rng: random.Random, size: int) -> bytes:
    """From the Content-Type field on, about ``size`` octets."""
    if size <= 20_000:
        return _prose(rng, size)
    parts = [_prose(rng, 5_000)]
    files = rng.randint(1, 3)
    for index in range(files):
        data = base64.encodebytes(rng.randbytes((size - 6_000) * 73 // 100 // files))
        head = (
            f'Content-Type: application/pdf; name="file-{index}.pdf"\nContent-Transfer-Encoding: base64\n'
            f'Content-Disposition: attachment; filename="file-{index}.pdf"\n\n'
        )
        parts.append(head.encode() + data)
    return _multipart(rng, "mixed", parts)


def _prose(rng: random.Random, size: int) -> bytes:
    lines = [" ".join(rng.choices(_WORDS, k=8)) for _ in range(size // 140)]
    html = "".join(f'<p style="margin:0">{line}</p>\n' for line in lines)
    return _multipart(
        rng,
        "alternative",
        [_text("plain", "\n".join(lines)), _text("html", f"<html><body>\n{html}</body></html>")],
    )


def _text(subtype: str, text: str) -> bytes:
    head = f"Content-Type: text/{subtype}; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n"
    return head.encode() + quopri.encodestring(text.encode()) + b"\n"


def _multipart(rng: random.Random, subtype: str, parts: list[bytes]) -> bytes:
    boundary = f"=_{subtype}_{rng.getrandbits(64):016x}"
    lines = [f'Content-Type: multipart/{subtype}; boundary="{boundary}"\n\n'.encode()]
    lines += [b"--%b\n%b" % (boundary.encode(), part) for part in parts]
    return b"".join([*lines, b"--%b--\n" % boundary.encode()])
