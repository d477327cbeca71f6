"""Faults that readers of mail make: what is said wrongly is read rightly, and what cannot be read is said."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

import odd_mail
from mailpoller.core.body import Undone
from mailpoller.core.message import Address
from mailpoller.mail import charset_names
from mailpoller.mail.charset import codec_for, decode
from mailpoller.mail.signed import unwrap
from odd_mail.reading import read
from pace import paced

ODD = odd_mail.files()
EVENING = "晚安"
QUESTION = "Where is my parcel?"


@pytest.mark.parametrize(
    ("name", "text", "defects"),
    [
        ("charset-named-cp-1251", "Привет, мир", ()),
        ("charset-named-cp-437", "Größe ½", ()),
        ("charset-named-cp-850", "Größe", ()),
        ("charset-named-windows-1253", "Καλημέρα", ()),
        ("charset-named-logical", "שלום", ()),
        ("charset-named-x-euc-jp", "こんばんは", ()),
        ("charset-named-x-big5", EVENING, ()),
        ("charset-named-x-windows-949", "안녕 똠", ()),
        ("charset-named-iso8859-5", "Привет", ()),
        ("charset-named-csisolatin2", "Žluťoučký", ()),
        ("charset-named-ibm866", "Привет", ()),
        ("charset-named-win-1250", "Žluť", ()),
        ("charset-iso-2022-jp-with-nec-row-13", "①\u3000上 and はい\n", ()),
        ("charset-iso-2022-jp-with-a-slip", "はい\ufffdはい ok\n", ("charset-wrong",)),
        ("charset-iso-2022-cn", "你好 ok\n", ()),
        ("charset-hz-with-a-slip", "你好 ok 你好\nnext ~ \x80\n", ("charset-wrong",)),
        ("charset-utf-7-with-a-slip", "Grüße \ufffd a\n", ("charset-wrong",)),
        ("header-raw-in-charset-of-the-text", f"{EVENING}\n", ("header-not-utf8",)),
        ("base64-never-encoded", "Good morning! Where is my parcel, please?\n", ("base64-malformed",)),
        ("base64-never-encoded-words-alone", "Where is my parcel\n", ("base64-malformed",)),
        ("header-after-blank-lines", "hi\n", ("header-after-blank-line",)),
        ("header-after-byte-order-mark", "hi\n", ("byte-order-mark",)),
        ("continuation-not-indented", "hi\n", ("header-line-malformed",)),
        ("continuations-not-indented", "hi\n", ("header-line-malformed",)),
        ("part-empty-at-the-end", "hi", ("boundary-unclosed",)),
        ("part-empty-in-between", "hi", ()),
        ("text-named-alone", f"{QUESTION}\n", ()),
        ("text-named-beside-a-picture", QUESTION, ()),
        ("text-markdown-alone", f"# {QUESTION}\n", ()),
        ("multipart-with-odd-subtype", "hi", ()),
        ("signed-opaque", QUESTION, ()),
        ("signed-opaque-in-pieces", QUESTION, ()),
    ],
)
def test_text_is_read(name, text, defects):
    message = read(ODD[name])
    # What the mail calls its text may be anything: codecs differ in the line end behind it, and nothing else.
    assert message.body.text.removesuffix("\n") == text.removesuffix("\n")
    assert message.defects == defects
    assert message.from_ == (Address("", "a@example.com"),)


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("encoded-word-with-raw-octets", "Müller & Söhne"),
        ("encoded-word-raw-in-base64", "=?UTF-8?B?Zoë?="),
        ("header-raw-in-charset-of-the-text", EVENING),
        ("header-raw-in-charset-of-a-part", "Привет"),
        ("header-after-blank-lines", "odd"),
        ("header-after-byte-order-mark", "odd"),
        ("continuation-not-indented", "odd"),
        ("continuations-not-indented", "odd"),
    ],
)
def test_subject_is_read(name, subject):
    assert read(ODD[name]).subject == subject


def test_empty_lines_before_a_text_begin_no_header():
    message = read(b"\r\n\r\nHello: this is text.\r\n\r\nMore.\r\n")
    assert message.headers == []
    assert message.body.text == "\nHello: this is text.\n\nMore.\n"
    part = read(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n\r\nFrom: a\r\n\r\nquoted\r\n--x--\r\n")
    assert part.body.text == "\nFrom: a\n\nquoted"


def test_text_after_a_header_without_separator_is_still_the_body():
    message = read(b"From: a@example.com\r\nSubject: x\r\nHello all,\r\nwe meet\r\nplace: here\r\n\r\nBye\r\n")
    assert message.body.text == "Hello all,\nwe meet\nplace: here\n\nBye\n"


@pytest.mark.parametrize("name", ["address-with-spaces-in-it", "address-with-a-bracket-too-many"])
def test_no_address_is_invented(name):
    message = read(ODD[name])
    assert message.from_[0].address in ("help desk robot@example.com", "jane@host>")
    assert message.defects == ("address-malformed",)


@pytest.mark.parametrize(
    ("name", "expected", "defects"),
    [
        ("date-asctime", "2026-03-14T09:26:53", ("date-zone-missing",)),
        ("date-iso", "2026-03-14T08:26:53", ()),
        ("date-iso-z", "2026-03-14T09:26:53", ()),
        ("date-hour-24", "2026-03-15T00:00:00", ()),
        ("date-gmt-with-offset", "2026-03-14T08:26:53", ()),
        ("date-gmt-with-colon-offset", "2026-03-14T08:26:53", ()),
        ("date-pm-with-offset", "2026-03-14T21:26:53", ()),
        ("date-zone-mez", "2026-03-14T08:26:53", ()),
        ("date-zone-unknown", None, ("date-malformed",)),
        ("date-zone-of-three-digits", "2026-03-14T15:26:53", ()),
    ],
)
def test_no_date_is_hours_off_in_silence(name, expected, defects):
    message = read(ODD[name])
    assert message.date == (expected and datetime.fromisoformat(expected).replace(tzinfo=UTC))
    assert message.defects == defects


@pytest.mark.parametrize(
    ("name", "attachments"),
    [
        ("part-empty-at-the-end", []),
        ("part-empty-in-between", []),
        ("text-named-alone", []),
        ("text-named-beside-a-picture", [("p.png", 3)]),
        ("multipart-with-odd-subtype", [("p.png", 3)]),
        ("uuencode-with-checksums", [("a.bin", 6)]),
        ("uuencode-without-begin", [("a.bin", 10)]),
        ("base64-never-encoded-file", [("a.csv", 17)]),
    ],
)
def test_nothing_is_lost_and_nothing_made_up(name, attachments):
    assert [(attachment.name, attachment.size) for attachment in read(ODD[name]).body.attachments] == attachments


def test_what_is_taken_as_it_stands_is_said():
    assert read(ODD["uuencode-without-begin"]).body.defects == ("uuencode-malformed",)
    assert read(ODD["uuencode-with-checksums"]).body.defects == ()
    message = read(ODD["base64-never-encoded-file"])
    assert message.body.defects == ("base64-malformed",)
    (attachment,) = message.body.attachments
    assert attachment.encoding == ""  # what is cut out by `start` and `end` needs no decoding
    assert message.raw.octets.view()[attachment.start : attachment.end] == b"name;value\r\none;1"


def test_a_slip_in_base64_does_not_make_it_plain_text():
    head = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    assert read(head + b"SGVs bG8s IHdv cmxk\r\n").body.text == "Hello, world"
    assert read(head + b"SGVsbG8s!IHdvcmxkSGVsbG8sIHdvcmxk\r\n").body.text == "Hello, worldHello, world"


def test_a_plain_footer_below_base64_is_read_as_what_it_is():
    head = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    message = read(head + b"SGVsbG8sIHdv\r\ncmxkSGVsbG8=\r\n\r\n____\r\nThe list\r\nhttps://example.org/\r\n")
    assert message.body.text == "Hello, worldHello\n____\nThe list\nhttps://example.org/\n"
    assert message.body.defects == ("base64-malformed",)


@pytest.mark.parametrize("name", ["forwarded-in-base64", "forwarded-as-it-was"])
def test_a_message_within_the_message_is_opened(name):
    message = read(ODD[name])
    inner = message.body.forwarded
    assert inner is not None
    assert (inner.subject, inner.text) == ("Grüße", "inner text")
    assert inner.from_ == (Address("", "b@example.org"),)
    assert inner.date == datetime(2026, 3, 14, 8, 26, 53, tzinfo=UTC)
    (picture,) = inner.attachments
    octets = message.raw.octets.view()[picture.start : picture.end]
    assert octets == (b"" if name == "forwarded-in-base64" else b"PNG")
    assert [attachment.content_type for attachment in message.body.attachments] == ["message/rfc822"]


def test_a_returned_message_is_not_forwarded():
    assert read(ODD["report"]).body.forwarded is None


@pytest.mark.parametrize("name", ["signed-opaque", "signed-opaque-in-pieces"])
def test_signed_data_is_unwrapped_and_said_to_be_unchecked(name):
    body = read(ODD[name]).body
    assert body.undone == (Undone("signature", "unchecked"),)
    assert [(a.name, a.size, a.start) for a in body.attachments][1:] == [("p.png", 3, 0)]
    assert body.attachments[0].name == "smime.p7m"


@pytest.mark.parametrize(
    "octets",
    [b"", b"\x30", b"\x30\x80" * 50_000, b"\x24\x80" * 50_000, b"\x30\x84\xff\xff\xff\xff", b"\x1f\x80", b"\xff" * 100,
     bytes.fromhex("308006092a864886f70d010702a0803080") + b"\x30\x80" * 50_000,
     bytes.fromhex("308006092a864886f70d010702a0803080020101310030800609") + b"\x24\x80" * 50_000],
)  # fmt: skip
def test_no_octets_make_unwrapping_raise_or_last(octets):
    began = time.process_time()
    assert unwrap(octets) is None
    assert time.process_time() - began < paced(0.05)


@pytest.mark.parametrize(
    "label",
    ["unicode-1-1-utf-8", "866", "csibm866", "l2", "iso-ir-101", "iso_8859-2:1987", "asmo-708", "elot_928", "visual",
     "csiso88598i", "latin6", "iso885915", "koi", "macintosh", "dos-874", "x-cp1250", "windows-1258", "x-mac-ukrainian",
     "csiso58gb231280", "gb_2312-80", "cn-big5", "x-x-big5", "cseucpkdfmtjapanese", "ms_kanji", "csksc56011987",
     "unicodefffe", "csunicode", "ucs-2", "iso-10646-ucs-2", "hz-gb-2312", "iso-2022-kr", "cp-932", "IBM-1140",
     "windows1252", "win_1251", "CP_850", "x-cp-1251", "x-iso-8859-15", "utf 8", "UTF8", "'utf-8'", "28591", "cp1252"],
)  # fmt: skip
def test_labels_of_browsers_and_of_iana_are_known(label):
    assert codec_for(label) is not None


def test_labels_by_number_are_never_another_charset():
    for number in range(100, 100_000):
        found = charset_names.codec_named(f"cp{number}")
        assert found is None or found in charset_names.CODECS.values()
    assert codec_for("cp1337") is None
    assert codec_for("x-") is None


@pytest.mark.parametrize(
    "repeated", [b"\x1b$B", b"\x1b", b"\x0e\x0f", b"~{", b"~{a", b"+", b"+A", b"+AAA", b"\x1b$(", b"\x1b$B\xff"]
)
@pytest.mark.parametrize("charset", ["iso-2022-jp", "iso-2022-kr", "hz", "utf-7", "iso-2022-cn"])
def test_whatever_is_repeated_is_read_in_linear_time(repeated, charset):
    octets = repeated * (100_000 // len(repeated)) + b"\xff"
    began = time.process_time()
    decode(octets, charset)
    assert time.process_time() - began < paced(0.05 * 4)  # four times: other tests run beside this one


def test_text_of_a_damaged_charset_is_not_cut():
    text = "漢字かな\n" * 150_000
    octets = b"\x85\x40\n" + text.encode("shift_jis")
    found, defect = decode(octets, "shift_jis")
    assert defect == "charset-wrong"
    assert found.count("漢字") > 140_000
