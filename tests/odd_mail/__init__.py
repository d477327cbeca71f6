"""Odd mail, one message per oddity: small ones as files named after what is odd, large ones made here.

``every()`` gives them all, name -> octets. None of them may raise, hang or take a neighbour with it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_HEAD = b"From: a@example.com\r\nTo: b@example.org\r\nSubject: odd\r\nMessage-ID: <odd@example.com>\r\n"
_MIXED = _HEAD + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"


def every() -> dict[str, bytes]:
    """All odd mail, by name."""
    return {**files(), **{name: make() for name, make in MADE.items()}}


def files() -> dict[str, bytes]:
    """The small ones."""
    return {path.stem: path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.eml"))}


def _nested_multiparts(depth: int) -> bytes:
    return _HEAD + b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (level, level) for level in range(depth)
    )


def _nested_around_much(depth: int, filling: bytes) -> bytes:
    return _nested_multiparts(depth) + b"Content-Type: text/plain\r\n\r\n" + filling


def _field(name: bytes, value: bytes) -> bytes:
    return _HEAD.replace(name + b": ", b"X-Was-" + name + b": ") + name + b": " + value + b"\r\n\r\nhi\r\n"


def _body(octets: bytes, *fields: bytes) -> bytes:
    return _HEAD + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + octets


MADE: dict[str, Callable[[], bytes]] = {
    "2000-nested-messages": lambda: _HEAD + b"Content-Type: message/rfc822\r\n\r\n" * 2000 + b"hi\r\n",
    "2000-nested-multiparts": lambda: _nested_multiparts(2000),
    "nested-multiparts-around-10-megabytes-of-dashes": lambda: _nested_around_much(60, b"\n--" * 3_400_000),
    "nested-multiparts-around-10-megabytes-of-near-boundaries": lambda: _nested_around_much(60, b"\n--b1x" * 1_700_000),
    "10000-parts": lambda: _MIXED + b"--x\r\n\r\na\r\n" * 10_000 + b"--x--\r\n",
    "10000-attachments": lambda: _MIXED
    + b"--x\r\nContent-Disposition: attachment; filename=a.txt\r\nContent-Transfer-Encoding: "
      b"base64\r\n\r\nYQ==\r\n" * 10_000
    + b"--x--\r\n",
    "100000-boundaries-in-a-row": lambda: _MIXED + b"--x\r\n" * 100_000,
    "2000000-lines-that-begin-like-a-boundary": lambda: (
        _MIXED + b"--xy\r\n" * 2_000_000 + b"--x\r\n\r\nhi\r\n--x--\r\n"
    ),
    "boundary-line-of-5-megabytes-of-spaces": lambda: _MIXED + b"--x" + b" " * 5_000_000 + b"\r\n\r\nhi\r\n--x--\r\n",
    "1000-part-headers-without-end": lambda: _MIXED + (b"--x\r\n" + b"a: b\r\n" * 4000) * 1000,
    "20000-semicolons": lambda: _field(b"Content-Type", b"text/plain" + b";" * 20_000),
    "20000-parameters": lambda: _field(b"Content-Type", b"text/plain" + b"; a=b" * 20_000),
    "10000-continuations": lambda: _field(
        b"Content-Disposition", b"attachment" + b"".join(b";\r\n filename*%d*=%%C3%%BC" % n for n in range(10_000))
    ),
    "5000-recipients": lambda: _field(b"To", b",\r\n ".join(b'"User, %d" <u%d@example.org>' % (n,
    n) for n in range(5000))),
    "5000-plain-recipients": lambda: _field(b"To", b",\r\n ".join(b"u%d@example.org" % n for n in range(5000))),
    "200000-commas": lambda: _field(b"To", b"," * 200_000),
    "100000-recipients": lambda: _field(b"To", b",".join(b"u%d@e.org" % n for n in range(60_000))),
    "20000-open-comments": lambda: _field(b"From", b"(" * 20_000 + b" a@example.com"),
    "500000-open-comments": lambda: _field(b"From", b"(" * 500_000 + b" a@example.com"),
    "comments-that-nearly-close": lambda: _field(b"From", b"(" * 250_000 + b")" * 249_999 + b" a@example.com"),
    "300000-small-comments": lambda: _field(b"From", b"(a)" * 300_000 + b" a@example.com"),
    "500000-angle-brackets": lambda: _field(b"From", b"<" * 500_000 + b"a@example.com"),
    "500000-quotes": lambda: _field(b"From", b'"' * 499_999 + b" <a@example.com>"),
    "quoted-brackets": lambda: _field(b"From", b'<"' * 250_000 + b"a@example.com"),
    "escaped-quotes": lambda: _field(b"From", b'"' + b'\\"' * 250_000 + b"a@example.com"),
    "escaped-quotes-in-brackets": lambda: _field(b"From", b'<"\\"' * 200_000 + b"a@example.com"),
    "escaped-brackets": lambda: _field(b"From", b'<"' + b'\\"<' * 200_000 + b"a@example.com"),
    "dots-around-an-address": lambda: _field(b"From", b". " * 40_000 + b"@ " + b" ." * 4_000),
    "backslashed-quotes-in-brackets": lambda: _field(b"From", b'<\\"' * 200_000 + b"a@example.com"),
    "backslashed-brackets": lambda: _field(b"From", b"<\\" * 200_000 + b"a@example.com"),
    "backslashes": lambda: _field(b"From", b'"' + b"\\" * 500_001 + b"a@example.com"),
    "groups-in-groups": lambda: _field(b"To", b"g:" * 250_000 + b"a@example.com" + b";" * 250_000),
    "at-signs": lambda: _field(b"From", b"@ " * 250_000),
    "dots-and-spaces": lambda: _field(b"From", b" . " * 150_000 + b"@ x"),
    "words-without-end": lambda: _field(b"From", b"a " * 250_000 + b"<a@example.com>"),
    "spaces-without-end": lambda: _field(b"From", b"a" + b" " * 900_000 + b"<a@example.com>"),
    "3000-encoded-words": lambda: _field(b"Subject", b"\r\n ".join([b"=?utf-8?q?a=C3=BC?="] * 3000)),
    "60000-encoded-words-in-unknown-charsets": lambda: _field(
        b"Subject", b" ".join(b"=?x-%d?q?a?=" % n for n in range(60_000))
    ),
    "encoded-word-of-a-megabyte": lambda: _field(b"Subject", b"=?utf-8?q?" + b"=C3=BC" * 160_000 + b"?="),
    "encoded-words-never-closed": lambda: _field(b"Subject", b"=?a?q?" * 150_000),
    "encoded-word-question-marks": lambda: _field(b"Subject", b"=?a?q?" + b"?" * 900_000),
    "encoded-words-of-one-octet": lambda: _field(b"Subject", b"=?utf-8?q?a?= " * 60_000),
    "header-line-of-a-megabyte": lambda: _field(b"Subject", b"x" * 1_000_000),
    "header-of-20-megabytes": lambda: _field(b"Subject", b"x" * 20_000_000),
    "million-fields": lambda: b"Subject: x\r\n" + b"a: b\r\n" * 1_000_000 + b"From: a@example.com\r\n\r\nhi\r\n",
    "million-junk-lines-for-a-header": lambda: b"Subject: x\r\n" + b"junk\r\na: b\r\n" * 90_000 + b"\r\nhi\r\n",
    "million-folds": lambda: b"Subject: x\r\n" + b" \r\n" * 1_000_000 + b"\r\nhi\r\n",
    "1000-received-fields": lambda: b"Received: from a by b with c; Sat, 14 Mar 2026 09:26:53 "
                                    b"+0000\r\n" * 1000 + _body(b"hi"),
    "date-of-digits": lambda: _field(b"Date", b"1 " * 100_000),
    "references-without-end": lambda: _field(b"References", b"<a@b> " * 100_000 + b"<" * 100_000),
    "text-of-10-megabytes": lambda: _body(b"0123456789abcd\r\n" * 650_000),
    "text-of-one-line": lambda: _body(b"x" * 10_000_000),
    "text-of-carriage-returns": lambda: _body(b"\r" * 5_000_000),
    "text-of-nuls": lambda: _body(b"\0" * 5_000_000),
    "text-of-invalid-utf8": lambda: _body(b"\xff" * 5_000_000, b"Content-Type: text/plain; charset=utf-8"),
    "text-of-undefined-windows-1252": lambda: _body(b"\x81" * 5_000_000, b"Content-Type: text/plain; "
                                                                         b"charset=windows-1252"),
    "text-of-invalid-shift-jis": lambda: _body(b"\xff" * 5_000_000, b"Content-Type: text/plain; charset=shift_jis"),
    "text-of-invalid-iso-2022-jp": lambda: _body(b"\x1b$B\xff" * 1_200_000, b"Content-Type: text/plain; "
                                                                            b"charset=iso-2022-jp"),
    "text-of-lone-surrogates": lambda: _body(b"\x00\xd8" * 2_500_000, b"Content-Type: text/plain; charset=utf-16-le"),
    "text-of-invalid-utf7": lambda: _body(b"+\xff" * 2_500_000, b"Content-Type: text/plain; charset=utf-7"),
    "text-of-utf7-surrogates": lambda: _body(b"+2AA-" * 1_000_000, b"Content-Type: text/plain; charset=utf-7"),
    "base64-of-paddings": lambda: _body(b"A=" * 5_000_000, b"Content-Transfer-Encoding: base64"),
    "base64-of-equal-signs": lambda: _body(b"=" * 10_000_000, b"Content-Transfer-Encoding: base64"),
    "base64-of-junk": lambda: _body(b"!" * 10_000_000, b"Content-Transfer-Encoding: base64"),
    "quoted-printable-of-equal-signs": lambda: _body(b"=" * 10_000_000, b"Content-Transfer-Encoding: quoted-printable"),
    "quoted-printable-of-soft-breaks": lambda: _body(b"=\r\n" * 3_000_000, b"Content-Transfer-Encoding: "
                                                                           b"quoted-printable"),
    "quoted-printable-of-equals-and-returns": lambda: _body(b"=\r" * 5_000_000, b"Content-Transfer-Encoding: "
                                                                                b"quoted-printable"),
    "uuencode-of-short-lines": lambda: _body(
        b"begin 644 f\r\n" + b"!80\r\n" * 1_000_000, b"Content-Transfer-Encoding: x-uuencode"
    ),
    "uuencode-of-broken-lines": lambda: _body(
        b"begin 644 f\r\n" + b"\x7fz\r\n" * 1_000_000, b"Content-Transfer-Encoding: x-uuencode"
    ),
    "html-of-meta-tags": lambda: _body(b"<meta" * 1_000_000, b"Content-Type: text/html"),
    "zip-in-base64-in-base64": lambda: _body(
        b"UEsDBBQAAAAIAAAAIQ" * 100_000, b"Content-Type: application/zip", b"Content-Encoding: gzip",
        b"Content-Transfer-Encoding: base64",
    ),
}  # fmt: skip
