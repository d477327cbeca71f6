"""The message builders make what their names say, and the parser reads it."""

from __future__ import annotations

import pytest

from mailpoller.core.message import Address, Claim, Folder, Message, MessageRef, RawMessage
from mailpoller.core.spool import Octets
from mailpoller.mail.parser import parse
from mailpoller.testing import builders


def parsed(octets: bytes) -> Message:
    return parse(RawMessage(Claim(MessageRef(Folder("support", "INBOX", "1"), "1"), "mid"), Octets.of(octets)))


@pytest.mark.parametrize(
    "build", [builders.plain, builders.html, builders.with_attachment, builders.auto_reply, builders.bounce]
)
def test_built_messages_have_crlf_line_ends_only_and_no_defects(build):
    octets = build()
    assert octets.count(b"\n") == octets.count(b"\r\n") == octets.count(b"\r")
    message = parsed(octets)
    assert message.body.text
    assert message.defects == ()


def test_same_arguments_make_the_same_octets():
    assert builders.with_attachment(markup="<p>x</p>") == builders.with_attachment(markup="<p>x</p>")


def test_plain_message_is_read_as_it_was_built():
    message = parsed(
        builders.plain(subject="Grüße 🎉", text="Zeile\n", sender="Ä B <a@b.example>", headers={"X-Team": "red"})
    )
    assert message.subject == "Grüße 🎉"
    assert message.from_ == (Address("Ä B", "a@b.example"),)
    assert message.header("x-team") == ["red"]
    assert message.body.text == "Zeile\n"
    assert message.auto is None


def test_attachment_is_read_as_it_was_built():
    body = parsed(builders.with_attachment(markup="<p>x</p>", name="Vertrag für Müller.pdf", content=b"abc")).body
    assert body.html.strip() == "<p>x</p>"
    (attachment,) = body.attachments
    assert (attachment.name, attachment.content_type, attachment.size) == (
        "Vertrag für Müller.pdf",
        "application/pdf",
        3,
    )
    assert attachment.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_automatic_mail_is_recognised():
    assert parsed(builders.auto_reply()).auto == "auto-submitted"
    assert parsed(builders.bounce()).auto == "null-return-path"


def test_broken_message_still_has_a_subject_and_a_text():
    message = parsed(builders.broken())
    assert message.subject == "Grüße from a broken mailer"
    assert message.body.text == "The text\ufffd arrives, ümlauts and all."
    assert [a.name for a in message.body.attachments] == ["passwd"]
    assert {"header-line-malformed", "date-malformed", "charset-unknown", "boundary-unclosed", "nul"} <= set(
        message.defects
    )
