"""What reading a message costs: mailpoller's parser beside the standard library's, by size, and the hostile set.

Prints microseconds of one message (median of the rounds; both parsers take turns, so that a busy machine slows both):

  compat32   email's message_from_bytes, then headers, text, HTML and decoded attachments; no charset ladder, no digests
  mailpoller the same at payload level "parsed": headers, addresses, text, HTML, attachments with SHA-256
  header     mailpoller's header block alone, all that a queue with payload "raw" or "summary" asks for
  summary    rendering the event of that level; "parsed": of the level with text and attachments
"""

from __future__ import annotations

import argparse
import base64
import gc
import quopri
import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header
from email.utils import format_datetime, getaddresses
from pathlib import Path
from statistics import median

from mailpoller.core.attributes import Attributes
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.spool import Octets
from mailpoller.core.verdict import Deliver
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.parser import parse

WHEN = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
SIZES = {"6 KB": (6_000, 60), "100 KB": (100_000, 20), "3 MB": (3_000_000, 4)}
TARGETS = {"6 KB": 1.5, "100 KB": 4.0, "3 MB": 6.0}
VOCABULARY = (
    "Rechnung",
    "Lieferung",
    "Grüße",
    "please",
    "attached",
    "order",
    "contract",
    "façade",
    "review",
    "the",
    "of",
    "to",
)
HTML = "<html><body>{}</body></html>"


def sentence_lines(rng: random.Random, size: int) -> str:
    return "\n".join(" ".join(rng.choices(VOCABULARY, k=9)) for _ in range(size // 60))


def part(kind: str, encoding: str, encoded: bytes, *more: str) -> bytes:
    head = [f"Content-Type: {kind}", f"Content-Transfer-Encoding: {encoding}", *more]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + encoded.replace(b"\n", b"\r\n")


def multipart(rng: random.Random, subtype: str, parts: list[bytes]) -> bytes:
    boundary = f"=_{subtype}_{rng.getrandbits(64):016x}"
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary.encode(), one) for one in parts)
    return (
        f'Content-Type: multipart/{subtype}; boundary="{boundary}"\r\n\r\n'.encode()
        + body
        + f"--{boundary}--\r\n".encode()
    )


def message(rng: random.Random, size: int, number: int) -> bytes:
    """A message as customers send them: about 1.5 KB of header, text and HTML, attachments if it is large."""
    prose = sentence_lines(rng, min(size, 6_000) * 2 // 5)
    paragraphs = "".join(f'<p style="margin:0">{line}</p>\n' for line in prose.split("\n"))
    body = multipart(
        rng,
        "alternative",
        [
            part("text/plain; charset=utf-8", "quoted-printable", quopri.encodestring(prose.encode())),
            part("text/html; charset=utf-8", "quoted-printable", quopri.encodestring(HTML.format(paragraphs).encode())),
        ],
    )
    if size > 20_000:
        files = [
            part(
                f'application/pdf; name="file-{index}.pdf"',
                "base64",
                base64.encodebytes(rng.randbytes((size - 8_000) * 73 // 200)),
                f'Content-Disposition: attachment; filename="file-{index}.pdf"',
            )
            for index in range(2)
        ]
        body = multipart(rng, "mixed", [body, *files])
    when = format_datetime(WHEN)
    token = f"{rng.getrandbits(80):020x}"
    subject = base64.b64encode(f"Bestellung {number} für Müller".encode()).decode()
    head = [f"Return-Path: <sender{number % 97}@example.com>"]
    head += [
        f"Received: from relay{hop}.example.net (relay{hop}.example.net [192.0.2.{hop}])\r\n"
        f"\tby mx{hop}.example.org (Postfix) with ESMTPS id {token[:12]}\r\n\tfor <support@example.org>; {when}"
        for hop in range(3)
    ]
    head += [
        "Authentication-Results: mx.example.org; dkim=pass header.d=example.com; spf=pass",
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1;\r\n"
        f"\th=from:to:subject:date; bh={base64.b64encode(rng.randbytes(32)).decode()};\r\n"
        f"\tb={base64.b64encode(rng.randbytes(64)).decode()}",
        f"From: =?utf-8?q?J=C3=BCrgen_M=C3=BCller?= <sender{number % 97}@example.com>",
        "To: Support <support@example.org>",
        f"Subject: =?utf-8?b?{subject}?=",
        f"Date: {when}",
        f"Message-ID: <{token}@example.com>",
        "MIME-Version: 1.0",
    ]
    return "\r\n".join(head).encode() + b"\r\n" + body


def with_standard_library(octets: bytes) -> object:
    parsed = message_from_bytes(octets)
    texts: list[str] = []
    files = []
    for leaf in parsed.walk():
        if leaf.is_multipart():
            continue
        data = leaf.get_payload(decode=True) or b""
        name = leaf.get_filename()
        if name or leaf.get_content_maintype() != "text":
            files.append((name, leaf.get_content_type(), len(data)))
        else:
            texts.append(data.decode("utf-8", "replace"))
    subject = decode_header(parsed["subject"])
    return subject, getaddresses([parsed["from"]]), getaddresses([parsed["to"]]), parsed.items(), texts, files


def fetched(octets: bytes) -> RawMessage:
    claim = Claim(MessageRef(Folder("support", "INBOX", "1"), "17"), "0b8f6d1e-2f5e-5d3c-9a55-6e8f7a1c2b3d")
    return RawMessage(claim, Octets.of(octets), received=WHEN)


def rendered(raw: RawMessage, payload: str) -> Callable[[], object]:
    parsed = parse(raw)
    _ = parsed.body
    deliver = Deliver(("support",), Attributes(topic="billing"), rules=("invoices",))
    return lambda: EventRenderer(parsed, verdict=deliver, source="mailpoller/support", now=WHEN).render(
        queue="support", delivery_id="4e3e2a52-58d8-5f0e-8e0a-6a2b7f0f9f11", payload=payload
    )


def microseconds(calls: list[Callable[[], object]]) -> float:
    began = time.perf_counter()
    for call in calls:
        call()
    return (time.perf_counter() - began) / len(calls) * 1e6


def measure(size: str, rounds: int) -> dict[str, float]:
    about, count = SIZES[size]
    rng = random.Random(size)
    raws = [fetched(message(rng, about, number)) for number in range(count)]
    columns: dict[str, list[Callable[[], object]]] = {
        "compat32": [lambda raw=raw: with_standard_library(raw.octets.view()) for raw in raws],
        "mailpoller": [lambda raw=raw: parse(raw).body for raw in raws],
        "header": [lambda raw=raw: parse(raw) for raw in raws],
        "summary": [rendered(raw, "summary") for raw in raws],
        "parsed": [rendered(raw, "parsed") for raw in raws],
    }
    times: dict[str, list[float]] = {name: [] for name in columns}
    gc.collect()
    for _ in range(rounds):
        for name, calls in columns.items():
            times[name].append(microseconds(calls))
    return {name: median(values) for name, values in times.items()}


def hostile() -> list[tuple[str, float]]:
    """Seconds of processor time for each odd message, parsed, read and rendered; slowest first."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import odd_mail

    taken = []
    for name, octets in odd_mail.every().items():
        raw = fetched(octets)
        began = time.process_time()
        rendered(raw, "parsed")()
        taken.append((name, time.process_time() - began))
    return sorted(taken, key=lambda one: -one[1])


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--rounds", type=int, default=9, help="rounds per size (9)")
    reader.add_argument("--hostile", action="store_true", help="also time the hostile set, and show its slowest ten")
    options = reader.parse_args()
    names = ("compat32", "mailpoller", "header", "summary", "parsed")
    print(f"{'message':>8} " + "".join(f"{name + ' µs':>15}" for name in names) + f"{'times as fast':>15}{'target':>8}")
    met = True
    for size in SIZES:
        row = measure(size, options.rounds)
        factor = row["compat32"] / row["mailpoller"]
        met = met and factor >= TARGETS[size]
        print(
            f"{size:>8} " + "".join(f"{row[name]:>15.1f}" for name in names) + f"{factor:>15.1f}{TARGETS[size]:>8.1f}"
        )
    if options.hostile:
        print("\nhostile mail, slowest first, processor seconds")
        for name, seconds in hostile()[:10]:
            print(f"{seconds:8.3f}  {name}")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
