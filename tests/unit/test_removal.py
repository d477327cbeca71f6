"""Attachments that go no further than the quarantine: which, what is told of them, and who cannot have such mail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from engine_rig import Rig, Routes, log  # noqa: F401

from mailpoller.config import Config, load
from mailpoller.config.problems import ConfigErrors
from mailpoller.core.body import Attachment, Body, Forwarded
from mailpoller.core.contents import Calendar
from mailpoller.core.removal import Removal
from mailpoller.core.source_config import SourceConfig
from mailpoller.testing.builders import plain, with_attachment
from mailpoller.testing.fake_sink import refusing


def attached(name: str = "a.pdf", kind: str = "application/pdf", **more: Any) -> Attachment:
    return Attachment(name, kind, 10, "00" * 32, start=5, end=15, **more)


def strip(*written: str) -> Removal:
    found = SourceConfig.model_validate({"type": "x", "attachments": {"strip": list(written)}}).removal()
    assert found is not None
    return found


# --- which ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("written", "one", "taken"),
    [
        (".exe", attached("Salary.PDF.EXE"), True),
        (".exe", attached("a.exe. "), True),  # Windows opens it all the same
        (".exe", attached("exe.pdf"), False),
        ("application/pdf", attached(kind="Application/PDF"), True),
        ("application/vnd.microsoft.portable-executable",
         attached(detected_type="application/vnd.microsoft.portable-executable"), True),
        ("image/*", attached(kind="image/png"), True),
        ("image/*", attached(kind="imagery/png"), False),
        ("macros", attached(macros=True), True),
        ("macros", attached(encrypted=True), False),
        ("encrypted", attached(encrypted=True), True),
    ],
)  # fmt: skip
def test_an_attachment_is_removed_by_what_it_calls_itself_and_by_what_it_is(
    written: str, one: Attachment, taken: bool
) -> None:
    assert strip(written).takes(one) is taken


def test_what_is_removed_is_told_and_cannot_be_cut_out_any_more() -> None:
    body, number = strip(".exe").applied(Body("text", "", (attached(), attached("b.exe"))))
    assert number == 1
    assert [(one.name, one.removed, one.start, one.size) for one in body.attachments] == [
        ("a.pdf", False, 5, 10),
        ("b.exe", True, 0, 10),
    ]


def test_what_lies_in_a_removed_box_or_message_is_removed_with_it() -> None:
    inner = Forwarded((), None, "", "secret", "", (attached("in.exe"),))
    tnef = (attached("winmail.dat", "application/ms-tnef"), attached("x.doc", within="tnef"))
    mail = attached("m.eml", "message/rfc822")
    body, number = strip("application/ms-tnef").applied(Body("", "", (*tnef, mail), forwarded=inner))
    assert [one.removed for one in body.attachments] == [True, True, False]
    assert (number, body.forwarded) == (2, inner)
    body, number = strip("message/rfc822").applied(Body("", "", (mail,), forwarded=inner))
    assert (number, body.forwarded) == (1, None)
    body, number = strip(".exe").applied(Body("", "", (mail,), forwarded=inner))
    assert (number, body.forwarded and body.forwarded.attachments[0].removed) == (1, True)
    body, number = Removal(every=True).applied(Body("", "", (mail,), forwarded=inner))
    assert (number, body.forwarded and body.forwarded.text) == (2, "secret")


def test_what_lies_in_further_messages_is_removed_with_them() -> None:
    mail = attached("m.eml", "message/rfc822")
    box = attached("winmail.dat", "application/ms-tnef", within="message")
    each = (mail, attached("own.doc", within="tnef"), box, attached("x.doc", within="message"))
    body, _ = strip("message/rfc822").applied(Body("", "", each))
    assert [one.removed for one in body.attachments] == [True, False, True, True]
    body, _ = strip("application/ms-tnef").applied(Body("", "", each))
    assert [one.removed for one in body.attachments] == [False, False, True, True]


def test_what_lies_in_a_removed_box_of_a_forwarded_message_is_removed_with_it() -> None:
    box = (attached("winmail.dat", "application/ms-tnef"), attached("x.doc", within="tnef"))
    ics = attached("i.ics", "text/calendar")
    inner = Forwarded((), None, "", "", "", (*box, ics), Calendar(uid="u"))
    body, number = strip("application/ms-tnef").applied(Body("", "", (), forwarded=inner))
    assert body.forwarded is not None and body.forwarded.calendar is not None
    assert (number, [one.removed for one in body.forwarded.attachments]) == (2, [True, True, False])
    body, number = strip("text/calendar").applied(Body("", "", (), forwarded=inner))
    assert (number, body.forwarded and body.forwarded.calendar) == (1, None)


@pytest.mark.parametrize("written", ["exe", "*.exe", "image", "image/", "*/*", ".a b", "", "Macros!"])
def test_what_no_attachment_can_be_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="strip"):
        SourceConfig.model_validate({"type": "x", "attachments": {"strip": [written]}})


# --- on its way -------------------------------------------------------------------------------------------------------
async def test_the_queue_gets_the_mail_and_the_quarantine_the_whole_of_it() -> None:
    rig = Rig(attachments="digest")
    rig.mailbox.deliver(with_attachment(subject="with"))
    rig.mailbox.deliver(plain(subject="without"))
    tally = await rig.carry()
    assert rig.subjects() == {"with": 1, "without": 1}
    (held,) = rig.sinks["quarantine"].held.values()
    assert (held.reason, held.detail) == ("attachments", "of 1 attachments 1 are here alone")
    assert tally.deferred == 0
    assert {row.outcome.kind for row in rig.ledger.store.messages.values() if row.outcome} == {"delivered"}


async def test_a_mailbox_that_is_trusted_keeps_its_attachments() -> None:
    rig = Rig(attachments="digest", trusted=True)
    rig.mailbox.deliver(with_attachment())
    await rig.carry()
    assert rig.subjects("quarantine") == {}


async def test_the_mailbox_is_not_told_before_the_quarantine_holds_it() -> None:
    rig = Rig(attachments={"strip": ["application/pdf"]})
    rig.sinks["quarantine"].doubt = refusing(["1"], permanent=False)
    rig.mailbox.deliver(with_attachment())
    await rig.carry()
    assert (rig.subjects().total(), rig.source.applied) == (1, [])
    rig.sinks["quarantine"].doubt = refusing([])
    rig.later(hours=5)
    await rig.carry()
    assert (rig.subjects().total(), rig.subjects("quarantine").total(), len(rig.source.applied)) == (1, 1, 1)


async def test_what_a_queue_refuses_is_quarantined_for_that_and_told() -> None:
    rig = Rig(rules=[Routes("with", "support", "archive")], attachments="digest")
    rig.sinks["archive"].doubt = refusing(["1"], "too ugly")
    rig.mailbox.deliver(with_attachment(subject="with"))
    await rig.carry()
    (held,) = rig.sinks["quarantine"].held.values()
    assert (held.reason, "too ugly" in held.detail) == ("refused", True)
    (row,) = rig.ledger.store.messages.values()
    assert row.outcome is not None
    assert row.outcome.kind == "quarantined"


# --- who cannot have such mail ----------------------------------------------------------------------------------------
QUEUES: dict[str, dict[str, Any]] = {
    "plain": {"type": "sqlite", "path": "/q.db"},
    "raw": {"type": "sqlite", "path": "/r.db", "raw": True},
    "payload": {"type": "jsonl", "path": "/p", "payload": "raw"},
    "maildir": {"type": "maildir", "path": "/m"},
    "smtp": {"type": "smtp", "to": "a@b.example"},
    "lmtp": {"type": "lmtp", "socket": "/s", "to": "a@b.example"},
    "imap": {"type": "imap", "host": "i.example", "username": "a", "password": "env:X"},
    "command": {"type": "command", "command": ["/bin/true"]},
    "events": {"type": "command", "command": ["/bin/true"], "stdin": "event"},
    "hook": {"type": "webhook", "url": "https://h.example/", "mode": "raw"},
    "hook-events": {"type": "webhook", "url": "https://h.example/"},
}


def config(tmp_path: Path, queue: str, then: dict[str, Any] | None = None, **mailbox: Any) -> Config:
    box = {"type": "maildir", "path": "/box", "default_queue": queue, "attachments": "digest", **mailbox}
    rules = [{"name": "r", "when": {"subject": "x"}, "then": then or {"tags": "x"}}]
    queues = {name: QUEUES[name] for name in {queue, "plain", (then or {}).get("queue", queue)}}
    file = tmp_path / "config.yaml"
    relay = {"type": "smtp", "host": "r.example", "sender": "a@b.example"}
    written = {"queues": queues, "rules": rules, "outgoing": {"relay": relay}}
    file.write_text(yaml.safe_dump({**written, "mailboxes": {"support": {**box, "rules": ["r"]}}}))
    return load(file)


@pytest.mark.parametrize("queue", ["raw", "payload", "maildir", "smtp", "lmtp", "imap", "command", "hook"])
def test_a_queue_that_gets_the_octets_is_refused(tmp_path: Path, queue: str) -> None:
    for then in (None, {"queue": queue}):
        with pytest.raises(ConfigErrors, match=f"cannot be kept from {queue},") as caught:
            config(tmp_path, "plain" if then else queue, then)
        assert caught.value.problems[0].path == "mailboxes.support.attachments"
    assert config(tmp_path, queue, attachments="keep").queues


def test_whoever_a_rule_sends_mail_on_to_is_refused_as_well(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"cannot be kept from redirect:a@b\.example"):
        config(tmp_path, "plain", {"redirect": "a@b.example"})
    assert config(tmp_path, "plain", {"redirect": "a@b.example"}, force_default_queue=True).queues


@pytest.mark.parametrize("queue", ["plain", "events", "hook-events"])
def test_a_queue_of_events_is_not(tmp_path: Path, queue: str) -> None:
    assert config(tmp_path, queue).queues


def test_a_policy_of_a_trusted_mailbox_has_no_effect_and_is_warned_of(tmp_path: Path) -> None:
    assert any("all attachments are kept" in str(one) for one in config(tmp_path, "maildir", trusted=True).warnings)
