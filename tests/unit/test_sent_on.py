"""What rules send on: what is written for it, and what of a message is touched by it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
import yaml

from mailpoller.config import Config, load
from mailpoller.config.difference import changes
from mailpoller.config.dump import effective
from mailpoller.config.problems import ConfigErrors
from mailpoller.mail.resend import resent
from pace import paced

AT = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)


def sent_on(octets: bytes) -> bytes:
    return resent(octets, sender="me@x.example", recipients=["a@b.example"], message_id="1@x.example", at=AT)


def ours(octets: bytes) -> bytes:
    return sent_on(octets).partition(b"X-Mailpoller-Loop: 1\r\n")[2]


# --- the octets ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "octets",
    [
        b"From: a@b\r\nSubject: x\r\n\r\nbody\r\n",
        b"From: a@b\r\n\r\n" + "Größe\r\n".encode() + b"\xff\r\n",
        b"DKIM-Signature: v=1;\r\n b=x\r\nFrom: a@b\r\n\r\n.\r\n..\r\n",
        b"Resent-From: earlier@x\r\nFrom: a@b\r\n\r\n",
        b"no header at all, a line\r\n",
        b"",
    ],
)
def test_not_an_octet_of_the_message_is_touched(octets: bytes) -> None:
    assert ours(octets) == octets


@pytest.mark.parametrize(
    ("octets", "sent"),
    [
        (b"From: a@b\n\nbody\n", b"From: a@b\r\n\r\nbody\r\n"),
        (b"From: a@b\r\n\r\none\ntwo\rthree\r\n", b"From: a@b\r\n\r\none\r\ntwo\r\nthree\r\n"),
        (b"From ada Mon Jan  1 00:00:00 2026\nFrom: a@b\n\nx\n", b"From: a@b\r\n\r\nx\r\n"),
        (b"\xef\xbb\xbfFrom: a@b\r\n\r\nx\r\n", b"From: a@b\r\n\r\nx\r\n"),
        (b"\r\n\r\nFrom: a@b\r\n\r\nx\r\n", b"From: a@b\r\n\r\nx\r\n"),
        (b"\r\njust text\r\n", b"\r\njust text\r\n"),
    ],
)
def test_what_is_no_line_of_mail_becomes_one_and_the_header_stays_one_block(octets: bytes, sent: bytes) -> None:
    assert ours(octets) == sent


def test_the_fields_say_who_sent_it_on_and_when() -> None:
    fields = message_from_bytes(sent_on(b"From: a@b\r\nTo: c@d\r\n\r\nx\r\n"))
    assert fields["Resent-From"] == "me@x.example"
    assert fields["Resent-To"] == "a@b.example"
    assert fields["Resent-Date"] == "Sat, 14 Mar 2026 09:26:53 +0000"
    assert fields["Resent-Message-ID"] == "<1@x.example>"
    assert (fields["From"], fields["To"]) == ("a@b", "c@d")


@pytest.mark.parametrize(
    "octets", [b"\n" * 3_000_000, b"\r" * 3_000_000, b"From " * 600_000, b"\xef\xbb\xbf\n " * 500_000]
)
def test_hostile_beginnings_take_little_time(octets: bytes) -> None:
    began = time.process_time()
    sent_on(octets)
    assert time.process_time() - began < paced(2.0)


# --- what is written -------------------------------------------------------------------------------------------------
WRITTEN: dict[str, Any] = {
    "queues": {"desk": {"type": "sqlite", "path": "/q.db"}},
    "outgoing": {"relay": {"type": "smtp", "host": "relay.example", "sender": "me@x.example"}},
    "rules": [{"name": "r", "when": {"subject": "x"}, "then": {"redirect": "a@b.example"}}],
    "mailboxes": {"support": {"type": "maildir", "path": "/box", "rules": ["r"], "address": "support@x.example"}},
}


def config(tmp_path: Path, then: dict[str, Any] | None = None, **more: Any) -> Config:
    rules = WRITTEN["rules"] if then is None else [{**WRITTEN["rules"][0], "then": then}]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({**WRITTEN, "rules": rules, **more}))
    return load(file)


def said(caught: pytest.ExceptionInfo[ConfigErrors]) -> str:
    return "\n".join(map(str, caught.value.problems))


def test_a_destination_is_a_queue_that_nobody_has_written(tmp_path: Path) -> None:
    found = config(tmp_path, {"redirect": "a@b.example", "forward": {"to": ["c@d.example"], "outgoing": "relay"}})
    assert list(found.queues) == ["desk", "redirect:a@b.example", "forward:c@d.example/relay"]
    assert getattr(found.queues["redirect:a@b.example"], "outgoing") == "relay"  # noqa: B009 - a plug-in's own
    assert found.mailboxes["support"].default_queue == "desk"
    assert found.warnings == ()


def test_what_is_shown_of_it_loads_again_and_says_the_same(tmp_path: Path) -> None:
    found = config(tmp_path, {"redirect": {"to": "a@b.example"}, "forward": ["c@d.example", "e@f.example"]})
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(effective(found)))
    again = load(tmp_path / "again.yaml")
    assert again.queues == found.queues
    assert again.rules == found.rules


def test_another_address_is_a_change_of_the_rule(tmp_path: Path) -> None:
    before = config(tmp_path)
    after = config(tmp_path, {"redirect": "other@b.example"})
    assert [(one.section, one.name, one.what) for one in changes(before, after)] == [("rules", "r", "changed")]


def test_two_rules_to_one_address_have_one_queue(tmp_path: Path) -> None:
    rules = [{**WRITTEN["rules"][0], "name": name} for name in ("r", "s")]
    found = config(tmp_path, rules=rules)
    assert [name for name in found.queues if name != "desk"] == ["redirect:a@b.example"]


@pytest.mark.parametrize(
    ("then", "more", "words"),
    [
        ({"redirect": "a@b.example"}, {"outgoing": {}}, "rules[0].then.redirect.outgoing: this key is required unless"),
        ({"redirect": {"to": "a@b.example", "outgoing": "nope"}}, {}, "no outgoing is called nope"),
        ({"redirect": "Ada <a@b.example>"}, {}, "a mail address is written alone"),
        ({"redirect": "{{ from }}"}, {}, "a mail address"),
        ({"redirect": []}, {}, "must not be empty"),
        ({"forward": "a@b.example", "quarantine": True}, {}, "forward beside it would have no effect"),
        ({"redirect": "a@b.example", "discard": True}, {}, "redirect beside it would have no effect"),
    ],
)
def test_what_cannot_be_sent_on_is_refused(tmp_path: Path, then: Any, more: Any, words: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        config(tmp_path, then, **more)
    assert words in said(caught)


def test_nothing_is_redirected_by_who_goes_by_the_header_alone(tmp_path: Path) -> None:
    oauth = {
        "type": "oauth2", "provider": "microsoft", "grant": "client_credentials", "tenant": "x.example",
        "client_id": "11111111-2222-3333-4444-555555555555", "client_secret": "env:X",
    }  # fmt: skip
    graph = {"type": "graph", "sender": "me@x.example", "auth": oauth}
    with pytest.raises(ConfigErrors) as caught:
        config(tmp_path, {"redirect": "a@b.example"}, outgoing={"relay": graph})
    assert "a message cannot be redirected by it" in said(caught)
    assert config(tmp_path, {"forward": "a@b.example"}, outgoing={"relay": graph}).warnings == ()


def test_an_address_that_is_polled_here_is_warned_of(tmp_path: Path) -> None:
    (warning,) = config(tmp_path, {"redirect": "support@x.example"}).warnings
    assert "polls this address" in str(warning)


def test_no_queue_of_a_configuration_is_of_such_a_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        config(tmp_path, queues={"desk": {"type": "redirect", "to": "a@b.example"}})
    assert "no sink is of this type" in said(caught)
