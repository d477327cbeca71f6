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
