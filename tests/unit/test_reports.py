"""What reports tell, and that no report can make anybody read for ever."""

from __future__ import annotations

import gzip
import io
import json
import time
import tracemalloc
import zipfile
import zlib
from base64 import encodebytes
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailpoller.core.body import Contents, Undone
from mailpoller.core.contents import Report
from mailpoller.core.message import Message
from mailpoller.core.verdict import Deliver
from mailpoller.mail.contents import unpack
from mailpoller.mail.contents.dmarc import ROWS_COUNTED, ROWS_KEPT, read_dmarc
from mailpoller.mail.contents.kinds import FAILED
from mailpoller.mail.contents.reader import read_contents
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.understand.subjects import is_dmarc
from odd_mail.reading import NOW, read
from pace import paced
from unit.test_event import schema

ROW = (
    "<record><row><source_ip>192.0.2.7</source_ip><count>3</count><policy_evaluated><disposition>none</disposition>"
    "<dkim>fail</dkim><spf>pass</spf></policy_evaluated></row><identifiers><header_from>example.com</header_from>"
    "</identifiers><auth_results><spf><domain>example.com</domain><result>pass</result></spf></auth_results></record>"
)


def aggregate(rows: str = ROW, before: str = "", root: str = "feedback") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8" ?>{before}<{root}><report_metadata><org_name>Example\n Org</org_name>'
        "<email>noreply@example.net</email><report_id>4711</report_id><date_range><begin>1772323200</begin>"
        "<end>1772409600</end></date_range></report_metadata><policy_published><domain>Example.com</domain><p>none</p>"
        f"</policy_published>{rows}</{root.split()[0]}>"
    ).encode()


def rows(count: int) -> str:
    """Rows that differ, so that they are packed no better than real ones are."""
    return "".join(ROW.replace("192.0.2.7", str(ip_address(number * 7919))) for number in range(count))


def zipped(octets: bytes, name: str = "example.net!example.com!1772323200!1772409600.xml", **keys: Any) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for other in keys.pop("before", ()):
            archive.writestr(other, b"nothing")
        archive.writestr(name, octets, **keys)
    return held.getvalue()


def mail(kind: str, octets: bytes, name: str = "", subject: str = "Report domain: example.com Submitter: example.net"
         " Report-ID: 4711", top: str = "") -> Message:  # fmt: skip
    part = (
        f"Content-Type: {kind}{f'; name={chr(34)}{name}{chr(34)}' if name else ''}\r\n"
        "Content-Transfer-Encoding: base64\r\n\r\n"
    ).encode() + encodebytes(octets)
    if not top:
        return read(f"From: noreply@example.net\r\nSubject: {subject}\r\n".encode() + part)
    return read(
        f"From: noreply@example.net\r\nSubject: {subject}\r\nContent-Type: {top}; boundary=b\r\n\r\n--b\r\n\r\nhi\r\n"
        "--b\r\n".encode()
        + part
        + b"\r\n--b--\r\n"
    )


def opened(message: Message) -> Contents:
    assert message.closed == ("report",)
    return read_contents(message, message.closed)


# --- DMARC -----------------------------------------------------------------------------------------------------------

DMARC = Report(
    "dmarc",
    organization="Example Org",
    id="4711",
    domain="example.com",
    begin=datetime(2026, 3, 1, tzinfo=UTC),
    end=datetime(2026, 3, 2, tzinfo=UTC),
    rows=(
        {
            "source_ip": "192.0.2.7", "count": 3, "disposition": "none", "dkim": "fail", "spf": "pass",
            "header_from": "example.com",
        },
    ),
    rows_total=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "octets", "name"),
    [
        ("application/gzip", gzip.compress(aggregate()), "x.xml.gz"),
        ("application/gzip", gzip.compress(aggregate()[:200]) + gzip.compress(aggregate()[200:]), "x.xml.gz"),
        ("application/zip", zipped(aggregate()), "x.zip"),
        ("application/zip", zipped(aggregate(), compress_type=zipfile.ZIP_STORED), "x.zip"),
        ("application/octet-stream", zipped(aggregate(), before=("readme.txt",)), "x.ZIP"),
        ("text/xml", aggregate(), "x.xml"),
        ("application/zip", gzip.compress(aggregate()), "wrong.zip"),
        ("text/xml", aggregate(root='feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0"'), "x.xml"),
    ],
)
def test_aggregate_is_read_however_it_is_packed(kind: str, octets: bytes, name: str) -> None:
    for top in ("", "multipart/mixed"):
        assert opened(mail(kind, octets, name, top=top)) == Contents(report=DMARC)


def test_rows_are_bounded_and_counted() -> None:
    found = opened(mail("application/gzip", gzip.compress(aggregate(rows(ROWS_KEPT + 7))), "x.gz")).report
    assert found is not None
    assert (len(found.rows), found.rows_total) == (ROWS_KEPT, ROWS_KEPT + 7)
    # Behind those that are counted nothing is read, so that what is wrong there is never met.
    plain = aggregate(ROW * ROWS_COUNTED + "<row")
    found = opened(mail("text/xml", plain, "x.xml")).report
    assert found is not None
    assert (len(found.rows), found.rows_total) == (ROWS_KEPT, ROWS_COUNTED)


LAUGHS = "<!DOCTYPE lolz [" + "".join(
    f'<!ENTITY l{number} "{f"&l{number - 1};" * 10 if number else "lol"}">' for number in range(10)
) + "]>"  # fmt: skip


def encrypted() -> bytes:
    octets = bytearray(zipped(aggregate()))
    octets[6] |= 1
    return bytes(octets)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"", "malformed"),
        (b"hello", "malformed"),
        (b"<html><body>hi</body></html>", "malformed"),
        (aggregate()[:-40], "malformed"),
        (gzip.compress(aggregate())[:-40], "malformed"),
        (zipped(aggregate())[:200], "malformed"),
        (zipped(aggregate(), "x.txt"), "malformed"),
        (encrypted(), "encrypted"),
        (aggregate(before='<!DOCTYPE feedback SYSTEM "file:///etc/passwd">'), "malformed"),
        (aggregate(before='<!DOCTYPE feedback [<!ENTITY x "y">]>'), "malformed"),
        (aggregate("<a>" * 50), "malformed"),
        (b'<?xml version="1.0" encoding="x-none"?><feedback/>', "malformed"),
    ],
)
def test_what_is_in_doubt_is_said_and_the_class_stays(octets: bytes, why: str) -> None:
    message = mail("application/gzip", octets, "x.gz")
    assert opened(message) == Contents(undone=(Undone("report", why),))
    assert message.classification.kind == "report"


BOMBS = {
    "laughs": lambda: aggregate(before=LAUGHS, rows="&l9;"),
    "zeros": lambda: gzip.compress(bytes(60_000_000)),
    "zipped zeros": lambda: zipped(bytes(60_000_000)),
    "spaces": lambda: gzip.compress(aggregate(" " * 49_000_000), 1),
    "elements": lambda: gzip.compress(aggregate("<a/>" * 3_000_000), 1),
    "attributes": lambda: aggregate("<a " + " ".join(f'a{number}=""' for number in range(300_000)) + "/>"),
    "one tag": lambda: aggregate("<a " + "x" * 4_000_000),
    "text": lambda: aggregate(f"<record><row><source_ip>{'x' * 4_000_000}</source_ip></row></record>"),
    "hardly packed": lambda: (
        b"\x1f\x8b\x08" + bytes(7) + zlib.compress(aggregate("<a/>" * 200_000), 0)[2:-4] + bytes(8)
    ),
    "rows": lambda: gzip.compress(aggregate(rows(60_000)), 1),
    "members": lambda: zipped(b"", "x.xml", before=[f"{number}.txt" for number in range(3000)]),
    "many small gzips": lambda: gzip.compress(b" ") * 100_000,
}


@cache
def bomb(name: str) -> bytes:
    """Made when it is wanted: all of them take a second, which everybody would pay who only collects these tests."""
    return BOMBS[name]()


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_end_within_a_second_and_200_mb(name: str) -> None:
    message = mail("application/gzip", bomb(name), "x.gz")
    _ = message.closed
    began = time.process_time()
    read_contents(message, ("report",))
    assert time.process_time() - began < paced(1.0)


def test_archive_gives_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    spaces = aggregate(" " * 3_000_000)
    for octets in (gzip.compress(spaces), zipped(spaces)):
        assert opened(mail("application/gzip", octets, "x.gz")).undone == (Undone("report", "too-large"),)
    honest = gzip.compress(aggregate(rows(200)))
    assert opened(mail("application/gzip", honest, "x.gz")).report is not None
    monkeypatch.setattr(unpack, "LARGEST", 50_000)
    assert opened(mail("application/gzip", honest, "x.gz")).undone == (Undone("report", "too-large"),)


def test_tag_that_does_not_end_is_not_begun_anew_for_ever() -> None:
    """A parser looks at an unfinished tag from its begin at every piece, which takes quadratic time."""
    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        yield b"<feedback><a "
        for _ in range(1000):
            taken += 1
            yield b"x" * 65_536

    with pytest.raises(unpack.Closed, match="malformed"):
        read_dmarc(pieces())
    assert taken < 20


def test_bombs_take_little_memory() -> None:
    for name in ("laughs", "zeros", "elements", "attributes", "one tag"):
        message = mail("application/gzip", bomb(name)[:200_000], "x.gz")
        tracemalloc.start()
        try:
            read_contents(message, ("report",))
            assert tracemalloc.get_traced_memory()[1] < 20_000_000, name
        finally:
            tracemalloc.stop()


@given(st.binary(max_size=200), st.integers(0, 500))
def test_no_octets_make_a_reader_raise(noise: bytes, at: int) -> None:
    for good in (gzip.compress(aggregate()), zipped(aggregate()), aggregate(), json.dumps(TLS).encode()):
        for name in ("x.gz", "x.json"):
            found = read_contents(mail("application/gzip", good[:at] + noise + good[at + 7 :], name), ("report",))
            assert Undone("report", FAILED) not in found.undone


# --- the other kinds -------------------------------------------------------------------------------------------------

TLS = {
    "organization-name": "Company-X",
    "date-range": {"start-datetime": "2026-03-01T00:00:00Z", "end-datetime": "2026-03-01T23:59:59Z"},
    "contact-info": "sts-reporting@company-x.example",
    "report-id": "5065427c",
    "policies": [
        {
            "policy": {"policy-type": "sts", "policy-domain": "Company-Y.example", "mx-host": ["*.mail.example"]},
            "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
            "failure-details": [
                {
                    "result-type": "certificate-expired",
                    "sending-mta-ip": "2001:db8:abcd:12::1",
                    "receiving-mx-hostname": "mx1.mail.example",
                    "failed-session-count": 100,
                }
            ],
        }
    ],
}


def test_tls_report_is_read() -> None:
    top = "multipart/report; report-type=tlsrpt"
    octets = gzip.compress(json.dumps(TLS).encode())
    found = opened(mail("application/tlsrpt+gzip", octets, top=top)).report
    assert found == Report(
        "tls-rpt",
        organization="Company-X",
        id="5065427c",
        domain="company-y.example",
        begin=datetime(2026, 3, 1, tzinfo=UTC),
        end=datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC),
        rows=(
            {"policy_type": "sts", "domain": "Company-Y.example", "successes": 5326, "failures": 303},
            {
                "policy_type": "sts",
                "domain": "Company-Y.example",
                "result_type": "certificate-expired",
                "source_ip": "2001:db8:abcd:12::1",
                "receiving_mx": "mx1.mail.example",
                "failures": 100,
            },
        ),
        rows_total=2,
    )


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"[" * 1_000_000, "malformed"),
        (b"[" + b"[]," * 900_000, "too-large"),
        (b"[]", "malformed"),
        (b'{"policies": 1}', "malformed"),
        (b"\xff", "malformed"),
    ],
)
def test_odd_tls_report_is_said(octets: bytes, why: str) -> None:
    message = mail("application/tlsrpt+json", octets, top="multipart/report; report-type=tlsrpt")
    assert opened(message).undone == (Undone("report", why),)


def test_odd_values_in_a_tls_report_are_left_out() -> None:
    failing = {"policy": [], "summary": {"total-failure-session-count": -1}}
    odd: dict[str, Any] = {
        "policies": [1, failing | {"failure-details": [7, {"failed-session-count": 1e300}]}],
        "date-range": {"start-datetime": "2026-03-01", "end-datetime": 5},
        "report-id": ["x"],
    }
    message = mail("application/tlsrpt+json", json.dumps(odd).encode(), top="multipart/report; report-type=tlsrpt")
    found = opened(message).report
    assert found is not None
    assert (found.id, found.end, found.rows[0]["failures"], found.rows_total) == ("", None, 0, 4)


def fields(kind: str, text: str, report_type: str) -> Report | None:
    return opened(
        read(
            f"From: a@example.net\r\nSubject: x\r\nContent-Type: multipart/report; report-type={report_type}; "
            f"boundary=b\r\n\r\n--b\r\n\r\nhi\r\n--b\r\nContent-Type: {kind}\r\n\r\n{text}\r\n--b--\r\n".encode()
        )
    ).report


def test_feedback_report_is_read() -> None:
    found = fields(
        "message/feedback-report",
        "Feedback-Type: abuse\r\nUser-Agent: SomeGenerator/1.0\r\nVersion: 1\r\nArrival-Date: Thu, 8 Mar 2026 14:00:00"
        " -0500\r\nReporting-MTA: dns; mail.example.com\r\nReported-Domain: Example.net\r\nReported-URI:\r\n"
        " http://example.net/a\r\nReported-URI: http://example.net/b\r\n",
        "feedback-report",
    )
    assert found is not None
    assert (found.kind, found.organization, found.domain) == ("arf", "mail.example.com", "example.net")
    assert found.begin == datetime(2026, 3, 8, 19, tzinfo=UTC)
    assert [value for name, value in found.fields if name == "reported-uri"] == [
        "http://example.net/a",
        "http://example.net/b",
    ]


def test_disposition_notification_is_read() -> None:
    found = fields(
        "message/disposition-notification",
        "Reporting-UA: joes-pc; Foomail 97.1\r\nFinal-Recipient: rfc822;joe@example.com\r\n"
        "Original-Message-ID: <1@example.org>\r\nDisposition: manual-action/MDN-sent-manually; displayed\r\n",
        "disposition-notification",
    )
    assert found is not None
    assert (found.kind, found.id) == ("mdn", "<1@example.org>")
    assert ("disposition", "manual-action/MDN-sent-manually; displayed") in found.fields


def test_report_without_its_field_is_none() -> None:
    assert fields("message/feedback-report", "Version: 1", "feedback-report") is None


# --- who is asked ----------------------------------------------------------------------------------------------------


def test_archive_of_a_person_is_no_report_and_stays_closed() -> None:
    assert is_dmarc("report domain: example.com submitter: example.net report-id: 4711")
    message = mail("application/zip", zipped(aggregate()), "x.zip", subject="the files", top="multipart/mixed")
    assert message.body.closed == ("report",)
    assert message.closed == ()
    assert read_contents(message, ("report",)) == Contents()


def test_report_is_in_the_event_as_the_schema_says() -> None:
    message = mail("application/gzip", gzip.compress(aggregate()), "x.gz")
    message.take_contents(opened(message))
    assert message.closed == ()
    rendered = EventRenderer(message, verdict=Deliver(("q",)), source="mailpoller/m", now=NOW).render(
        queue="q", delivery_id="d"
    )
    event = json.loads(rendered.structured())
    jsonschema.Draft202012Validator(schema()).validate(event)
    assert event["data"]["report"]["begin"] == "2026-03-01T00:00:00Z"
    assert event["data"]["report"]["rows"][0]["count"] == 3
