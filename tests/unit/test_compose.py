"""Mail that we write: marked as ours, safe to send, and the original in it bit for bit."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.ports import Mail
from mailpoller.core.spool import Octets
from mailpoller.mail.compose import (
    Form,
    Section,
    alert_mail,
    ascii_address,
    data_domain,
    printable,
    quarantine_mail,
    test_mail,
)
from mailpoller.mail.loop import LOOP_HEADER
from mailpoller.testing.deliveries import HOSTILE, spooled
from servers.smtp import original_in

AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
PLAIN = b"From: ada@example.com\r\nSubject: hello\r\n\r\nHello.\r\n"


def original(octets: bytes | Octets) -> RawMessage:
    held = Octets.of(octets) if isinstance(octets, bytes) else octets
    return RawMessage(Claim(MessageRef(Folder("support", "INBOX", "1"), "7", held.size), "mid-1"), held)


def note(octets: bytes | Octets, form: Form = "whole", **more: object) -> Mail:
    arguments: dict[str, object] = {
        "sender": "mailpoller@example.com",
        "recipients": ["q@example.com"],
        "raw": original(octets),
        "delivery_id": "0f0e0d0c-0000-5000-8000-000000000001",
        "at": AT,
        "subject": "[mailpoller] quarantined in support: poison",
        "explanation": ["It was put aside.", "What to do: look."],
        "trace": [("mid", "mid-1"), ("subject", "hello")],
        "form": form,
    }
    return quarantine_mail(**{**arguments, **more})  # type: ignore[arg-type]


def sent_as_lines(mail: Mail) -> bool:
    """True if SMTP can carry it: lines of at most 998 octets that end in CRLF, no NUL, no CR or LF elsewhere."""
    lines = mail.octets.split(b"\r\n")
    return all(len(line) <= 998 and not set(line) & {0, 10, 13} for line in lines) and lines[-1] == b""


ODD = {
    "plain": PLAIN,
    "empty": b"",
    "no last line end": b"Subject: x\r\n\r\nno end",
    "eight bits": "Subject: Größe\r\n\r\nGrüße\r\n".encode(),
    "bare LF": b"Subject: x\n\nunix\n",
    "bare CR": b"Subject: x\r\n\r\na\rb\r\n",
    "CR at the end": b"Subject: x\r\n\r\na\r",
    "NUL": b"Subject: x\r\n\r\na\0b\r\n",
    "long line": b"Subject: x\r\n\r\n" + b"a" * 999 + b"\r\n",
    "longest line": b"Subject: x\r\n\r\n" + b"a" * 998 + b"\r\n",
    "long last line": b"Subject: x\r\n\r\n" + b"a" * 999,
    "dots": b"Subject: x\r\n\r\n.\r\n..\r\n.a\r\n",
    "every octet": HOSTILE,
    "large and hostile": HOSTILE * 3000,
    "large and plain": PLAIN * 3000,
}


@pytest.mark.parametrize("octets", ODD.values(), ids=ODD)
@pytest.mark.parametrize("form", ["whole", "encoded"])
def test_the_original_is_recovered_bit_for_bit_and_smtp_can_carry_the_mail(octets: bytes, form: Form) -> None:
    mail = note(octets, form)
    assert original_in(mail.octets) == octets
    assert sent_as_lines(mail)


@given(
    st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b"a" * 500, b".", b"\xff", b"x: y", b"--"])).map(b"".join)
)
@settings(max_examples=300, deadline=None)
@example(b"a" * 500 + b"a" * 500)
def test_any_octets_survive(octets: bytes) -> None:
    mail = note(octets)
    assert original_in(mail.octets) == octets
    assert sent_as_lines(mail)


@given(st.binary(max_size=3000))
@settings(max_examples=100, deadline=None)
def test_any_header_can_be_attached_alone(octets: bytes) -> None:
    assert sent_as_lines(note(octets, "header"))


@pytest.mark.parametrize(
    ("octets", "domain"),
    [
        (b"", "7bit"),
        (PLAIN, "7bit"),
        ("Grüße\r\n".encode(), "8bit"),
        (b"a\n", "binary"),
        (b"a\r", "binary"),
        (b"\n\r", "binary"),
        (b"\0", "binary"),
        (b"a" * 998 + b"\r\n", "7bit"),
        (b"a" * 999 + b"\r\n", "binary"),
        (b"a" * 999, "binary"),
        # a CRLF across the border between two pieces
        (b"a\r\n" * 21845 + b"\r\n" + b"b\r\n", "7bit"),
        (b"aa\r\n" * 16383 + b"aaa\r\n" + b"b\r\n", "7bit"),
        (b"aa\r\n" * 16383 + b"aaa\r" + b"b\r\n", "binary"),
    ],
)
def test_the_kind_of_data_is_what_rfc_2045_calls_it(octets: bytes, domain: str) -> None:
    assert data_domain(octets) == domain


def test_a_mapped_spool_file_is_judged_and_attached_like_memory(tmp_path: Path) -> None:
    for octets in (PLAIN * 4000, HOSTILE * 900):
        held = spooled(octets, tmp_path)
        assert data_domain(held.view()) == data_domain(octets)
        assert original_in(note(held).octets) == octets
        held.close()


def test_mail_that_smtp_carries_as_it_is_is_attached_as_a_message() -> None:
    message = read(note(PLAIN))
    _, attached = message.iter_parts()
    assert attached.get_content_type() == "message/rfc822"
    assert attached.get_content()["Subject"] == "hello"
    assert note(PLAIN).octets.isascii()
    assert read(note("Grüße\r\n".encode()))["Content-Transfer-Encoding"] == "8bit"
    assert note("Grüße\r\n".encode(), "encoded").octets.isascii()


def test_only_the_header_of_what_is_too_large_is_attached() -> None:
    message = read(note(PLAIN * 100_000, "header"))
    _, attached = message.iter_parts()
    assert attached.get_content_type() == "text/rfc822-headers"
    assert "Subject: hello" in str(attached.get_payload())
    assert len(note(b"X-Pad: " + b"a" * 10_000_000, "header").octets) < 100_000


def test_the_mark_the_null_sender_and_the_stable_message_id_are_there() -> None:
    mail = note(PLAIN)
    message = read(mail)
    assert mail.sender == ""
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Auto-Response-Suppress"] == "All"
    assert message[LOOP_HEADER] is not None
    assert message["Message-ID"] == "<0f0e0d0c-0000-5000-8000-000000000001@example.com>"
    assert message["Date"].datetime == AT
    assert read(note(HOSTILE, at=datetime.now(UTC)))["Message-ID"] == message["Message-ID"]


@pytest.mark.parametrize(
    "evil",
    [
        "x\r\nBcc: everybody@example.com",
        "x\nBcc: everybody@example.com",
        "x\rBcc: everybody@example.com",
        "x\u2028Bcc: everybody@example.com\u0085\x0b\x0c\x00",
        "\ud800 lone surrogate \u202e override",
        "word " * 1000,
        "w" * 5000,
        "ü" * 5000,
        "=?utf-8?q?already?= encoded",
        "",
    ],
)
def test_nothing_a_stranger_wrote_breaks_out_of_its_place(evil: str) -> None:
    mail = note(PLAIN, subject=evil, delivery_id=evil[:20] or "id", trace=[("subject", evil), (evil[:10], "x")])
    message = read(mail)
    assert sent_as_lines(mail)
    assert message["Bcc"] is None
    assert message[LOOP_HEADER] is not None
    body, attached = message.iter_parts()
    assert attached.get_content_type() == "message/rfc822"
    assert "It was put aside." in body.get_content()
    assert "\u202e" not in body.get_content()
    header = mail.octets.partition(b"\r\n\r\n")[0]
    assert all(re.match(rb"[A-Za-z-]+: |[ \t]", line) for line in header.split(b"\r\n"))


def test_a_boundary_in_the_original_does_not_end_the_attachment() -> None:
    first = note(PLAIN)
    assert original_in(note(first.octets).octets) == first.octets


def test_a_subject_outside_ascii_is_read_as_it_was_written() -> None:
    assert (
        read(note(PLAIN, subject="quarantined in büro: Größe " * 6))["Subject"]
        == ("quarantined in büro: Größe " * 6).strip()
    )


def test_a_domain_outside_ascii_needs_no_smtputf8() -> None:
    mail = note(PLAIN, recipients=["q@bücher.example"])
    assert mail.recipients == ("q@xn--bcher-kva.example",)
    assert ascii_address("jürgen@example.com") == "jürgen@example.com"
    assert ascii_address("a@" + "ü" * 80) == "a@" + "ü" * 80, "what cannot be converted is the relay's to refuse"


def test_many_recipients_are_folded() -> None:
    recipients = [f"somebody-{number}@a-rather-long-host-name.example.com" for number in range(100)]
    mail = note(PLAIN, recipients=recipients)
    assert sent_as_lines(mail)
    assert [one.addr_spec for one in read(mail)["To"].addresses] == recipients


def test_printable_text_is_one_short_line() -> None:
    assert printable("a\r\n b\tc\x00d") == "a b c d"
    assert printable("x" * 300) == "x" * 199 + "…"


def test_alerts_and_tests_are_plain_text_for_humans() -> None:
    sections = [Section("It is down", ("  support: refused",), "Look."), Section("It is up, für immer")]
    mail = alert_mail(
        sender="m@example.com",
        recipients=["ops@example.com"],
        subject="[mailpoller] It is down",
        sections=sections,
        footer="mailpoller on host",
        at=AT,
    )
    message = read(mail)
    assert sent_as_lines(mail)
    assert mail.octets.isascii()
    assert message.get_content().replace("\r\n", "\n") == (
        "It is down\n  support: refused\nLook.\n\nIt is up, für immer\n\n-- \nmailpoller on host\n"
    )
    tested = test_mail(sender="m@example.com", recipients=["ops@example.com"], footer="mailpoller on host", at=AT)
    assert read(tested)["Subject"] == "[mailpoller] test mail"
    assert read(tested)[LOOP_HEADER] is not None


def read(mail: Mail) -> EmailMessage:
    message = message_from_bytes(mail.octets, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message
