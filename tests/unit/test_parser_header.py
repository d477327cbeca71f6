"""The header: where it ends, what its fields are, and what is made of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

import odd_mail
from mailpoller.core.message import Address
from mailpoller.mail.automatic import classify
from mailpoller.mail.date import parse_date
from odd_mail.reading import field, read

ODD = odd_mail.files()


def test_fields_keep_their_names_order_and_repetitions():
    message = read(b"X-A: 1\r\nsubject: s\r\nx-a: 2\r\nX-a:3\r\n\r\n")
    assert list(message.headers) == [("X-A", "1"), ("subject", "s"), ("x-a", "2"), ("X-a", "3")]
    assert message.header("X-A") == ["1", "2", "3"]


def test_folded_values_are_unfolded():
    assert read(b"Subject: a\r\n b\r\n\tc\r\n\r\n").subject == "a b c"


@pytest.mark.parametrize("newline", [b"\r\n", b"\n", b"\r"])
def test_all_line_ends_are_understood(newline):
    message = read(newline.join([b"Subject: a", b" b", b"From: a@example.com", b"", b"one", b"two", b""]))
    assert message.subject == "a b"
    assert message.from_ == (Address("", "a@example.com"),)
    assert message.body.text == "one\ntwo\n"


@pytest.mark.parametrize(
    ("name", "subject", "text", "defect"),
    [
        ("empty", "", "", None),
        ("header-without-body", "x", "", None),
        ("body-without-header", "", "Just text.\n", None),
        ("body-without-header-or-separator", "", "Just text.\nMore text.\n", "header-separator-missing"),
        ("no-separator", "x", "Hello all,\nthis is the text.\n\nSecond paragraph.\n", "header-separator-missing"),
        ("line-without-colon-among-fields", "x", "hi\n", "header-line-malformed"),
        ("field-name-with-spaces", "x", "hi\n", "header-line-malformed"),
        ("space-before-colon", "x", "hi\n", None),
        ("mbox-line", "odd", "hi\n", "mbox-line"),
        ("boundary-inside-header", "odd", "hi", "header-separator-missing"),
    ],
)
def test_odd_header_still_gives_subject_and_text(name, subject, text, defect):
    message = read(ODD[name])
    assert (message.subject, message.body.text) == (subject, text)
    assert message.defects == (() if defect is None else (defect,))


def test_raw_octets_above_127_are_utf8_or_windows_1252():
    assert read("Subject: Grüße\r\n\r\n".encode()).subject == "Grüße"
    assert read("Subject: Grüße\r\n\r\n".encode()).defects == ()
    message = read(b"Subject: Gr" + b"\xfc\xdfe\r\nX-B: \xc3\xbc\r\n\r\n")
    assert message.subject == "Grüße"
    assert message.header("x-b") == ["ü"]
    assert message.defects == ("header-not-utf8",)


def test_fields_and_octets_beyond_the_bounds_are_cut_and_said_so():
    message = read(b"Subject: x\r\n" + b"a: b\r\n" * 5000 + b"\r\ntext")
    assert len(message.headers) == 2000
    assert message.defects == ("header-cut",)
    assert message.body.text == "text"
    message = read(b"Subject: x\r\nX: " + b"y" * 3_000_000 + b"\r\nFrom: a@example.com\r\n\r\ntext")
    assert message.subject == "x"
    assert message.defects == ("header-cut",)
    assert message.body.text == "text"


def test_addresses_of_a_repeated_field_are_joined_and_the_first_subject_counts():
    message = read(ODD["fields-repeated"])
    assert [a.address for a in message.from_] == ["a@example.com", "b@example.com"]
    assert message.subject == "one"
    assert message.defects == ("field-repeated",)


def test_message_ids_keep_their_brackets():
    message = read(
        b"Message-ID: (c) <a@b>\r\nIn-Reply-To: Your mail <c@d> of today\r\nReferences: <e@f><g@h>\r\n <c@d>\r\n\r\n"
    )
    assert message.message_id == "<a@b>"
    assert message.in_reply_to == ("<c@d>",)
    assert message.references == ("<e@f>", "<g@h>", "<c@d>")
    assert field("Message-ID", "no-brackets@example.com").message_id == "no-brackets@example.com"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("<>", ""), (" < > ", ""), ("< (nobody) >", ""), ("<a@example.com>", "a@example.com"),
        ("a@example.com", "a@example.com"), ("", None), ("()", None),
    ],
)  # fmt: skip
def test_return_path(value, expected):
    assert field("Return-Path", value).return_path == expected


GMAIL_HOP = "Received: by 2002:a05:6402:3506:b0:5c8:1:2 with SMTP id b6csp1; Sat, 14 Mar 2026 09:26:53 +0000"
OLD_HOP = "Received: by 10.210.30.5 with SMTP id b6csp1; Sat, 14 Mar 2009 09:26:53 +0000"
TAKEN = "Received: from mx.example.com by mail.example.org; Sat, 14 Mar 2026 09:26:52 +0000"
PATH = "Return-Path: <victim@example.net>"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((PATH, TAKEN), "victim@example.net"),
        ((TAKEN, PATH), None),
        ((TAKEN, TAKEN, PATH), None),
        ((TAKEN, "Return-Path: <>"), None),
        ((GMAIL_HOP, PATH, TAKEN), "victim@example.net"),
        ((GMAIL_HOP, TAKEN, PATH), None),
        ((OLD_HOP, OLD_HOP, PATH, TAKEN), "victim@example.net"),
        ((TAKEN, GMAIL_HOP, PATH), None),
        (("Return-Path: <real@example.com>", TAKEN, PATH), "real@example.com"),
    ],
)
def test_what_a_stranger_wrote_below_the_first_received_is_no_return_path(lines, expected):
    message = read("\r\n".join([*lines, "From: a@example.com", "", ""]).encode())
    assert message.return_path == expected
    assert message.auto is None


def test_return_path_is_none_without_such_a_field():
    message = field("From", "<>")
    assert message.return_path is None
    assert message.auto is None


@pytest.mark.parametrize(
    "value", ["auto-replied", "auto-generated", "Auto-Notified; x=y", "(c) auto-replied (d)", "yes"]
)
def test_auto_submitted_other_than_no_is_automatic(value):
    assert field("Auto-Submitted", value).auto == "auto-submitted"


@pytest.mark.parametrize("value", ["no", "NO", " no ; reason=x", "(auto-replied) no", ""])
def test_auto_submitted_no_is_a_human(value):
    assert field("Auto-Submitted", value).auto is None


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"  Hello there,\nhow are you?\n\nmore\n", "  Hello there,\nhow are you?\n\nmore\n"),
        (b"Send this to\n\tppp@example.org\n\nmore\n", "Send this to\n\tppp@example.org\n\nmore\n"),
        (b"From: a@example.com\nHello there,\n how are you?\n\nmore\n", "Hello there,\n how are you?\n\nmore\n"),
    ],
)
def test_text_without_a_header_above_it_is_kept_even_where_it_is_indented(octets, text):
    message = read(octets)
    assert message.body.text == text
    assert message.defects == ("header-separator-missing",)


def test_a_strange_line_and_what_is_folded_to_it_are_passed_over_where_fields_follow():
    message = read(b"From: a@example.com\nstrange\n line\nSubject: x\n\nhi\n")
    assert (message.subject, message.body.text, message.defects) == ("x", "hi\n", ("header-line-malformed",))


def test_a_first_field_that_is_indented_is_read():
    message = read(b"  From: a@example.com\nSubject: x\n\nhi\n")
    assert [one.address for one in message.from_] == ["a@example.com"]
    assert message.defects == ("header-after-blank-line",)


def test_null_return_path_is_automatic_and_one_of_several_fields_suffices():
    assert classify([], "") == "null-return-path"
    assert classify([], None) is None
    assert classify(["no"], "a@example.com") is None
    assert classify(["no", "auto-replied"], "a@example.com") == "auto-submitted"


def test_our_own_mail_is_known_by_the_loop_header():
    assert field("x-mailpoller-loop", "1").looped
    assert not field("X-Loop", "1").looped


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Sat, 14 Mar 2026 09:26:53 +0100", "2026-03-14T08:26:53"),
        ("14 Mar 2026 09:26 -0530", "2026-03-14T14:56:00"),
        ("Sat, 14 Mar 2026 09:26:53 GMT", "2026-03-14T09:26:53"),
        ("Sat, 14 Mar 2026 09:26:53 +0000 (UTC)", "2026-03-14T09:26:53"),
        ("Fri, 21 Nov 97 09(c):55:06 EST", "1997-11-21T14:55:06"),
        ("21 Nov 49 00:00:00 PDT", "2049-11-21T07:00:00"),
        ("21 Nov 104 00:00:00 Z", "2004-11-21T00:00:00"),
        ("Sat, 31 Dec 2016 23:59:60 +0000", "2016-12-31T23:59:59"),
        ("Sat, 14 March 2026 09.26.53 -0000", "2026-03-14T09:26:53"),
        ("14-Mar-2026 09:26:53 +0000", "2026-03-14T09:26:53"),
        ("Sat, 28 Apr 2012 23:09:37 GMT+0100", "2012-04-28T22:09:37"),
        ("Mon, 30 Nov 2026 08:00:00 GMT+01:00", "2026-11-30T07:00:00"),
        ("Mon, 30 Nov 2026 08:00:00 UTC+1", "2026-11-30T07:00:00"),
        ("Mon, 30 Nov 2026 24:00:00 +0000", "2026-12-01T00:00:00"),
        ("Mon, 30 Nov 2026 08:00:00 PM +0000", "2026-11-30T20:00:00"),
        ("Mon, 30 Nov 2026 12:30:00 a.m. +0000", "2026-11-30T00:30:00"),
        ("Mon, 21 Aug 1995 13:30:57 -600", "1995-08-21T19:30:57"),
        ("Mon, 30 Nov 2026 08:00:00 MEZ", "2026-11-30T07:00:00"),
        ("Mon, 30 Nov 2026 08:00:00 (EST)", "2026-11-30T13:00:00"),
        ("2026-11-30T08:00:00Z", "2026-11-30T08:00:00"),
        ("2012-04-28T23:09:37.5+02:00", "2012-04-28T21:09:37"),
        ("2012-04-28 23:09:37 +0530", "2012-04-28T17:39:37"),
        ("Sat Apr 28 23:09:37 CEST 2012", "2012-04-28T21:09:37"),
        ("Sat Apr 28 23:09:37 2012 +0200", "2012-04-28T21:09:37"),
        ("April 28, 2012 11:09 PM -0500", "2012-04-29T04:09:00"),
        ("Date: Sat;, 4 Mar 2026 09:26:53 +0100 x", "2026-03-04T08:26:53"),
    ],
)
def test_dates_are_instants_in_utc(value, expected):
    assert parse_date(value) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "99 Bar 0000 99:99:99 +9999", "31 Dec 9999 23:59:59 -2359", "1 Jan 0001 00:00:00 +0100",
     "29 Feb 2025 00:00:00 +0000", "1 Jan 2026 25:00:00 +0000", "1 Jan 2026 24:01:00 +0000",
     "1 Jan 2026 08:00:00 Europe", "1 Jan 2026 08:00:00 K",
     "1 Jan 2026 08:00:00 IST", "1 Jan 2026 08:00:00 Europe/Berlin", "1 Jan 2026 08:00:00 +00100",
     "1 Jan 2026 08:00:00 +9999", "20260101T080000Z"],
)  # fmt: skip
def test_what_is_no_date_is_none_and_a_defect(value):
    assert parse_date(value) is None
    assert field("Date", value or "x").defects == ("date-malformed",)


@pytest.mark.parametrize("value", ["Sat Apr 28 23:09:37 2012", "28 Apr 2012 23:09:37", "2012-04-28 23:09:37"])
def test_a_date_without_a_zone_is_read_as_utc_and_says_so(value):
    message = field("Date", value)
    assert message.date == datetime(2012, 4, 28, 23, 9, 37, tzinfo=UTC)
    assert message.defects == ("date-zone-missing",)


@given(
    st.text(max_size=40)
    | st.from_regex(r"\d{1,2} [A-Z][a-z]{2} \d{2,5} \d+:\d+(:\d+)? ([+-]\d{4}|[A-Z]+)", fullmatch=True)
)
def test_no_text_makes_a_date_raise(value):
    date = parse_date(value)
    assert date is None or date.tzinfo is UTC
