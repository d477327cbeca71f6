"""Rich text of a TNEF: read as text or as the HTML that it was, and none of it for ever."""

from __future__ import annotations

import struct
import time
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailpoller.core.body import Undone
from mailpoller.mail.contents import compressed_rtf, rtf
from mailpoller.mail.contents.compressed_rtf import unpacked_rtf
from mailpoller.mail.contents.reader import read_contents
from mailpoller.mail.contents.rtf import read_rtf
from mailpoller.mail.contents.unpack import Closed
from pace import paced
from unit.test_messages_within import held
from unit.test_messages_within import mail as message_of
from unit.test_tnef import attribute, mail, properties, read, stream, variable

# Sections 4.1.1 and 4.1.2 of MS-OXRTFCP.
SIMPLE = bytes.fromhex(
    "2d0000002b0000004c5a4675f1c5c7a703000a00726370673132354232 0af32068656c090020627705b06c647d0a800fa0"
)
CROSSING = bytes.fromhex("1a0000001c0000004c5a4675e2d44b51410004205758595a0d6e7d010eb0")
HTML = (
    rb"{\rtf1\ansi\ansicpg1252\fromhtml1 \deff0{\fonttbl{\f0\fswiss Arial;}{\f1\fcharset204 Arial;}}"
    rb"{\*\generator x;}{\*\htmltag19 <html>}{\*\htmltag64 <p>}\htmlrtf {\htmlrtf0 Gr\'fc\'dfe {\*\htmltag84 &amp;}"
    rb"\htmlrtf &\htmlrtf0  \u8364?5 1 < 2 {\f1 \'cf\'f0\'e8}{\*\mhtmltag72 no}"
    rb"{\*\htmltag84 <a href=\'22x\{y\}\'22>}more{\*\htmltag92 </a>}{\*\htmltag72 </p>}\htmlrtf\par}\htmlrtf0"
    rb"{\*\htmltag27 </html>}}"
)


def packed(octets: bytes) -> bytes:
    """All of it in literals, and the end."""
    data, written = b"", 207
    for at in range(0, len(octets) + 1, 8):
        piece = octets[at : at + 8]
        written += len(piece)
        if len(piece) < 8:
            data += bytes((1 << len(piece),)) + piece + struct.pack(">H", written % 4096 << 4)
        else:
            data += b"\0" + piece
    return whole(data, len(octets))


def whole(data: bytes, raw: int) -> bytes:
    checksum = crc32(data, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return struct.pack("<IIII", len(data) + 12, raw, 0x75465A4C, checksum) + data


def tnef(rich: bytes) -> bytes:
    return stream(attribute(1, 0x00069003, properties(variable(0x102, 0x1009, rich))))


def test_examples_of_the_specification_are_unpacked() -> None:
    assert unpacked_rtf(SIMPLE) == b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n"
    assert unpacked_rtf(CROSSING) == b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}"
    assert read_rtf(unpacked_rtf(SIMPLE)) == ("hello world", "plain")


def test_what_was_not_compressed_is_taken_as_it_is() -> None:
    octets = b"{\\rtf1 x}"
    assert unpacked_rtf(struct.pack("<IIII", len(octets) + 12, len(octets), 0x414C454D, 0) + octets) == octets


@given(st.binary(max_size=9000))
def test_what_is_packed_is_unpacked(octets: bytes) -> None:
    assert unpacked_rtf(packed(octets)) == octets


@pytest.mark.parametrize(
    "octets", [b"", SIMPLE[:40], SIMPLE[:-5] + b"\0" + SIMPLE[-4:], b"\0" * 40, whole(b"\xff\0", 9), whole(b"", 5)]
)
def test_what_is_cut_off_or_changed_stays_closed(octets: bytes) -> None:
    with pytest.raises(Closed, match="malformed"):
        unpacked_rtf(octets)


def test_html_that_was_made_rich_text_is_html_again() -> None:
    found = read_rtf(HTML)
    assert found == (
        '<html><p>Grüße &amp; €5 1 &lt; 2 При<a href="x{y}">more</a></p></html>', "html"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (rb"{\rtf1\ansi one\par two\tab three\line\bullet  four}", "one\ntwo\tthree\n• four"),
        (rb"{\rtf1\ansi\ansicpg1251 \'cf\'f0\'e8\'e2\'e5\'f2}", "Привет"),
        (rb"{\rtf1\ansi\ansicpg932 \'93\'fa\'96\'7b}", "日本"),
        (rb"{\rtf1\uc1 \u-10179?\u-8704?x}", "😀x"),
        (rb"{\rtf1\uc2 \u8364\'80\'80x}", "€x"),
        (rb"{\rtf1\u55357?x}", "\ufffdx"),
        (rb"{\rtf1{\info{\title no}}{\*\unknown no}{\pict\bin4 {{{{}{\v no}yes\{\}\\\~}", "yes{}\\\xa0"),
        (rb"{\rtf1 {\field{\*\fldinst HYPERLINK x}{\fldrslt link}} end", "link end"),
        (rb"{\rtf1 a\'zz\u", "azz"),
        (rb"{\rtf1\ansi a}b}c", "a"),
    ],
)
def test_plain_text_is_read_out_of_rich_text(written: bytes, text: str) -> None:
    assert read_rtf(written) == (text, "plain")


def test_text_of_a_mail_is_that_of_its_rich_text_if_it_has_no_other() -> None:
    message = mail(tnef(packed(HTML)))
    message.take_contents(read_contents(message, message.closed))
    assert message.body.text.startswith("Grüße & €5 1 < 2 Приmore")
    assert (message.body.text_from, message.body.html.startswith("<html>"), message.body.undone) == ("html", True, ())
    message = mail(tnef(SIMPLE), b"another\r\n")
    message.take_contents(read_contents(message, message.closed))
    assert (message.body.text, message.body.html) == ("another\n", "")


def test_html_of_a_tnef_is_the_mails_if_it_has_no_other() -> None:
    html = "<meta charset=utf-8><p>Grüße</p>".encode()
    message = mail(stream(attribute(1, 0x00069003, properties(variable(0x102, 0x1013, html)))))
    message.take_contents(read_contents(message, message.closed))
    assert (message.body.text, message.body.text_from, message.body.html) == ("Grüße", "html", html.decode())


def test_rich_text_of_a_forwarded_message_is_its_text() -> None:
    part = b"Content-Type: application/ms-tnef\r\nContent-Transfer-Encoding: binary\r\n\r\n" + tnef(SIMPLE)
    message = read(message_of(b"\r\nsee below", held(message_of(part, boundary="i"))))
    message.take_contents(read_contents(message, message.closed))
    assert message.body.forwarded is not None
    assert message.body.forwarded.text == "hello world"


@pytest.mark.parametrize(
    "octets",
    [
        b"{\\rtf1" + b"{" * 1_900_000,
        b"{\\rtf1" + b"{\\b" * 600_000,
        b"{\\rtf1" + b"\\u1?" * 450_000,
        b"{\\rtf1\\fromhtml1" + b"{\\*\\htmltag <p>}" * 110_000,
        b"{\\rtf1{\\fonttbl" + b"{\\f1\\fcharset204 a;}" * 90_000,
        b"{\\rtf1" + b"\\f1\\'e4\\f2\\'e4" * 130_000,
        b"{\\rtf1" + b"a" * 1_900_000,
        b"{\\rtf1" + b"\\'" * 900_000,
        b"{\\rtf1 " + b"\\bin9999999999 x" * 100_000,
        b"{\\rtf1\\uc9" + b"\\u1" * 600_000,
    ],
    ids=lambda octets: octets[6:20].decode(),
)
def test_hostile_rich_text_ends_within_a_second(octets: bytes) -> None:
    began = time.process_time()
    try:
        read_rtf(octets)
    except Closed:
        pass
    assert time.process_time() - began < paced(1)


@pytest.mark.parametrize("control", [0x00, 0xFF])
def test_hostile_compression_ends_within_a_second(control: int) -> None:
    piece = bytes((control,)) + (b"\x00\x0f" if control else b"x") * 8
    data = piece * (3_900_000 // len(piece))
    began = time.process_time()
    try:
        unpacked_rtf(whole(data, compressed_rtf.LARGEST))
    except Closed:
        pass
    assert time.process_time() - began < paced(1)
    with pytest.raises(Closed, match="too-large"):
        unpacked_rtf(whole(b"", compressed_rtf.LARGEST + 1))


def test_one_rich_text_of_a_mail_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def counting(octets: bytes) -> bytes:
        seen.append(octets)
        raise Closed("malformed")

    monkeypatch.setattr("mailpoller.mail.contents.reader.unpacked_rtf", counting)
    part = b"Content-Type: application/ms-tnef\r\nContent-Transfer-Encoding: binary\r\n\r\n" + tnef(SIMPLE)
    message = read(message_of(*[part] * 4))
    assert read_contents(message, message.closed).undone == (Undone("tnef", "rich-text"),)
    assert len(seen) == 1


@given(
    st.lists(
        st.sampled_from(
            [
                b"{",
                b"}",
                b"\\*",
                b"\\htmltag1 ",
                b"\\fromhtml1 ",
                b"\\htmlrtf ",
                b"\\u55357?",
                b"\\'e4",
                b"\\uc3",
                b"\\fonttbl",
                b"\\f1",
                b"\\fcharset128 ",
                b"\\bin3 ",
                b"x",
                b"\\",
                b"\0",
            ]
        )
    )
)
def test_whatever_stands_in_it_the_text_is_valid(pieces: list[bytes]) -> None:
    try:
        found = read_rtf(b"{\\rtf1" + b"".join(pieces))
    except Closed:
        return
    found.text.encode("utf-8")
    assert "\0" not in found.text and len(found.text) <= rtf.KEPT
