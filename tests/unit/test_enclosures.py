"""Attachments of what is handed in: none unless the mailbox allows them, and then of its types and size alone."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_outbox import ENTRY, SENDERS, Site

from mailpoller.assembly.senders import senders_of
from mailpoller.config import load
from mailpoller.config.problems import ConfigErrors
from mailpoller.core.body import Attachment
from mailpoller.core.enclosures import Enclosures
from mailpoller.core.errors import EntryRefused
from mailpoller.engine.senders import Answering, Senders
from mailpoller.testing.builders import with_attachment

PDF = b"%PDF-1.4 " + b"x" * 91
EXE = b"MZ" + b"\0" * 400
FILE = {"name": "a.pdf", "type": "application/pdf", "base64": b64encode(PDF).decode()}


def senders(allowed: Enclosures | None, *, by_default: Enclosures | None = None) -> Senders:
    """The mailbox ``help`` allows these, the default mailbox of its department those."""
    mailboxes = {
        **SENDERS.mailboxes,
        "help": Answering("support", ("root",), None, allowed),
        "first": Answering("support", ("root",), None, by_default),
        "other": Answering("second", ("root",), None, allowed),
    }
    identities = {**SENDERS.identities, "second": replace(SENDERS.identities["support"], name="second")}
    return replace(SENDERS, identities=identities, mailboxes=mailboxes, default_mailboxes={"root": "first"})


def whole(kind: str = "application/pdf", octets: bytes = PDF) -> dict[str, Any]:
    """A request with a whole mail."""
    mail = with_attachment(content=octets, content_type=kind)
    return {"entry": mail, "form": "mail", "choices": {"mailbox": "help"}}


def entry(**more: Any) -> dict[str, Any]:
    return {"entry": json.dumps({**ENTRY, "mailbox": "help", "attachments": [FILE], **more}).encode()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("request_", [entry(), whole(), entry(attachments=[{"base64": ""}])])
async def test_no_attachment_leaves_a_mailbox_that_does_not_allow_it(site: Site, request_: dict[str, Any]) -> None:
    site.use(senders(None, by_default=Enclosures()))
    with pytest.raises(EntryRefused, match="help sends no attachments"):
        await site.hand_in(**request_)
    assert not site.kept and not await site.ledger.outbox_list(limit=1)
    await site.hand_in({**ENTRY, "mailbox": "help"})
    site.use(senders(Enclosures()))
    await site.hand_in(**request_)


async def test_a_file_within_a_text_that_is_handed_in_whole_is_an_attachment(site: Site) -> None:
    site.use(senders(None))
    mail = b"To: ada@x.example\r\nSubject: x\r\n\r\nHello\r\nbegin 644 a.exe\r\n#0V%T\r\n`\r\nend\r\n"
    with pytest.raises(EntryRefused, match="no attachments"):
        await site.hand_in(mail, form="mail", choices={"mailbox": "help"})
    await site.hand_in(mail.replace(b"begin 644", b"beginning"), form="mail", choices={"mailbox": "help"})


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (entry(), ""),
        (whole(), ""),
        (entry(attachments=[{**FILE, "type": ""}]), ""),  # it says nothing, and is one
        (entry(attachments=[{**FILE, "type": "text/csv"}]), "text/csv"),
        (entry(attachments=[{**FILE, "base64": b64encode(EXE).decode()}]), "portable-executable"),
        (whole("application/pdf", EXE), "portable-executable"),
        (whole("image/svg+xml", b"<svg/>"), "image/svg"),
        (entry(attachments=[FILE, FILE]), ""),
        (entry(attachments=[FILE, FILE, FILE]), "300 octets"),
    ],
)
async def test_an_attachment_is_of_the_allowed_types_by_its_word_and_by_its_octets(
    site: Site, request_: dict[str, Any], reason: str
) -> None:
    site.use(senders(Enclosures(frozenset(("application/pdf", "audio/*")), 210)))
    if reason:
        with pytest.raises(EntryRefused, match=reason):
            await site.hand_in(**request_)
        assert not site.kept
    else:
        await site.hand_in(**request_)


def test_a_kind_of_types_is_allowed_as_a_whole() -> None:
    allowed = Enclosures(frozenset(("image/*",)))
    assert not allowed.objection([Attachment("a.png", "IMAGE/png", 1, "")])
    assert allowed.objection([Attachment("a.png", "imagery/png", 1, "")])


async def test_mail_that_answers_nothing_follows_the_default_mailbox_of_its_department(site: Site) -> None:
    site.use(senders(Enclosures()))
    with pytest.raises(EntryRefused, match="first sends no attachments"):
        await site.hand_in({**ENTRY, "attachments": [FILE]})
    site.use(senders(None, by_default=Enclosures()))
    await site.hand_in({**ENTRY, "attachments": [FILE]})
    site.use(replace(senders(None, by_default=Enclosures()), default_mailboxes={}))
    with pytest.raises(EntryRefused, match="default mailbox of root"):
        await site.hand_in({**ENTRY, "attachments": [FILE]})


async def test_who_names_a_mailbox_and_another_identity_gets_no_more_than_both_allow(site: Site) -> None:
    site.use(senders(Enclosures()))
    claimed = {**ENTRY, "attachments": [FILE], "mailbox": "help"}
    await site.hand_in(claimed)
    with pytest.raises(EntryRefused, match="first sends no attachments"):
        await site.hand_in({**claimed, "identity": "second"})


TEXT = """\
queues: {q: {type: maildir, path: /var/q}}
outgoing: {relay: {type: smtp, host: relay.example.com, sender: system@example.com}}
mailboxes:
  a: {type: imap, host: h.example.com, username: a, password: p, default_for: [root], default_queue: q, SAID}
  b: {type: imap, host: h.example.com, username: b, password: p, default_queue: q}
"""


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ("trusted: true", None),
        ("trusted: true, outbound_attachments: true", Enclosures()),
        (
            "trusted: true, outbound_attachments: {types: [Image/*], max_size: 1MB}",
            Enclosures(frozenset(("image/*",)), 1_000_000),
        ),
    ],
)
def test_a_mailbox_says_which_attachments_it_sends(tmp_path: Path, said: str, allowed: Enclosures | None) -> None:
    file = tmp_path / "mailpoller.yaml"
    file.write_text(TEXT.replace("SAID", said))
    found = senders_of(load(file))
    assert (found.mailboxes["a"].enclosures, found.mailboxes["b"].enclosures) == (allowed, None)
    assert found.default_mailboxes == {"root": "a"}


def test_a_mailbox_that_is_not_trusted_and_sends_attachments_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "mailpoller.yaml"
    file.write_text(TEXT.replace("SAID", "outbound_attachments: true"))
    with pytest.raises(ConfigErrors, match="trusted: true"):
        load(file)
