"""What is in messages within a message: told like what stands outside, and never for ever."""

from __future__ import annotations

import json
import time
from base64 import encodebytes

import jsonschema
import pytest

from mailpoller.core.body import Contents, Undone
from mailpoller.core.message import Message
from mailpoller.core.verdict import Deliver
from mailpoller.mail.contents import inner
from mailpoller.mail.contents.reader import read_contents
from mailpoller.mail.event import EventRenderer
from mailpoller.workers.frames import LENGTH, answer, found_in
from mailpoller.workers.worker import read as worker_read
from odd_mail.reading import NOW, read
from pace import paced
from unit.test_event import schema
from unit.test_tnef import WHOLE

ICS = (
    b"Content-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\n"
    b"UID:u1\r\nDTSTART:20260314T090000Z\r\nSUMMARY:Visit\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)
TNEF = (
    b"Content-Type: application/ms-tnef; name=winmail.dat\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + encodebytes(WHOLE)
)
LOCKED = b"Content-Type: application/zip; name=secret.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encodebytes(
    b"PK\x03\x04\x14\x00\x01\x00\x00\x00" + bytes(16) + b"\x05\x00\x00\x00a.txtxxxx"
)
PLAIN = b"Content-Type: text/plain\r\n\r\nHello\r\n"


def mail(*parts: bytes, subtype: str = "mixed", boundary: str = "b") -> bytes:
    head = f"From: a@example.com\r\nSubject: x\r\nContent-Type: multipart/{subtype}; boundary={boundary}\r\n\r\n"
    return (
        head.encode()
        + b"".join(b"--%s\r\n%s\r\n" % (boundary.encode(), part) for part in parts)
        + (b"--%s--\r\n" % boundary.encode())
    )


def held(octets: bytes, encoding: str = "") -> bytes:
    if encoding:
        return b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encodebytes(octets)
    return b"Content-Type: message/rfc822\r\n\r\n" + octets


def opened(octets: bytes) -> Message:
    message = read(octets)
    message.take_contents(read_contents(message, message.closed))
    return message


@pytest.mark.parametrize("encoding", ["", "base64"])
def test_contents_of_a_forwarded_message_are_those_of_forwarded(encoding: str) -> None:
    message = opened(mail(PLAIN, held(mail(ICS, TNEF, boundary="i"), encoding)))
    found = message.body.forwarded
    assert found is not None and found.calendar is not None and found.calendar.summary == "Visit"
    assert [one.name for one in found.attachments][1:] == ["winmail.dat", "Übersicht 2026.pdf", "logo.gif"]
    assert found.text == "Guten Tag,\nGrüße"
    assert message.body.calendar is None and message.body.text.strip() == "Hello"
    renderer = EventRenderer(message, verdict=Deliver(("q",)), source="mailpoller/support", now=NOW)
    event = json.loads(renderer.render(queue="q", delivery_id="d", payload="parsed").structured())
    jsonschema.validate(event, schema())
    assert event["data"]["forwarded"]["calendar"]["uid"] == "u1"


def test_archive_that_is_forwarded_twice_is_told_encrypted() -> None:
    message = opened(mail(PLAIN, held(mail(held(mail(LOCKED, boundary="j")), boundary="i"))))
    found = message.body.forwarded
    assert found is not None
    (locked,) = [one for one in found.attachments if one.name == "secret.zip"]
    assert (locked.encrypted, locked.within, locked.detected_type) == (True, "message", "application/zip")
    octets = message.raw.octets.view()
    assert (
        bytes(octets[locked.start : locked.end]).strip()
        == LOCKED.partition(b"\r\n\r\n")[2].replace(b"\n", b"\n").strip()
    )


def test_attachments_of_each_message_of_a_digest_are_told() -> None:
    each = (b"\r\n" + mail(LOCKED, boundary=f"i{number}") for number in range(3))
    message = opened(mail(*each, subtype="digest"))
    own = [one.name for one in message.body.attachments if one.within == "message"]
    assert own == ["secret.zip", "secret.zip"]
    assert message.body.forwarded is not None
    assert [one.name for one in message.body.forwarded.attachments] == ["secret.zip"]


def test_message_returned_by_a_report_stays_closed() -> None:
    message = read(mail(PLAIN, held(mail(ICS, boundary="i")), subtype="report; report-type=delivery-status"))
    assert message.closed == ()


@pytest.mark.parametrize(
    ("depth", "why"), [(inner.DEEPEST, ()), (inner.DEEPEST + 1, (Undone("messages", "too-deep"),))]
)
def test_messages_are_opened_so_deep_and_no_deeper_and_that_is_said(depth: int, why: tuple[Undone, ...]) -> None:
    octets = mail(LOCKED, boundary="x")
    for number in range(depth):
        octets = mail(held(octets), boundary=f"b{number}")
    message = opened(octets)
    assert message.body.undone == why
    assert message.body.forwarded is not None
    assert ("secret.zip" in [one.name for one in message.body.forwarded.attachments]) == (not why)


def test_many_messages_end_and_that_is_said() -> None:
    message = opened(mail(*[held(mail(LOCKED, boundary="i"))] * (inner.MOST + 1)))
    assert message.body.undone == (Undone("messages", "too-many"),)
    assert sum(one.within == "message" for one in message.body.attachments) == inner.MOST - 1


def test_attachments_of_messages_within_are_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner, "ATTACHMENTS_KEPT", 3)
    message = opened(mail(*[held(mail(LOCKED, LOCKED, boundary="i"))] * 4))
    assert sum(one.within == "message" for one in message.body.attachments) == 3
    assert message.body.undone == (Undone("messages", "too-many"),)


def test_octets_of_messages_within_are_bounded_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner, "OCTETS", 1000)
    message = opened(mail(*[held(mail(LOCKED, b"\r\n" + b"x" * 300, boundary="i"))] * 4))
    assert message.body.undone == (Undone("messages", "too-large"),)


def test_hostile_nest_of_messages_ends_within_a_second() -> None:
    octets = mail(*[b"\r\n" + b"x\r\n--i" * 2000] * 400, boundary="i")
    for number in range(6):
        octets = mail(*[held(octets)] * (3 if number == 2 else 1), boundary=f"b{number}")
    message = read(octets)
    closed = message.closed
    began = time.process_time()
    read_contents(message, closed)
    assert time.process_time() - began < paced(1)


def test_bug_in_opening_messages_costs_these_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr("mailpoller.mail.contents.reader.messages_within", broken)
    message = opened(mail(ICS, held(mail(ICS, boundary="i"))))
    assert message.body.calendar is not None
    assert message.body.undone == (Undone("messages", "failed"),)


def test_worker_brings_what_is_in_a_forwarded_message() -> None:
    octets = mail(PLAIN, held(mail(ICS, boundary="i")))
    found = found_in(answer(worker_read(octets, header=False, closed=("calendar",)))[LENGTH.size :])
    assert isinstance(found, Contents) and found.forwarded is not None and found.forwarded.calendar is not None
