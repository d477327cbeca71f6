"""The rule type match: addresses by part, lists, words, times, numbers, other rules, fields of the event."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mailpoller.core.authentication import Authentication
from mailpoller.core.body import Body
from mailpoller.core.contents import Calendar
from mailpoller.core.conversation import Conversation
from mailpoller.core.errors import ConfigError
from mailpoller.core.message import Address, Message
from mailpoller.mail.event import EventRenderer
from mailpoller.rules.fields import FIELDS
from mailpoller.rules.words import compile_words
from odd_mail.reading import NOW, read
from pace import paced
from unit.rule_message import BodyReads, a_message, addresses, attached
from unit.test_event import VERDICT, checked
from unit.test_rule_conditions import RUNTIME, holds, rule, why


# --- addresses
@pytest.mark.parametrize(
    ("domain", "address", "expected"),
    [
        ("example.com", "a@example.com", True),
        ("Example.COM.", "a@EXAMPLE.com.", True),
        ("example.com", "a@mail.eu.example.com", True),
        ("example.com", "a@badexample.com", False),
        ("example.com", "a@example.com.evil.test", False),
        ("example.com", '"x@example.com"@evil.test', False),
        ("example.com", "example.com", True),
        ("müller.example", "a@xn--mller-kva.example", True),
        ("xn--mller-kva.example", "a@MÜLLER.example", True),
        ("com", "a@" + "x." * 100_000 + "com", False),
    ],
)
def test_domain_stands_for_all_below_it_in_either_form(domain: str, address: str, expected: bool) -> None:
    assert holds(f"{{from: {{domain: {domain}}}}}", a_message(from_=addresses(address))) is expected


def test_parts_of_an_address_must_pass_together() -> None:
    both = a_message(from_=(Address("The Boss", "robot@example.com"), Address("", "boss@evil.test")))

    assert not holds("{from: {local: {equals: boss}, domain: example.com}}", both)
    assert why("{from: {name: {matches: '^the'}, local: robot}}", both) == (
        'from local part contains "robot" and name matches "^the"'
    )


# --- lists
def test_list_of_senders_is_read_anew_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "partners"
    file.write_text("# partners\n@Partner.example\nada@x.example\n", "utf-8")
    asked = rule(f"{{from: {{list: {file}}}}}")

    assert asked.judge(a_message(from_=addresses("Bob@mail.partner.example")))
    assert asked.judge(a_message(from_=addresses("ADA@x.example")))
    assert not asked.judge(a_message(from_=addresses("bob@x.example")))
    file.write_text("x.example\n", "utf-8")
    assert asked.judge(a_message(from_=addresses("bob@x.example")))
    with capture_logs() as logs:
        file.unlink()
        assert [bool(asked.judge(a_message(from_=addresses("bob@x.example")))) for _ in range(3)] == [True] * 3
    assert [entry["event"] for entry in logs] == ["list.unread"]


def test_list_that_changed_within_a_tick_of_its_reading_is_read_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "subjects"
    file.write_text("one\n", "utf-8")
    before = file.stat()
    asked = rule(f"{{subject: {{list: {file}}}}}")
    file.write_text("two\n", "utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + 2)

    assert asked.judge(a_message(subject="TWO"))
    assert not asked.judge(a_message(subject="two more"))


@pytest.mark.parametrize("when", ["{from: {list: %s}}", "{subject: {list: %s}}", "{body: {words: {file: %s}}}"])
def test_list_that_is_missing_refuses_whoever_asks_for_it(tmp_path: Path, when: str) -> None:
    with pytest.raises(ConfigError, match=r"none: No such file"):
        rule(when % (tmp_path / "none"))


def test_list_with_a_line_that_is_no_phrase_is_refused_and_later_keeps_what_it_said(tmp_path: Path) -> None:
    file = tmp_path / "words"
    file.write_text("ok\n!!!\n", "utf-8")
    with pytest.raises(ConfigError, match="a phrase is 1 to 20 words"):
        rule(f"{{subject: {{words: {{file: {file}}}}}}}")
    file.write_text("refund\n", "utf-8")
    asked = rule(f"{{subject: {{words: [chargeback, {{file: {file}}}]}}}}")
    file.write_text("!!!\n", "utf-8")

    assert asked.judge(a_message(subject="A refund, please"))
    assert asked.judge(a_message(subject="chargeback!"))


# --- words
@pytest.mark.parametrize(
    ("phrase", "text", "accents", "found"),
    [
        ("refund", "I want a REFUND.", True, True),
        ("refund", "refunds", True, False),
        ("money back", "my money\nback!", True, True),
        ("money back", "money and back", True, False),
        ("Ärger", "viel ärger.", True, True),
        ("ärger", "a\u0308rger", True, True),
        ("Ärger", "Verärgerung", True, False),
        ("argerlich", "ÄRGERLICH", False, True),
        ("argerlich", "ärgerlich", True, False),
        ("STRASSE", "straße", True, True),
        ("退款", "我要求退款。", True, True),
        ("возврат денег", "Прошу ВОЗВРАТ денег", True, True),
        ("e-mail", "my e mail", True, True),
        ("a b a c", "a b a b a c", True, True),
    ],
)
def test_words_are_whole_in_every_script(phrase: str, text: str, accents: bool, found: bool) -> None:
    assert bool(compile_words([phrase], sensitive=False, accents=accents)(text)) is found


def test_twenty_thousand_phrases_cost_little_whatever_the_text() -> None:
    phrases = [f"{first} {n} money back" for n in range(10_000) for first in ("the", "grüße")]
    find = compile_words(phrases, sensitive=False, accents=False)
    texts = ["the Grüße 17 money bank " * 4200, "the " * 25_000, "é" * 100_000, "the 9999 money " * 6_600]

    for text in texts:
        best = min(_took(find, text) for _ in range(5))
        assert best < paced(0.1), text[:20]  # 5 to 15 ms on an idle machine
    assert find("x " * 9 + "The 9999 money back") == "the 9999 money back"


def _took(find, text: str) -> float:  # type: ignore[no-untyped-def]
    begun = time.process_time()
    assert find(text) == ""
    return time.process_time() - begun


# --- numbers and times
def test_attachments_are_counted_after_the_other_tests() -> None:
    message = a_message(attachments=(attached("a.pdf"), attached("b.pdf"), attached("c.png", "image/png")))

    assert why("{attachment: {type: pdf, count: 2}}", message) == (
        'more than 1 and fewer than 3 attachments with type contains "pdf"'
    )
    assert not holds("{attachment: {type: pdf, count: {above: 2}}}", message)
    assert holds("{attachment: {name: {exists: false}, count: 0}}", message)


def at(received: str | None, sent: datetime | None = None) -> Message:
    message = a_message(date=sent)
    message.raw = replace(message.raw, received=datetime.fromisoformat(received) if received else None)
    return message


@pytest.mark.parametrize(
    ("test", "received", "expected"),
    [
        ("{days: mon-fri, zone: Europe/Berlin}", "2026-03-13T22:59:00+00:00", True),
        ("{days: mon-fri, zone: Europe/Berlin}", "2026-03-13T23:00:00+00:00", False),
        ("{days: [sat-mon]}", "2026-03-16T12:00:00+00:00", True),
        ("{hours: '08:00-17:00', zone: Europe/Berlin}", "2026-07-01T06:00:00+00:00", True),
        ("{hours: '08:00-17:00', zone: Europe/Berlin}", "2026-01-01T06:00:00+00:00", False),
        ("{hours: '08:00-17:00'}", "2026-01-01T17:00:00+00:00", False),
        ("{hours: '22:00-06:00'}", "2026-01-01T05:59:59+00:00", True),
        ("{hours: ['22:00-24:00', '01:00-02:00']}", "2026-01-01T23:59:00+00:00", True),
        ("{dates: [2026-12-25, 2026-12-26]}", "2026-12-26T01:00:00+00:00", True),
        ("{since: 2026-01-02}", "2026-01-01T23:59:00+00:00", False),
        ("{since: 2026-01-02, until: 2026-01-02}", "2026-01-02T23:59:00+00:00", True),
        ("{days: mon-sun}", None, False),
        ("{days: mon-sun, zone: Asia/Tokyo}", "9999-12-31T23:59:00+00:00", False),
    ],
)
def test_time_is_that_of_the_receipt_in_the_zone(test: str, received: str | None, expected: bool) -> None:
    assert holds(f"{{received: {test}}}", at(received)) is expected


@pytest.mark.parametrize(
    ("test", "hours", "expected"),
    [
        ("{above: 2h}", 3, True),
        ("{above: 3h}", 3, False),
        ("{below: 1h}", -5, True),
        ("{above: 1h, below: 4h}", 3, True),
    ],
)
def test_age_is_counted_from_the_date_to_the_receipt(test: str, hours: int, expected: bool) -> None:
    sent = datetime(2026, 1, 1, tzinfo=UTC)
    received = (sent + timedelta(hours=hours)).isoformat()

    assert holds(f"{{age: {test}}}", at(received, sent)) is expected
    assert not holds(f"{{age: {test}}}", at(received))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((("Importance", "High"),), "high"),
        ((("X-Priority", "1 (Highest)"),), "high"),
        ((("X-Priority", "5"),), "low"),
        ((("Priority", "non-urgent"),), "low"),
        ((("Importance", "x"), ("x-msmail-priority", "Low")), "low"),
        ((("Importance", "low"), ("X-Priority", "1")), "low"),
        ((), "normal"),
    ],
)
def test_importance_is_what_the_sender_says(headers: tuple[tuple[str, str], ...], expected: str) -> None:
    assert holds(f"{{importance: {expected}}}", a_message(headers=headers))


# --- other rules, and the event
def test_condition_of_another_rule_can_be_asked() -> None:
    boss = rule("{from: boss@}", name="boss")
    runtime = replace(RUNTIME, rules={"boss": boss})
    asked = rule("{rule: boss, subject: hello}", runtime=runtime)
    others = rule("{not: {rule: boss}}", runtime=runtime)

    match = asked.judge(a_message(from_=addresses("boss@x.example"), subject="hello"))
    assert match is not None
    assert match.why == 'subject contains "hello", rule boss (from contains "boss@")'
    assert not others.judge(a_message(from_=addresses("boss@x.example")))
    assert not asked.needs_body
    assert rule("{rule: r}", runtime=replace(RUNTIME, rules={"r": rule("{body: x}")})).needs_body


def test_fields_of_the_event_can_be_asked() -> None:
    message = a_message(in_reply_to=("<a@x>", "<b@x>"), return_path="")
    message.authentication = Authentication(dmarc="fail", by="mx.example.com")
    message.conversation = Conversation("17", "token", verified=True)
    message.delivered_to = "sales@example.org"

    assert why("{event: {authentication.dmarc: {equals: fail}}}", message) == 'authentication.dmarc equals "fail"'
    assert holds("{event: {conversation.verified: true, conversation.id: '17'}}", message)
    assert holds("{event: {delivered_to: sales@, in_reply_to: '<b@'}}", message)
    assert holds("{event: {return_path: {exists: false}, authentication.spf: {exists: false}}}", message)
    assert not holds("{event: {conversation.forged: true}}", message)


def test_reply_alone_can_be_asked_for() -> None:
    message = read(b"Subject: Re: x\r\n\r\nPlease cancel.\r\n\r\nOn Monday Ada wrote:\r\n> A refund is due.\r\n")

    assert holds("{event: {reply_text: {words: cancel}, quoted: {words: refund}}}", message)
    assert not holds("{event: {reply_text: {words: refund}}}", message)


def test_what_an_invitation_says_can_be_asked_for() -> None:
    organizer = Address("", "ada@x.example")
    message = a_message(load=BodyReads(Body("", "", (), calendar=Calendar("request", "17", organizer, summary="Talk"))))

    assert holds("{event: {calendar.method: request, calendar.organizer: ada@, calendar.summary: talk}}", message)
    assert holds("{event: {encryption: {exists: false}, report.domain: {exists: false}}}", message)
    assert not holds("{event: {calendar.method: cancel}}", message)


WRAPPED = (
    b"From: a@x.example\r\nSubject: Fwd\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nsee below\r\n--b"
    b"\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n"
    b"--c\r\n\r\nhi\r\n--c\r\nContent-Type: application/octet-stream; name=salary.exe\r\n\r\nMZ\r\n--c--\r\n--b--\r\n"
)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("{attachment: {name: {matches: 'exe$'}}}", True),
        ("{attachment: {name: {matches: 'exe$'}, nested: true}}", True),
        ("{attachment: {name: {matches: 'exe$'}, nested: false}}", False),
        ("{attachment: {nested: false}}", True),
        ("{attachment: {count: 2}}", True),
    ],
)
def test_an_attachment_of_a_message_within_the_mail_is_seen(condition: str, expected: bool) -> None:
    assert holds(condition, read(WRAPPED)) is expected


def test_what_was_forwarded_within_the_text_can_be_asked_as_the_event_tells_it() -> None:
    message = read(
        b"From: a@x.example\r\nSubject: Fwd: order\r\n\r\nPlease see to it.\r\n\r\n"
        b"---------- Forwarded message ----------\r\nFrom: Jo <jo@x.example>\r\nDate: 14 Mar 2026 09:26:53 +0100\r\n"
        b"Subject: order 4711\r\nTo: a@x.example\r\n\r\nWhere is it?\r\n"
    )
    assert holds("{event: {forwarded.subject: '4711', forwarded.from: {equals: jo@x.example}}}", message)


def test_a_rule_that_asks_the_subclass_asks_the_class() -> None:
    assert rule("{event: {classification.subclass: hard}}").asks_class
    assert not rule("{event: {folder: x}}").asks_class


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_that_can_be_asked_is_in_the_event_and_says_truly_whether_it_needs_the_body(path: str) -> None:
    octets = (
        b"From: MAILER-DAEMON@x.example\r\nSubject: failure\r\nReturn-Path: <>\r\nContent-Type: multipart/report; "
        b"report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\nContent-Type: message/delivery-status"
        b"\r\n\r\nReporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822; a@x.example\r\nAction: failed\r\n"
        b"Status: 5.1.1\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx\r\n--b--\r\n"
    )
    message = read(octets)
    message.conversation, message.authentication = Conversation("1", "token"), Authentication(spf="pass")
    reads = BodyReads(message.body)
    lazy = read(octets)
    lazy.load = reads

    assert all(isinstance(text, str) for text in FIELDS[path].texts(lazy))
    assert reads.count == 0 or FIELDS[path].needs_body
    event = checked(EventRenderer(message, verdict=VERDICT, source="s", now=NOW).render(queue="a", delivery_id="d"))
    at_: object = event["data"]
    for key in path.split("."):
        at_ = at_[0] if isinstance(at_, list) and at_ else at_
        if not isinstance(at_, dict):
            assert key in ("what", "why") or path.startswith(("forwarded.", "report.", "calendar.")), path
            break
        assert key in at_, path
        at_ = at_[key]
