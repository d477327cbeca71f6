"""What is handed in to be sent: refused with the reason, or sent right."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

from mailpoller.core.errors import EntryRefused, MessageRejected
from mailpoller.core.ports import Mail
from mailpoller.core.sender import Sender
from mailpoller.mail.addressed import addressed, diverted
from mailpoller.mail.compose import data_domain
from mailpoller.mail.letter import letter_of
from mailpoller.mail.letter_form import REFERENCES, letter_octets
from mailpoller.mail.letter_given import given_mail
from mailpoller.mail.letter_thread import once_answered

AT = datetime(2026, 11, 30, 15, 0, tzinfo=UTC)
SENDER = Sender("support@bücher.example", "Grüße, Support", "answers@x.example", "Yours", "<p>Yours</p>")
PLAIN: dict[str, Any] = {"to": "ada@x.example", "subject": "Re: order", "text": "Hello"}


def read(octets: bytes) -> EmailMessage:
    made = message_from_bytes(octets, policy=policy.default)
    assert isinstance(made, EmailMessage)
    assert not made.defects
    return made


def sent(sender: Sender = SENDER, **entry: Any) -> EmailMessage:
    octets = letter_octets(letter_of({**PLAIN, **entry}), sender, message_id="<m@x.example>", at=AT)
    assert data_domain(octets) == "7bit"
    return read(octets)


def test_a_reply_is_a_persons_mail() -> None:
    mail = sent(bcc="secret@x.example")
    assert {"Auto-Submitted", "X-Auto-Response-Suppress", "X-Mailpoller-Loop", "Bcc"}.isdisjoint(mail.keys())
    assert b"secret" not in mail.as_bytes()
    assert mail["From"].addresses[0].addr_spec == "support@xn--bcher-kva.example"
    assert mail["From"].addresses[0].display_name == "Grüße, Support"
    assert (mail["Message-ID"], mail["Reply-To"], mail["To"]) == ("<m@x.example>", "answers@x.example", "ada@x.example")


def test_bodies_signature_and_files_arrive_as_they_were_given() -> None:
    octets = bytes(range(256))
    attached = [{"name": 'Größe "1".pdf', "type": "application/pdf", "base64": base64.b64encode(octets).decode()}]
    mail = sent(text="Grüße €\n.\nFrom me", html="<body><p>ä</p></BODY>", attachments=attached, subject="Größe €" * 30)
    assert mail["Subject"] == "Größe €" * 30
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None and html is not None
    assert text.get_content().replace("\r\n", "\n") == "Grüße €\n.\nFrom me\n-- \nYours\n"
    assert html.get_content().strip() == "<body><p>ä</p><p>Yours</p></BODY>"
    (file,) = mail.iter_attachments()
    assert (file.get_filename(), file.get_content()) == ('Größe "1".pdf', octets)


def test_who_gets_only_copies_is_disclosed_to_nobody() -> None:
    mail = sent(to=None, bcc=["a@x.example", "b@x.example"])
    assert (mail["To"], mail["Cc"]) == ("undisclosed-recipients:;", None)


def test_the_thread_goes_on_and_does_not_grow_for_ever() -> None:
    many = [f"<{number}@x>" for number in range(100)]
    mail = sent(in_reply_to="<last@x>", references=many)
    assert mail["In-Reply-To"] == "<last@x>"
    chain = mail["References"].split()
    assert (len(chain), chain[0], chain[-2], chain[-1]) == (REFERENCES, "<0@x>", "<99@x>", "<last@x>")
    assert sent(references=["<a@x>"])["In-Reply-To"] == "<a@x>"


@pytest.mark.parametrize(
    ("written", "address", "name"),
    [
        ("ada@x.example", "ada@x.example", ""),
        ("Ada Lövelace <ada@BÜCHER.example>", "ada@xn--bcher-kva.example", "Ada Lövelace"),
        ('"Doe, J." <doe@x.example>', "doe@x.example", "Doe, J."),
        ('"a@b"@x.example', '"a@b"@x.example', ""),
        ("=?utf-8?q?b=C3=B6b?= <bob@[192.0.2.1]>", "bob@[192.0.2.1]", "böb"),
    ],
)
def test_addresses_as_people_write_them_are_sent_right(written: str, address: str, name: str) -> None:
    letter = letter_of({**PLAIN, "to": [written]})
    assert letter.recipients == (address,)
    assert letter.to[0].name == name
    mail = read(letter_octets(letter, SENDER, message_id="<m@x>", at=AT))
    assert [(one.addr_spec, one.display_name) for one in mail["To"].addresses] == [(address, name)]


def test_an_address_of_which_only_the_local_part_is_not_ascii_is_left_to_smtputf8() -> None:
    octets = letter_octets(letter_of({**PLAIN, "to": "bücher@x.example"}), SENDER, message_id="<m@x>", at=AT)
    assert "To: bücher@x.example\r\n".encode() in octets


@pytest.mark.parametrize(
    "address",
    [
        "ada@x.example\r\nBcc: all@x.example", "ada@x.example\nX: y", "ada", "ada@", "@x.example", "a b@x.example",
        "ada@x.example, ", "ada@x..example", "ada@-x.example", "ada@x.example\0", "a..b@x.example", ".a@x.example",
        '"a b"@x.example', f"{'a' * 65}@x.example", f"a@{'x' * 64}.example", f"a@{'x.' * 130}example", "ada@x_y",
        "<ada@x.example", "ada@x.example>", "ada@\u2028x.example", "ada@x.example\x85", "a@\udc80.example", 7, ["x"],
        {"address": "a@x.example"}, "ada@[x]", "ada@xn--\u2260.example", "group: a@x.example, b;",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_or_harmless(address: Any) -> None:
    try:
        letter = letter_of({**PLAIN, "to": [address]})
    except EntryRefused:
        return
    octets = letter_octets(letter, SENDER, message_id="<m@x>", at=AT)
    assert letter.recipients == ("ada@x.example",)
    assert read(octets)["To"].addresses[0].addr_spec == "ada@x.example"


@pytest.mark.parametrize(
    "bad", ["a\r\nBcc: b@x.example", "a\nb", "a\rb", "a\0b", "a\x0bb", "a\u2028b", "a\ud800b", "a\x85"]
)
@pytest.mark.parametrize("field", ["subject", "in_reply_to", "references", "to", "cc", "bcc"])
def test_no_field_can_begin_another_one(field: str, bad: str) -> None:
    with pytest.raises(EntryRefused):
        letter_of({**PLAIN, field: bad})
    with pytest.raises(EntryRefused):
        letter_of({**PLAIN, field: [bad]})


@pytest.mark.parametrize("bad", ["a\r\nX: y", "a\0", "a\ud800"])
def test_nor_can_an_attachment(bad: str) -> None:
    with pytest.raises(EntryRefused):
        letter_of({**PLAIN, "attachments": [{"name": bad, "base64": ""}]})
    with pytest.raises(EntryRefused):
        letter_of({**PLAIN, "attachments": [{"name": "a", "type": bad, "base64": ""}]})


@pytest.mark.parametrize(
    "entry",
    [
        {"to": "ada@x.example"},
        {**PLAIN, "text": "a\0"},
        {**PLAIN, "text": "\ud800"},
        {**PLAIN, "text": 7},
        {**PLAIN, "html": ["x"]},
        {**PLAIN, "subject": "a" * 3000},
        {**PLAIN, "attachments": "x"},
        {**PLAIN, "attachments": [{"base64": "?"}]},
        {**PLAIN, "attachments": [{"base64": "QQ", "path": "/etc/passwd"}]},
        {**PLAIN, "attachments": [{}]},
        {**PLAIN, "attachments": [{"base64": ""}] * 101},
        {**PLAIN, "from": "ceo@x.example"},
        {**PLAIN, "message_id": "<a@b>"},
        {**PLAIN, "a\r\nb": 1},
        {**PLAIN, "in_reply_to": "a@b"},
        {**PLAIN, "references": ["<a@b> <c@d>", "<" + "a" * 1000 + ">"]},
    ],
)
def test_what_cannot_be_sent_as_it_is_is_refused_with_a_reason(entry: dict[str, Any]) -> None:
    with pytest.raises(EntryRefused) as caught:
        letter_of(entry)
    assert str(caught.value)


def test_what_cannot_be_encoded_goes_along_as_a_file() -> None:
    inner = base64.b64encode(b"Subject: x\r\n\r\nbody").decode()
    (file,) = sent(attachments=[{"name": "a.eml", "type": "message/rfc822", "base64": inner}]).iter_attachments()
    assert file.get_content_type() == "application/octet-stream"


def test_long_and_odd_subjects_survive() -> None:
    for subject in ("a" * 1900, "word " * 300, "=?utf-8?q?not_encoded?=", 'Re: [#17] "x" <y>', ""):
        assert (sent(subject=subject)["Subject"] or "") == subject.strip()


def test_ten_thousand_recipients_are_read_in_no_time() -> None:
    assert len(letter_of({**PLAIN, "to": ", ".join(f"a{n}@x.example" for n in range(10_000))}).recipients) == 10_000


GIVEN = (
    b"From: ceo@x.example\nTo: Bob <bob@x.example>,\n\tada@x.example\nBcc: secret@x.example\n"
    b"Subject: =?utf-8?q?=C3=A4?=\n"
    b"Message-ID: <theirs@x>\nDate: Thu, 1 Jan 1970 00:00:00 +0000\nReceived: from a\n by b\nResent-From: c@x.example\n"
    b"Auto-Submitted: auto-generated\nX-Mailpoller-Loop: 1\nX-Ours: 7\nReferences: <a@x> <b@x>\nIn-Reply-To: <b@x>\n"
    b"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"
    b"\nGr\xc3\xbc\xc3\x9fe\n"
)


def test_a_whole_mail_keeps_its_body_and_gets_our_sender() -> None:
    given = given_mail(GIVEN)
    assert given.letter.recipients == ("bob@x.example", "ada@x.example", "secret@x.example")
    octets = given.octets(SENDER, message_id="<m@x.example>", at=AT)
    mail = read(octets)
    assert mail.get_content().strip() == "Grüße"
    assert (mail["Message-ID"], mail["X-Ours"], mail["References"]) == ("<m@x.example>", "7", "<a@x> <b@x>")
    assert mail["From"].addresses[0].addr_spec == "support@xn--bcher-kva.example"
    for gone in (b"ceo@", b"theirs@", b"secret@", b"1970", b"Received", b"Resent", b"Auto-Submitted", b"Loop"):
        assert gone not in octets
    assert octets.count(b"MIME-Version") == octets.count(b"\r\nDate:") == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"no header at all",
        b"To: a@x.example\n\n" + b"x" * 1000 + b"\n",
        b"To: a@x.example\n\na\0b\n",
        b"To: a@x.example\nno field\n\nx\n",
        b"To: a@x.example\xff\n\nx\n",
        b"To: none of these\n\nx\n",
        b" To: a@x.example\n\nx\n",
        b"To: a@x.example\n" + b"X: y\n" * 501 + b"\nx\n",
    ],
)
def test_a_whole_mail_that_is_none_is_refused(octets: bytes) -> None:
    with pytest.raises(EntryRefused):
        given_mail(octets)


@pytest.mark.parametrize("to", ["To :ada@x.example", "To\t: a <ada@x.example>", "CC : Ada <@a,@b:ada@x.example>"])
def test_a_service_that_goes_by_the_header_never_sends_to_somebody_else(to: str) -> None:
    given = given_mail(f"{to}\nSubject: x\n\nbody\n".encode())
    octets = given.octets(SENDER, message_id="<m@x>", at=AT)
    test = "diverted@x.example"
    with pytest.raises(MessageRejected):
        addressed(Mail("support@x.example", (test,), octets, ""))
    turned = diverted(octets, test)
    assert addressed(Mail("support@x.example", (test,), turned, "")) == turned
    assert read(turned)["To"].addresses[0].addr_spec == test and turned.endswith(octets.partition(b"\r\n\r\n")[2])


def test_a_line_break_that_a_service_may_see_names_nobody_when_mail_is_diverted() -> None:
    turned = diverted(b"X: y\rTo: ada@x.example\r\nto\t:\r\n ada@x.example\r\n\r\nTo: body\r\n", "test@x.example")
    assert turned.endswith(b"X-Diverted-to:\r\n ada@x.example\r\n\r\nTo: body\r\n")
    with pytest.raises(MessageRejected):
        addressed(Mail("support@x.example", ("test@x.example",), turned, ""))


@pytest.mark.parametrize("to", ["ada@bücher.example", "Ada <ada@BÜCHER.example>", "jürgen@x.example", "Ü <u@x.ex>"])
def test_a_service_that_goes_by_the_header_takes_whom_it_names_in_any_script(to: str) -> None:
    given = given_mail(f"To: {to}\nSubject: x\n\nbody\n".encode())
    octets = given.octets(SENDER, message_id="<m@x>", at=AT)
    assert addressed(Mail("support@x.example", given.letter.recipients, octets, "")) == octets


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("Re: order", "Re: order"),
        ("order", "order"),
        ("RE: AW: Re[2]: SV: order", "Re: order"),
        ("回复：Re: 订单", "Re: 订单"),
        ("Re: Fwd: order", "Re: Fwd: order"),
        ("Reorder: 7", "Reorder: 7"),
        ("Antw: Odp: YNT: RES: x", "Re: x"),
        ("Re:", "Re: "),
        ("", ""),
    ],
)
def test_a_subject_is_answered_once_in_any_language(subject: str, expected: str) -> None:
    assert once_answered(subject) == expected


def test_a_subject_of_nothing_but_answers_takes_no_time() -> None:
    assert once_answered("Re: " * 500).startswith("Re: Re: ")


def test_a_whole_mail_without_recipients_names_those_that_it_is_given() -> None:
    given = given_mail(b"Subject: x\n\nbody\n")
    letter = letter_of({"to": "Ada <ada@x.example>", "text": ""})
    mail = read(given.octets(SENDER, message_id="<m@x>", at=AT, letter=letter))
    assert [one.addr_spec for one in mail["To"].addresses] == ["ada@x.example"]
