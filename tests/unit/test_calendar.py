"""What an invitation says, in which zone, and that no calendar makes anybody read for ever."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailpoller.core.body import Contents, Undone
from mailpoller.core.contents import Calendar, Moment
from mailpoller.core.message import Address, Message
from mailpoller.core.verdict import Deliver
from mailpoller.mail.contents.calendar import CONSIDERED, read_calendar
from mailpoller.mail.contents.kinds import FAILED
from mailpoller.mail.contents.reader import read_contents
from mailpoller.mail.contents.unpack import Closed
from mailpoller.mail.event import EventRenderer
from odd_mail.reading import NOW, read
from pace import paced
from unit.test_event import schema

OUTLOOK = r"""BEGIN:VCALENDAR
METHOD:REQUEST
PRODID:Microsoft Exchange Server 2010
VERSION:2.0
BEGIN:VTIMEZONE
TZID:W. Europe Standard Time
BEGIN:STANDARD
DTSTART:16010101T030000
TZOFFSETFROM:+0200
TZOFFSETTO:+0100
RRULE:FREQ=YEARLY;INTERVAL=1;BYDAY=-1SU;BYMONTH=10
END:STANDARD
BEGIN:DAYLIGHT
DTSTART:16010101T020000
TZOFFSETFROM:+0100
TZOFFSETTO:+0200
RRULE:FREQ=YEARLY;INTERVAL=1;BYDAY=-1SU;BYMONTH=3
END:DAYLIGHT
END:VTIMEZONE
BEGIN:VEVENT
ORGANIZER;CN="Müller; Jürgen":mailto:juergen@example.com
ATTENDEE;ROLE=REQ-PARTICIPANT;PARTSTAT=NEEDS-ACTION;RSVP=TRUE;CN=a@example.net:mailto:a@example.net
SUMMARY;LANGUAGE=de-DE:Grüße\, und ein
  langer Titel\nmit Zeilen
DTSTART;TZID=W. Europe Standard Time:20260714T100000
DTEND;TZID=W. Europe Standard Time:20260714T113000
UID:040000008200E00074C5B7101A82E008
SEQUENCE:2
BEGIN:VALARM
SUMMARY:not this
DTSTART:20200101T000000Z
END:VALARM
END:VEVENT
BEGIN:VEVENT
UID:another
SUMMARY:nor this
END:VEVENT
END:VCALENDAR
"""
BERLIN = "W. Europe Standard Time"
FOUND = Calendar(
    method="request",
    uid="040000008200E00074C5B7101A82E008",
    organizer=Address("Müller; Jürgen", "juergen@example.com"),
    start=Moment("2026-07-14T10:00:00", BERLIN, datetime(2026, 7, 14, 8, tzinfo=UTC)),
    end=Moment("2026-07-14T11:30:00", BERLIN, datetime(2026, 7, 14, 9, 30, tzinfo=UTC)),
    summary="Grüße, und ein langer Titel mit Zeilen",
    sequence=2,
)


def event(*lines: str, before: str = "") -> Calendar:
    inner = "\r\n".join(lines)
    return read_calendar(
        f"BEGIN:VCALENDAR\r\n{before}BEGIN:VEVENT\r\n{inner}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n".encode()
    )


def mail(kind: str, text: bytes, name: str = "") -> Message:
    head = (
        "From: a@example.com\r\nSubject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\n"
    )
    part = f'Content-Type: {kind}; name="{name}"\r\n\r\n'
    return read(head.encode() + part.encode() + text + b"\r\n--b--\r\n")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("text/calendar; charset=utf-8; method=REQUEST", ""),
        ("application/ics", ""),
        ("application/octet-stream", "x.ICS"),
    ],
)
def test_invitation_is_read(kind: str, name: str, end: str) -> None:
    message = mail(kind, OUTLOOK.replace("\n", end).encode(), name)
    assert message.closed == ("calendar",)
    assert read_contents(message, message.closed) == Contents(calendar=FOUND)


@pytest.mark.parametrize(
    ("line", "moment"),
    [
        ("DTSTART:20260314T092653Z", Moment("2026-03-14T09:26:53", "UTC", NOW)),
        ("DTSTART:20260314T092653", Moment("2026-03-14T09:26:53")),
        ("DTSTART;VALUE=DATE:20260314", Moment("2026-03-14")),
        ("DTSTART;TZID=Europe/Berlin:20260314T102653", Moment("2026-03-14T10:26:53", "Europe/Berlin", NOW)),
        ('DTSTART;TZID="Nobody knows":20260314T092653', Moment("2026-03-14T09:26:53", "Nobody knows")),
        ("DTSTART;TZID=../../etc/passwd:20260314T092653", Moment("2026-03-14T09:26:53", "../../etc/passwd")),
        ("DTSTART;TZID=Europe:20260314T092653", Moment("2026-03-14T09:26:53", "Europe")),
        (
            "DTSTART:20261231T235960Z",
            Moment("2026-12-31T23:59:59", "UTC", datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ),
        ("DTSTART:00010101T000000", Moment("0001-01-01T00:00:00")),
        ("DTSTART;TZID=Europe/Berlin:00010101T000000", Moment("0001-01-01T00:00:00", "Europe/Berlin")),
        ("DTSTART:20261332T000000", None),
        ("DTSTART:20260314T0926", None),
        ("DTSTART:", None),
        ("X-OTHER:20260314", None),
    ],
)
def test_start_is_told_with_its_zone(line: str, moment: Moment | None) -> None:
    assert event(line).start == moment


@pytest.mark.parametrize(
    ("local", "hour"),
    [("20260328T120000", 11), ("20260329T120000", 10), ("20261024T120000", 10), ("20261025T120000", 11)],
)
def test_rules_that_came_along_tell_the_instant_on_both_sides_of_a_change(local: str, hour: int) -> None:
    zones = OUTLOOK[OUTLOOK.index("BEGIN:VTIMEZONE") : OUTLOOK.index("BEGIN:VEVENT")]
    start = event(f"DTSTART;TZID={BERLIN}:{local}", before=zones).start
    assert start is not None
    assert start.instant is not None
    assert start.instant.hour == hour


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=YEARLY;BYMONTH=10",
        "FREQ=YEARLY;BYDAY=9SU;BYMONTH=2",
        "FREQ=DAILY",
        "FREQ=YEARLY;BYDAY=0SU;BYMONTH=1",
        "FREQ=YEARLY;BYDAY=1SU;BYMONTH=0",
        "FREQ=YEARLY;BYDAY=1SU;BYMONTH=13",
    ],
)
def test_rules_that_nobody_knows_make_nothing_up(rule: str) -> None:
    onset = f"BEGIN:STANDARD\r\nDTSTART:20300101T000000\r\nTZOFFSETTO:+0100\r\nRRULE:{rule}\r\nEND:STANDARD\r\n"
    zones = f"BEGIN:VTIMEZONE\r\nTZID:Z\r\n{onset}"
    start = event("DTSTART;TZID=Z:20260101T120000", before=f"{zones}END:VTIMEZONE\r\n").start
    assert start == Moment("2026-01-01T12:00:00", "Z")


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        (("DTSTART:20260314T092653Z", "DURATION:PT1H30M"), "2026-03-14T10:56:53"),
        (("DTSTART;VALUE=DATE:20260314", "DURATION:P1W"), "2026-03-21"),
        (("DTSTART:20260314T092653Z", "DURATION:P9W"), "2026-05-16T09:26:53"),
        (("DTSTART:99991231T092653Z", "DURATION:P1D"), None),
        (("DTSTART:20260314T092653Z", "DURATION:soon"), None),
        (("DURATION:P1D",), None),
        (("DTSTART:20260314T092653Z", "DTEND:20260314T100000Z", "DURATION:P1D"), "2026-03-14T10:00:00"),
    ],
)
def test_end_is_told_or_follows_from_the_duration(lines: tuple[str, ...], end: str | None) -> None:
    found = event(*lines).end
    assert (found.local if found is not None else None) == end


def test_method_is_the_objects_and_that_form_of_an_invitation_counts_that_says_it() -> None:
    plain = OUTLOOK.replace("METHOD:REQUEST\n", "").encode()
    message = read(
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/calendar\r\n\r\n" + plain
        + b"\r\n--b\r\nContent-Type: application/ics\r\n\r\n" + OUTLOOK.encode() + b"\r\n--b--\r\n"
    )  # fmt: skip
    found = read_contents(message, message.closed).calendar
    assert found is not None
    assert found.method == "request"


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "malformed"),
        (b"hello", "malformed"),
        (b"BEGIN:VCALENDAR\r\nEND:VCALENDAR", "malformed"),
        (b"BEGIN:VEVENT\r\nUID:1\r\nEND:VEVENT", "malformed"),
        (b"BEGIN:VCALENDAR\r\n" + b"BEGIN:VEVENT\r\n" * 20, "malformed"),
        (b"BEGIN:VCALENDAR\r\n" + b"X:1\r\n" * 30_000, "too-large"),
        (b" " * (CONSIDERED + 1), "too-large"),
    ],
)
def test_what_is_no_calendar_is_said(octets: bytes, why: str) -> None:
    with pytest.raises(Closed, match=why):
        read_calendar(octets)
    message = mail("text/calendar", octets or b" ")
    assert read_contents(message, message.closed) == Contents(undone=(Undone("calendar", why),))


BOMBS = {
    "folds": b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:" + b"x\r\n " * 60_000,
    "parameters": b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY" + b";A=b,c" * 40_000 + b"x",
    "quotes": b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY;A=" + b'"' * 250_000,
    "escapes": b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:" + b"\\" * 250_000,
    "events": b"BEGIN:VCALENDAR\r\n" + b"BEGIN:VEVENT\nEND:VEVENT\n" * 9_000,
    "zones": b"BEGIN:VCALENDAR\r\n"
    + b"BEGIN:VTIMEZONE\nTZID:Z\nBEGIN:STANDARD\nDTSTART:20000101T000000\nTZOFFSETTO:+0100\n"
    b"END:STANDARD\nEND:VTIMEZONE\n"
    * 2_500,
    "colons": b"BEGIN:VCALENDAR\r\n" + b":" * 250_000,
    "commas": b"BEGIN:VCALENDAR\r\nX;A=" + b"," * 250_000,
    "white space": b"BEGIN:VCALENDAR\r\nX:" + b" " * 250_000 + b"\r\n \t" * 10,
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_within_a_second(name: str) -> None:
    message = mail("text/calendar", BOMBS[name][:CONSIDERED])
    begun = time.process_time()
    read_contents(message, ("calendar",))
    assert time.process_time() - begun < paced(1.0)


@given(st.integers(0, len(OUTLOOK)), st.text(alphabet='BEGIN:VEND;=",\\\r\n TZ0129-+\x00é', max_size=30))
def test_no_octets_make_the_reader_raise(at: int, noise: str) -> None:
    found = read_contents(mail("text/calendar", (OUTLOOK[:at] + noise + OUTLOOK[at + 5 :]).encode()), ("calendar",))
    assert Undone("calendar", FAILED) not in found.undone


def test_calendar_is_in_the_event_as_the_schema_says() -> None:
    message = mail("text/calendar", OUTLOOK.encode())
    message.take_contents(read_contents(message, message.closed))
    rendered = EventRenderer(message, verdict=Deliver(("q",)), source="mailpoller/m", now=NOW).render(
        queue="q", delivery_id="d"
    )
    event = json.loads(rendered.structured())
    jsonschema.Draft202012Validator(schema()).validate(event)
    found = event["data"]["calendar"]
    assert found["start"] == {"local": "2026-07-14T10:00:00", "zone": BERLIN, "instant": "2026-07-14T08:00:00Z"}
    assert found["organizer"] == {"name": "Müller; Jürgen", "address": "juergen@example.com"}
