"""A bounce tells which mail it is about by the address that it comes to, if we signed it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_outbox import SENDERS, Site

from mailpoller.config import ConfigErrors, load
from mailpoller.core.errors import ConfigError
from mailpoller.core.message import Claim, Folder, Message, MessageRef, RawMessage
from mailpoller.core.spool import Octets
from mailpoller.mail.parser import parse
from mailpoller.mail.understand.conversation import Finder
from mailpoller.mail.verp import return_address, returned
from mailpoller.testing import builders

ID = "0123456789abcdef" * 2
KEYS = {"a": lambda: b"key", "b": lambda: b"other", "gone": lambda: None}


def bounce(to: str) -> Message:
    octets = builders.bounce(to=to, failed="ada@customer.example")
    claim = Claim(MessageRef(Folder("m", "INBOX", "1"), "1"), "mid")
    return parse(RawMessage(claim, Octets.of(octets)))


@pytest.mark.parametrize("change", [str, str.upper, str.lower])
def test_the_address_tells_the_mail_whoever_changes_its_case(change: Any) -> None:
    address = return_address("bounces@x.example", ID, "a", b"key")
    assert returned(bounce(change(address)), KEYS) == ID
    assert len(address.rpartition("@")[0]) <= 64


@pytest.mark.parametrize(
    "address",
    [
        return_address("bounces@x.example", ID, "a", b"another key"),
        return_address("bounces@x.example", ID, "z", b"key"),
        return_address("bounces@x.example", ID, "gone", b"key"),
        return_address("bounces@x.example", ID, "a", b"key").replace("mpv-a", "mpv-b"),
        "bounces+mpv-a-" + "a" * 26 + "-" + "b" * 16 + "@x.example",
        "bounces+mpv-a-" + "7" * 26 + "-" + "b" * 16 + "@x.example",
        "bounces+mpv-@x.example",
        "bounces@x.example",
    ],
)
def test_what_we_did_not_sign_tells_nothing(address: str) -> None:
    assert returned(bounce(address), KEYS) == ""


def test_a_header_full_of_tokens_costs_little() -> None:
    forged = "b+mpv-a-" + "a" * 26 + "-" + "b" * 16 + "@x.example"
    genuine = return_address("bounces@x.example", ID, "a", b"key")
    assert returned(bounce(", ".join([forged] * 1000 + [genuine])), KEYS) == ""


def test_only_a_bounce_is_tied() -> None:
    address = return_address("bounces@x.example", ID, "a", b"key")
    finder = Finder(KEYS, [], ["subject"])
    message = bounce(address)
    message.brings_back(finder.returned(message))
    found = message.classification.bounce
    assert found is not None
    assert found.envelope_id == ID
    claim = Claim(MessageRef(Folder("m", "INBOX", "1"), "1"), "mid")
    octets = f"From: ada@c.example\r\nTo: {address}\r\nSubject: hello\r\n\r\nHello\r\n".encode()
    person = parse(RawMessage(claim, Octets.of(octets)))
    person.brings_back(finder.returned(person))
    assert person.classification.bounce is None


def test_an_address_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        return_address("a" * 20 + "@x.example", ID, "a", b"key")


async def test_the_envelope_bears_the_token_and_the_header_does_not(tmp_path: Path) -> None:
    site = Site(tmp_path)
    support = replace(SENDERS.identities["support"], verp="bounces@x.example")
    site.use(replace(SENDERS, identities={"support": support}))
    site.acceptance.returns = lambda address, id: return_address(address, id, "a", b"key")
    mail = await site.mail((await site.hand_in())["id"])
    assert mail.sender == return_address("bounces@x.example", mail.id, "a", b"key")
    assert b"mpv-" not in (tmp_path / "outbox" / mail.digest.hex()).read_bytes()

    def unreadable(*_: str) -> str:
        raise ConfigError("the key cannot be read")

    site.acceptance.returns = unreadable
    assert (await site.mail((await site.hand_in())["id"])).sender == "support@x.example"


CONFIG = """
queues: {{q: {{type: jsonl, path: /tmp/q}}}}
outgoing: {{relay: {{type: smtp, host: r.example, sender: s@x.example, verp: {verp}}}}}
{more}
mailboxes:
  m: {{type: imap, host: i.example, username: u, password: p, default_queue: q, outgoing: relay,
       address: bounces@x.example}}
"""
KEY = "conversations: {keys: [{id: a, secret: 0123456789abcdef0123}]}"


@pytest.mark.parametrize(
    ("verp", "more", "said"),
    [
        ("bounces@x.example", "", "conversations.keys"),
        ("nobody@x.example", KEY, "no mailbox is polled"),
        ("Bounces@x.example", KEY, ""),
    ],
)
def test_check_says_what_an_address_for_bounces_lacks(tmp_path: Path, verp: str, more: str, said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG.format(verp=verp, more=more))
    if not said:
        load(path)
        return
    with pytest.raises(ConfigErrors, match=said):
        load(path)
