"""Who may send as whom, as a configuration says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailpoller.assembly.senders import senders_of
from mailpoller.config import load
from mailpoller.core.errors import EntryRefused
from mailpoller.core.reply_charset import ReplyCharset
from mailpoller.engine.senders import Senders

TEXT = """\
service: {environment: ENVIRONMENT}
queues: {q: {type: maildir, path: /var/q}}
outgoing:
  relay: {enabled: false, type: smtp, host: relay.example.com, sender: system@example.com}
  support: {extends: relay, from: support@example.com, default: true}
  sales: {extends: relay, from: sales@example.com, connections: 5, signature: {text: Yours}}
  lab: {extends: relay, environment: staging}
intakes:
  desk: {type: socket, departments: [help], users: [helpdesk]}
  shop: {type: socket, departments: [deals, help]}
mailboxes:
  box: {enabled: false, type: imap, host: h.example.com, username: u, password: p, outgoing: support}
  a: {extends: box, enabled: true, departments: [help], username: a, charset: japanese}
  b:
    {extends: box, departments: [deals], default_for: [deals], username: b, outgoing: sales,
    charset: &c {default: koi8-r, euro: EUR}}
  c: {extends: box, departments: [deals], username: c, outgoing: lab}
"""


def senders(tmp_path: Path, environment: str = "production") -> Senders:
    file = tmp_path / "mailpoller.yaml"
    file.write_text(TEXT.replace("ENVIRONMENT", environment))
    return senders_of(load(file))


def chosen(found: Senders, intake: str, identity: str = "", department: str = "", mailbox: str = "") -> str:
    one = found.chosen(found.intake(intake), identity=identity, department=department, mailbox=mailbox)
    return one.sender.address


def test_a_mail_is_from_the_identity_of_its_mailbox_or_department(tmp_path: Path) -> None:
    found = senders(tmp_path)
    assert chosen(found, "desk") == "support@example.com"
    assert chosen(found, "shop", department="deals") == "sales@example.com"
    assert chosen(found, "shop", mailbox="c") == "system@example.com"
    assert chosen(found, "shop", mailbox="b") == "sales@example.com"  # it is not polled
    assert chosen(found, "shop", identity="support") == "support@example.com"
    assert (found.identities["sales"].lanes, found.identities["sales"].sender.text) == (5, "Yours")


@pytest.mark.parametrize(
    "mistake", ["poll_interval: never", "rules: [nobody]", "type: none", "outgoing: [support], port: x"]
)
def test_an_error_in_a_mailbox_lets_no_mail_leave_in_another_ones_name(tmp_path: Path, mistake: str) -> None:
    file = tmp_path / "mailpoller.yaml"
    text = TEXT.replace("ENVIRONMENT", "production")
    text = text.replace("username: b, outgoing: sales", f"username: b, outgoing: sales, {mistake}", 1)
    if "outgoing: [" in mistake:
        text = text.replace("outgoing: sales, ", "", 1)
    file.write_text(text)
    config = load(file, sparing=True)
    assert set(config.wrong) == {"b"}
    found = senders_of(config)
    if "outgoing: [" in mistake:
        with pytest.raises(EntryRefused):
            chosen(found, "shop", department="deals")
    else:
        assert chosen(found, "shop", department="deals") == "sales@example.com"
        assert chosen(found, "shop", mailbox="b") == "sales@example.com"
    assert chosen(found, "desk") == "support@example.com"


def test_mail_that_came_under_a_mailboxs_former_name_can_be_answered(tmp_path: Path) -> None:
    file = tmp_path / "mailpoller.yaml"
    text = TEXT.replace("username: b,", "username: b, formerly: orders,", 1).replace("ENVIRONMENT", "production")
    file.write_text(text)
    found = senders_of(load(file))
    assert chosen(found, "shop", mailbox="orders") == "sales@example.com"
    assert found.charset("sales", "orders") is found.charset("sales", "b")


def test_an_error_in_the_default_mailbox_of_a_department_is_not_the_others(tmp_path: Path) -> None:
    file = tmp_path / "mailpoller.yaml"
    text = TEXT.replace("username: b,", "username: b, poll_interval: never,", 1).replace("ENVIRONMENT", "production")
    file.write_text(f"{text}  d: {{extends: box, enabled: true, departments: [deals], username: d}}\n")
    config = load(file, sparing=True)
    assert set(config.wrong) == {"b"} and config.runs("d")


@pytest.mark.parametrize(
    ("intake", "said"),
    [
        ("desk", {"identity": "sales"}),
        ("desk", {"mailbox": "b"}),
        ("desk", {"department": "deals"}),
        ("shop", {}),
        ("shop", {"department": "help", "identity": "sales"}),
        ("shop", {"identity": "relay"}),
        ("shop", {"mailbox": "box"}),
    ],
)
def test_what_is_claimed_never_widens_what_an_intake_may(tmp_path: Path, intake: str, said: dict[str, str]) -> None:
    with pytest.raises(EntryRefused):
        chosen(senders(tmp_path), intake, **said)


def test_an_identity_sends_in_its_environment_alone(tmp_path: Path) -> None:
    here, copy = senders(tmp_path), senders(tmp_path, "staging")
    assert [name for name, one in here.identities.items() if one.held] == ["relay", "lab"]
    assert [name for name, one in copy.identities.items() if not one.held] == ["lab"]


def test_a_mailbox_says_in_what_its_answers_are_written(tmp_path: Path) -> None:
    found = senders(tmp_path)
    assert found.charset("support", "a") == ReplyCharset("iso-2022-jp", "choose", "EUR")
    assert found.charset("sales", "") == ReplyCharset("koi8-r", "choose", "EUR")
    assert found.charset("lab", "c") is None
