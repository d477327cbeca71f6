"""What is in a ``winmail.dat``, and that none of them makes anybody read for ever."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from base64 import encodebytes
from hashlib import sha256

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailpoller.core.body import Undone
from mailpoller.core.message import Message
from mailpoller.core.verdict import Deliver
from mailpoller.mail.contents.kinds import FAILED
from mailpoller.mail.contents.reader import read_contents
from mailpoller.mail.contents.tnef import ATTACHMENTS_KEPT, Opened, read_tnef
from mailpoller.mail.contents.unpack import Closed
from mailpoller.mail.event import EventRenderer
from odd_mail.reading import NOW, read
from pace import paced
from unit.test_event import schema

# As MS-OXTNEF writes it: sections 2.1.3.1 (the stream), 2.1.3.3 (attributes) and 2.1.3.4 (properties).


def attribute(level: int, name: int, data: bytes) -> bytes:
    return struct.pack("<BII", level, name, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)


def stream(*attributes: bytes) -> bytes:
    version = attribute(1, 0x00089006, struct.pack("<I", 0x00010000))
    return struct.pack("<IH", 0x223E9F78, 1) + version + b"".join(attributes)


def properties(*each: bytes) -> bytes:
    return struct.pack("<I", len(each)) + b"".join(each)


def padded(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data + bytes(-len(data) % 4)


def variable(kind: int, key: int, data: bytes) -> bytes:
    return struct.pack("<HHI", kind, key, 1) + padded(data)


def wide(key: int, text: str) -> bytes:
    return variable(0x1F, key, f"{text}\0".encode("utf-16-le"))


NAMED = struct.pack("<HH", 0x1F, 0x8001) + bytes(16) + struct.pack("<I", 1) + padded("key\0".encode("utf-16-le"))
FIXED = (
    struct.pack("<HHI", 0x03, 0x0E21, 7),
    struct.pack("<HHQ", 0x40, 0x3007, 1),
    struct.pack("<HHHxx", 0x0B, 0x7FFE, 1),
    struct.pack("<HHI", 0x1003, 0x0E22, 2) + bytes(8),
    NAMED + struct.pack("<I", 1) + padded(b"v\0"),
    struct.pack("<HH", 0x03, 0x8002) + bytes(16) + struct.pack("<II", 0, 0x8501) + bytes(4),
    struct.pack("<HHI", 0x101E, 0x0E23, 2) + padded(b"a\0") + padded(b"bcdef\0"),
)


def attached(data: bytes, name: str = "Übersicht 2026.pdf", *more: bytes) -> bytes:
    return (
        attribute(2, 0x00069002, bytes(14))
        + attribute(2, 0x00018010, b"BERSI~1.PDF\0")
        + attribute(2, 0x0006800F, data)
        + attribute(2, 0x00069005, properties(*FIXED, wide(0x3707, name), *more))
    )


PDF = b"%PDF-1.7 and so on"
TEXT = attribute(1, 0x00069003, properties(*FIXED, wide(0x1000, "Guten Tag,\r\nGrüße")))
WHOLE = stream(
    attribute(1, 0x00069007, struct.pack("<II", 1252, 0)),
    TEXT,
    attached(PDF),
    attached(b"GIF89a", "logo.gif", wide(0x3712, "logo@example.com"), wide(0x370E, "image/gif")),
)


def mail(octets: bytes, text: bytes = b"", kind: str = "application/ms-tnef; name=winmail.dat") -> Message:
    head = b"From: a@example.com\r\nSubject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + text
    part = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode()
    return read(head + b"\r\n--b\r\n" + part + encodebytes(octets) + b"\r\n--b--\r\n")


def test_attachments_are_named_and_typed() -> None:
    found = read_tnef(WHOLE)
    pdf, logo = found.attachments
    assert (pdf.name, pdf.content_type, pdf.size, pdf.sha256) == (
        "Übersicht 2026.pdf", "application/pdf", len(PDF), sha256(PDF).hexdigest()
    )  # fmt: skip
    assert (logo.content_type, logo.inline, logo.content_id) == ("image/gif", True, "<logo@example.com>")
    assert {one.within for one in found.attachments} == {"tnef"}


@pytest.mark.parametrize(
    "kind", ["application/ms-tnef", "application/vnd.ms-tnef", "application/octet-stream; name=WINMAIL.DAT"]
)
def test_text_is_the_mails_own_if_it_has_no_other(kind: str) -> None:
    message = mail(WHOLE, kind=kind)
    assert message.closed == ("tnef",)
    message.take_contents(read_contents(message, message.closed))
    assert (message.body.text, message.body.text_from) == ("Guten Tag,\nGrüße", "plain")
    assert [one.name for one in message.body.attachments][1:] == ["Übersicht 2026.pdf", "logo.gif"]
    message = mail(WHOLE, b"another\r\n")
    message.take_contents(read_contents(message, message.closed))
    assert message.body.text == "another\n"


def test_old_form_of_text_and_names_is_read_in_its_code_page() -> None:
    octets = stream(
        attribute(1, 0x00069007, struct.pack("<II", 1251, 0)),
        attribute(1, 0x0002800C, "Привет\0".encode("cp1251")),
        attribute(2, 0x00069002, bytes(14)),
        attribute(2, 0x00018010, "отчёт.doc\0".encode("cp1251")),
        attribute(2, 0x0006800F, b"x"),
    )
    found = read_tnef(octets)
    assert (found.text, found.attachments[0].name, found.attachments[0].content_type) == (
        "Привет", "отчёт.doc", "application/msword"
    )  # fmt: skip


def test_rich_text_stays_closed_and_that_is_said() -> None:
    message = mail(stream(attribute(1, 0x00069003, properties(variable(0x102, 0x1009, b"{\\rtf")))))
    found = read_contents(message, ("tnef",))
    assert found.undone == (Undone("tnef", "rich-text"),)
    message.take_contents(found)
    assert message.body.undone == found.undone
    message = mail(b"", b"the same in plain text")
    message.take_contents(found)
    assert message.body.undone == ()


def inner(depth: int) -> bytes:
    octets = stream(TEXT, attached(b"deep", "deep.txt"))
    for _ in range(depth):
        held = variable(0x0D, 0x3701, bytes(16) + octets)
        octets = stream(attribute(2, 0x00069002, bytes(14)), attribute(2, 0x00069005, properties(held)))
    return octets


def test_message_within_is_opened_but_not_for_ever() -> None:
    assert [one.name for one in read_tnef(inner(2)).attachments] == ["part-1.dat", "part-2.dat", "deep.txt"]
    assert read_tnef(inner(2)).attachments[0].content_type == "application/ms-tnef"
    assert read_tnef(inner(2)).text == ""  # what is within is not what the mail says
    assert len(read_tnef(inner(20)).attachments) == 4


def test_name_in_it_is_no_path() -> None:
    assert read_tnef(stream(attached(b"", "..\\..\\etc\\passwd"))).attachments[0].name == "passwd"


@pytest.mark.parametrize("cut", range(0, len(WHOLE), 7))
def test_what_is_cut_off_is_read_up_to_the_cut(cut: int) -> None:
    if cut < 6:
        with pytest.raises(Closed, match="malformed"):
            read_tnef(WHOLE[:cut])
    else:
        assert isinstance(read_tnef(WHOLE[:cut]), Opened)


LARGE = 5_000_000
BOMBS = {
    "zeros": struct.pack("<IH", 0x223E9F78, 1) + bytes(LARGE),
    "nothing but zeros": bytes(LARGE),
    "attachments": stream(attribute(2, 0x00069002, b"") * (LARGE // 11)),
    "properties": stream(attribute(1, 0x00069003, struct.pack("<I", 1 << 31) + struct.pack("<HHI", 3, 1, 0) * 600_000)),
    "values": stream(attribute(1, 0x00069003, struct.pack("<IHHI", 1, 0x101F, 1, 1 << 31) + bytes(LARGE))),
    "counts": stream(attribute(1, 0x00069003, struct.pack("<IHHI", 1, 0x1003, 1, (1 << 32) - 1) + bytes(LARGE))),
    "lengths": stream(attribute(1, 0x00069003, properties(struct.pack("<HHII", 0x1F, 0x1000, 1, (1 << 32) - 1)))),
    "text": stream(attribute(1, 0x0002800C, b"x" * LARGE)),
    "texts": stream(attribute(1, 0x00069003, properties(*[wide(0x1000, "x" * 1000)] * 2000)) * 1),
    "within within": inner(200),
    "names": stream(attached(b"", "x" * (LARGE // 2))),
    "the same often": stream(attribute(2, 0x00069002, b""), *[attribute(2, 0x00018010, b"x" * 2000)] * 2400),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_within_a_second(name: str) -> None:
    message = mail(BOMBS[name])
    _ = message.closed
    begun = time.process_time()
    read_contents(message, ("tnef",))
    assert time.process_time() - begun < paced(1.0)


@pytest.mark.parametrize("name", ["zeros", "attachments", "properties", "values", "text"])
def test_bombs_take_little_memory(name: str) -> None:
    octets = BOMBS[name]
    tracemalloc.start()
    try:
        try:
            read_tnef(octets)
        except Closed:
            pass
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_endless_attributes_are_not_gone_through() -> None:
    with pytest.raises(Closed, match="too-large"):
        read_tnef(BOMBS["zeros"])


def test_too_many_attachments_are_said() -> None:
    message = mail(stream(*[attribute(2, 0x00069002, b"")] * (ATTACHMENTS_KEPT + 2)))
    assert read_contents(message, ("tnef",)).undone == (Undone("tnef", "too-large"),)


@given(st.integers(0, len(WHOLE)), st.binary(max_size=24))
def test_no_octets_make_the_reader_raise(at: int, noise: bytes) -> None:
    found = read_contents(mail(WHOLE[:at] + noise + WHOLE[at + len(noise) :]), ("tnef",))
    assert Undone("tnef", FAILED) not in found.undone


def test_it_is_in_the_event_as_the_schema_says() -> None:
    message = mail(WHOLE)
    message.take_contents(read_contents(message, message.closed))
    rendered = EventRenderer(message, verdict=Deliver(("q",)), source="mailpoller/m", now=NOW).render(
        queue="q", delivery_id="d"
    )
    event = json.loads(rendered.structured())
    jsonschema.Draft202012Validator(schema()).validate(event)
    assert event["data"]["attachments"][1]["within"] == "tnef"
