"""What kind of mail it is: every class found by its evidence, and no person taken for a program."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import labelled
import odd_mail
from labelled.bounces import report
from labelled.made import mail, multipart
from mailpoller.core.classification import MAIL_CLASSES, BouncedRecipient, Classification
from mailpoller.core.verdict import Deliver
from mailpoller.mail.event import EventRenderer
from mailpoller.mail.understand import subjects
from mailpoller.mail.understand.delivery_status import RECIPIENTS_KEPT, read_delivery_status
from odd_mail.reading import NOW, read
from pace import paced

MAILS = labelled.mails()
LEAST = {
    "bounce": 0.98, "auto-reply": 0.95, "challenge": 0.95, "list": 0.98, "bulk": 0.95, "auto-generated": 0.95,
    "report": 0.95, "calendar": 0.95, "human": 1.0,
}  # fmt: skip


def classified(octets: bytes) -> Classification:
    return read(octets).classification


def event_of(octets: bytes, payload: str = "parsed") -> dict:
    renderer = EventRenderer(read(octets), verdict=Deliver(("q",)), source="mailpoller/support", now=NOW)
    return json.loads(renderer.render(queue="q", delivery_id="d", payload=payload).structured())["data"]  # type: ignore[arg-type]


# --- the labelled mails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAIL_CLASSES)
def test_class_is_found(kind):
    own = [(name, classified(octets)) for label, name, octets in MAILS if label == kind]
    missed = [(name, said) for name, said in own if said.kind != kind]
    print(f"{kind}: {len(own) - len(missed)} of {len(own)}")
    assert len(own) - len(missed) >= LEAST[kind] * len(own), missed


def test_there_are_mails_of_every_class_and_in_many_languages():
    labels = Counter(label for label, _, _ in MAILS)
    assert labels.keys() == set(MAIL_CLASSES)
    assert sum(labels.values()) > 300
    assert len({(label, name) for label, name, _ in MAILS}) == len(MAILS)


def test_no_person_is_taken_for_a_program():
    people = [(name, octets) for label, name, octets in MAILS if label == "human"]
    assert [(name, said) for name, octets in people if (said := classified(octets)).kind != "human"] == []
    assert len(people) > 60


def test_everybody_else_has_evidence_and_a_person_has_none():
    for label, name, octets in MAILS:
        said = classified(octets)
        assert bool(said.evidence) is (said.kind != "human"), (label, name)
        assert all(word.replace("-", "").isalnum() for word in said.evidence)
        assert (said.bounce is not None) is (said.kind == "bounce")


# --- order of the evidence -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "kind", "subclass", "evidence"),
    [
        ({"List_Id": "<a.b>", "Auto_Submitted": "auto-replied"}, "auto-reply", "answer", "auto-submitted"),
        ({"List_Id": "<a.b>", "Auto_Submitted": "auto-generated"}, "list", "", "list-id"),
        ({"List_Unsubscribe": "<x:y>", "Auto_Submitted": "auto-generated"}, "auto-generated", "", "auto-submitted"),
        ({"Return_Path": "<>"}, "auto-reply", "null-return-path", "null-return-path"),
        ({"Return_Path": "<>", "List_Id": "<a.b>"}, "list", "", "list-id"),
        ({"Return_Path": "<>", "From": "MAILER-DAEMON@x.example"}, "bounce", "hard", "from-daemon"),
        ({"From": "MAILER-DAEMON@x.example", "Auto_Submitted": "auto-replied"}, "bounce", "hard", "from-daemon"),
        ({"From": "mailer-daemon@x.example", "Subject": "Out of Office: x"}, "auto-reply", "absence",
         "subject-absence"),
        ({"Auto_Submitted": "no", "Subject": "Out of Office next week"}, "human", "", None),
        ({"Auto_Submitted": "(auto-replied) no"}, "human", "", None),
    ],
)  # fmt: skip
def test_stronger_evidence_decides(fields, kind, subclass, evidence):
    said = classified(mail(**fields))
    assert (said.kind, said.subclass) == (kind, subclass)
    assert said.evidence[:1] == (() if evidence is None else (evidence,))


def test_words_in_a_text_are_no_evidence():
    """People quote them: what counts stands in the header, or in a report."""
    for label, name, octets in MAILS:
        body = octets.partition(b"\r\n\r\n")[2].decode()
        assert classified(mail(body)).kind == "human", (label, name)


def test_a_report_that_somebody_attaches_is_no_report_of_ours():
    status = "Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822;joe@example.net\nAction: failed\n"
    body = multipart("mixed", "Content-Type: text/plain\n\nWhat is this?\n", status)
    for fields in ({}, {"Auto_Submitted": "no"}):  # the second is looked at more closely
        assert classified(mail(body, Content_Type="multipart/mixed; boundary=b", **fields)).kind == "human"


@pytest.mark.parametrize(
    ("first", "told"),
    [
        ("Original-Envelope-Id: a1b2\nReporting-MTA: dns; mx.example.net\n\n", "a1b2"),
        ("Reporting-MTA: dns; mx.example.net\n\n", ""),
        ("Reporting-MTA: dns; mx.example.net\n\nFinal-Recipient: rfc822;x@y\nOriginal-Envelope-Id: late\n\n", ""),
    ],
)
def test_a_bounce_says_what_the_relay_was_told_to_call_the_message(first, told):
    status = (
        f"Content-Type: message/delivery-status\n\n{first}Final-Recipient: rfc822;joe@example.net\nAction: failed\n"
    )
    body = multipart("report", "Content-Type: text/plain\n\nSorry\n", status)
    found = classified(mail(body, Content_Type="multipart/report; report-type=delivery-status; boundary=b"))
    assert found.kind == "bounce" and found.bounce.envelope_id == told


def test_a_subject_counts_at_its_beginning_only():
    for language in ("Automatic reply", "Abwesenheitsnotiz", "Réponse automatique", "自动答复", "Автоответ"):
        assert classified(mail(Subject=f"{language}: x")).kind == "auto-reply"
        assert classified(mail(Subject=f"Re: {language}: x")).kind == "human"
        assert classified(mail(Subject=f"What is {language}: x")).kind == "human"
        assert classified(mail(Subject=f"{language} is broken")).kind == "human"


# --- what a bounce tells ---------------------------------------------------------------------------------------------

BOUNCES = [(name, octets) for label, name, octets in MAILS if label == "bounce"]


@pytest.mark.parametrize(("name", "octets"), BOUNCES, ids=[name for name, _ in BOUNCES])
def test_bounce_names_the_recipient(name, octets):
    bounce = classified(octets).bounce
    assert bounce is not None
    assert [recipient.final_recipient for recipient in bounce.recipients] == ["joe@example.net"]
    assert bounce.recipient == "joe@example.net"


@pytest.mark.parametrize(("name", "octets"), BOUNCES, ids=[name for name, _ in BOUNCES])
def test_bounce_names_the_message_that_it_returns(name, octets):
    bounce = classified(octets).bounce
    assert bounce is not None
    if b"orig-4711" in octets:
        assert bounce.message_id == "<orig-4711@example.com>"
    if b"Your ticket 4711" in octets.partition(b"\r\n\r\n")[2]:
        assert bounce.subject == "Your ticket 4711"


def test_fields_of_a_delivery_status_are_told_per_recipient():
    said = classified(report())
    assert said.bounce is not None
    (recipient,) = said.bounce.recipients
    assert recipient == BouncedRecipient(
        "joe@example.net", "joe@example.net", "failed", "5.1.1", "550 5.1.1 <joe@example.net>: unknown user",
        "mx.example.net",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("action", "status", "subclass"),
    [("failed", "5.1.1", "hard"), ("failed", "4.4.7", "soft"), ("delayed", "4.4.1", "delayed"),
     ("delivered", "2.0.0", "success"), ("relayed", "2.1.5", "success"), ("expanded", "2.0.0", "success"),
     ("FAILED (bad)", "5.2.2 (full)", "hard")],
)  # fmt: skip
def test_subclass_of_a_bounce_is_what_became_of_the_message(action, status, subclass):
    assert classified(report(action, status, diagnostic="smtp; x")).subclass == subclass


def test_the_worst_of_several_recipients_counts():
    octets = report().replace(b"Action: failed", b"Action: delivered").replace(b"Status: 5.1.1", b"Status: 2.0.0")
    more = b"\r\nFinal-Recipient: rfc822; ann@example.net\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    said = classified(octets.replace(b"unknown user\r\n", b"unknown user\r\n" + more))
    assert said.bounce is not None
    assert [r.action for r in said.bounce.recipients] == ["delivered", "failed"]
    assert said.subclass == "hard"


def test_a_delivery_status_is_read_as_it_is_written():
    (folded, spaced) = read_delivery_status(
        b"Reporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822;\r\n joe@example.net\r\nAction: failed\r\n"
        b"Diagnostic-Code: smtp;\r\n\t550 5.7.1\r\n\tno\r\n \r\nOriginal-Recipient: RFC822;a+2Bb@example.net\r\n"
        b"Final-Recipient: <ann@example.net>\r\nACTION : delayed\r\n"
    )
    assert (folded.final_recipient, folded.status, folded.diagnostic) == ("joe@example.net", "5.7.1", "550 5.7.1 no")
    assert (spaced.final_recipient, spaced.original_recipient) == ("ann@example.net", "a+b@example.net")
    assert spaced.action == "delayed"
    many = b"\n\n".join(b"Final-Recipient: rfc822; a%d@example.net\nAction: failed" % n for n in range(5000))
    assert len(read_delivery_status(many)) == RECIPIENTS_KEPT


def test_each_recipient_in_a_text_has_its_own_words():
    text = (
        "These failed:\n\n<joe@example.net>:\n550 5.1.1 unknown\n<ann@example.net>: 452 4.2.2 full\n"
        "<tim@example.net>:\n\n--- Below this line is a copy of the message.\n"
    )
    said = classified(mail(text, From="MAILER-DAEMON@x.example", Subject="failure notice"))
    assert said.bounce is not None
    assert [(r.final_recipient, r.status, r.diagnostic) for r in said.bounce.recipients] == [
        ("joe@example.net", "5.1.1", "550 5.1.1 unknown"),
        ("ann@example.net", "4.2.2", "452 4.2.2 full"),
        ("tim@example.net", "", ""),
    ]
    assert said.subclass == "hard"


def test_a_bounce_without_a_copy_is_found_by_what_it_answers():
    octets = mail("x\n", From="MAILER-DAEMON@x.example", In_Reply_To="<orig-1@example.com>")
    bounce = classified(octets).bounce
    assert bounce is not None
    assert bounce.message_id == "<orig-1@example.com>"


# --- the event -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", ["summary", "parsed", "raw"])
def test_event_says_the_class_at_every_payload_level(payload):
    data = event_of(report(), payload)
    assert data["classification"]["class"] == "bounce"
    assert data["classification"]["subclass"] == "hard"
    assert data["bounce"]["original"] == {
        "message_id": "<orig-4711@example.com>", "recipient": "joe@example.net", "subject": "Your ticket 4711",
    }  # fmt: skip
    assert data["bounce"]["recipients"][0]["status"] == "5.1.1"
    person = event_of(mail(), payload)
    assert person["classification"] == {"class": "human", "subclass": "", "evidence": []}
    assert person["bounce"] is None


def test_a_class_needs_no_body_and_reading_a_bounce_leaves_its_defects_untold():
    octets = report().replace(b"--b--", b"")
    message = read(octets)
    assert message.classification.kind == "bounce"
    assert message.defects == ()  # of the body, as long as nobody read it
    assert message.body.defects == ("boundary-unclosed",)


# --- bounds ----------------------------------------------------------------------------------------------------------

HEADS = (
    b"From: MAILER-DAEMON@x.example\r\nSubject: failure notice\r\n",
    b"From: a@b.c\r\nContent-Type: multipart/report; boundary=b\r\n",
    b"From: a@b.c\r\nSubject: [x] Re: hi\r\nAuto-Submitted: auto-generated\r\n",
)
PIECES = (
    b"@", b"a@", b"a@b ", b"<a@b.c>\r\n", b"a" * 64 + b"@", b"aaaa", b" ", b"-", b"> ", b"From: a\r\n", b"<", b"<a",
    b"Final-Recipient: rfc822;a@b.c\r\n", b"Status: 5.1.1\r\n\r\n", b"(", b"\r\n", b"550 ", b"will be re", b"[",
    b"Re: ",
    b"x@" + b"a.-" * 20, b"out of office: ", b"!1", b"a.b@c.d.e.f.g\r\n\r\n",
)  # fmt: skip
TYPES = (b"", b"--b\r\nContent-Type: message/delivery-status\r\n\r\n", b"--b\r\nContent-Type: text/html\r\n\r\n",
         b"--b\r\n\r\nx\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n")  # fmt: skip
FIELDS = (b"Subject", b"From", b"Auto-Submitted", b"Precedence", b"X-Failed-Recipients", b"Content-Type",
          b"Content-Disposition", b"Return-Path", b"Delivered-To", b"User-Agent")  # fmt: skip
SECONDS = 0.05 * 3  # of processor time for 100 KB; three times, since other tests run beside this one


def seconds(octets):
    """What a classification costs of the processor."""
    message = read(octets)
    began = time.process_time()
    message.classification  # noqa: B018
    return time.process_time() - began


@pytest.mark.parametrize("head", HEADS)
def test_a_hundred_kilobytes_of_anything_are_classified_in_time(head):
    for piece in PIECES:
        filling = piece * (100_000 // len(piece))
        in_a_field = filling.replace(b"\r\n", b" ")
        made = [head + b"\r\n" + kind + filling for kind in TYPES]
        made += [field + b": " + in_a_field + b"\r\n" + head + b"\r\nhi" for field in FIELDS]
        for octets in made:
            # Whatever else this process does counts too, so what was slow is tried again.
            assert any(seconds(octets) < SECONDS for _ in range(3)), (piece, octets[:60])


def test_odd_mail_is_classified_in_time():
    for name, octets in odd_mail.files().items():
        assert classified(octets).kind in MAIL_CLASSES, name
    for name in ("million-fields", "10000-parts", "2000-nested-multiparts", "text-of-10-megabytes"):
        message = read(odd_mail.MADE[name]())
        began = time.process_time()
        assert message.classification.kind == "human"
        assert time.process_time() - began < paced(SECONDS), name


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_mail_never_makes_it_raise(data):
    _, _, octets = data.draw(st.sampled_from(MAILS))
    damaged = bytearray(octets)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged)))
        damaged[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=6))
    said = event_of(bytes(damaged), "summary")["classification"]
    assert said["class"] in MAIL_CLASSES


def test_no_phrase_is_cut_short_by_a_gateways_tag():
    assert subjects.folded("[EXTERNAL] ***SPAM*** Automatic  Reply: x") == "automatic reply: x"
    assert subjects.folded("[#4711] Re: x") == "re: x"


# --- notices of Amazon's sending service -----------------------------------------------------------------------------


def notice(text: str) -> Classification:
    return classified(mail(text, From="no-reply@sns.example.net", x_amz_sns_message_id="1"))


def test_a_notice_tells_of_its_recipients_and_of_the_message():
    said = notice(
        '{"Type":"Notification","Message":"{\\"notificationType\\":\\"Bounce\\",\\"bounce\\":{\\"bounceType\\":'
        '\\"Transient\\",\\"bouncedRecipients\\":[{\\"emailAddress\\":\\"joe@example.net\\",\\"diagnosticCode\\":'
        '\\"smtp; 452 full\\"}]},\\"mail\\":{\\"messageId\\":\\"4711\\",\\"destination\\":[\\"joe@example.net\\"]}}"}'
    )
    assert (said.kind, said.subclass, said.evidence) == ("bounce", "soft", ("x-amz-sns-message-id",))
    assert said.bounce is not None
    assert said.bounce.recipients == (BouncedRecipient("joe@example.net", "", "failed", "4.0.0", "452 full"),)
    assert said.bounce.message_id == "<4711@email.amazonses.com>"


@pytest.mark.parametrize(
    ("text", "kind", "subclass"),
    [
        ('{"eventType":"DeliveryDelay","deliveryDelay":{"delayedRecipients":[]}}', "bounce", "delayed"),
        ('{"eventType":"Delivery","delivery":{"recipients":["joe@example.net"]}}', "bounce", "success"),
        ('{"eventType":"Complaint"}', "report", "arf"),
        ('{"eventType":"Open"}', "human", ""),
        ('{"eventType":["Bounce"],"bounce":7}', "human", ""),
        ('{"eventType":"Bounce","bounce":7,"mail":[]}', "bounce", "hard"),
        ('{"eventType":"Bounce","bounce":{"bouncedRecipients":{"a":1}},"mail":{"destination":[7]}}', "bounce", "hard"),
        ("[" * 60_000, "human", ""),
        ("words", "human", ""),
    ],
)
def test_a_notice_is_what_it_tells_whatever_it_is_made_of(text, kind, subclass):
    said = notice(text)
    assert (said.kind, said.subclass) == (kind, subclass)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"Auto_Submitted": "auto-generated", "Subject": "Jane Doe is out of the office."}, "auto-reply"),
        ({"Auto_Submitted": "auto-generated", "Subject": "Joe Miller is out of the office."}, "auto-generated"),
        ({"Auto_Submitted": "auto-generated", "Subject": "AUTO: backup finished (2026-03-14)"}, "auto-generated"),
        ({"Subject": "Jane Doe is out of the office."}, "human"),
        ({"Sender": "owner-users@lists.example.org", "Precedence": "bulk"}, "list"),
        ({"Sender": "owner-users@lists.example.org"}, "human"),
        ({"Sender": "news@example.org", "Precedence": "bulk"}, "bulk"),
        ({"Subject": "Complaint about message from 192.0.2.1"}, "report"),
        ({"Subject": "Complaint about message from your driver"}, "human"),
    ],
)
def test_what_a_program_writes_is_told_from_what_is_told_of_people(fields, kind):
    assert classified(mail(**fields)).kind == kind


def test_the_subject_that_a_gateway_quotes_is_read_with_its_apostrophe():
    body = "Your message to joe@example.net with the subject 'Jane's order' was rejected.\n"
    said = classified(mail(body, Return_Path="<>", From="MAILER-DAEMON@mx.example.net"))
    assert said.bounce is not None
    assert said.bounce.subject == "Jane's order"
