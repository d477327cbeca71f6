"""A peer that answers automatically: Dovecot's Sieve ``vacation`` does not answer our acknowledgement, and its own
answer is never acknowledged."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailpoller.core.acknowledge_config import AcknowledgeConfig
from mailpoller.core.message import Claim, Folder, Message, MessageRef, RawMessage
from mailpoller.core.sender import Sender
from mailpoller.core.spool import Octets
from mailpoller.mail.acknowledgement import acknowledgement_octets, acknowledgement_of, objection
from mailpoller.mail.parser import parse
from servers import programs

missing = (
    "" if programs.found("sieve-test") else f"there is no sieve-test: {programs.lacking('sieve-test')}"
)  # fmt: skip
pytestmark = pytest.mark.skipif(bool(missing), reason=missing)

NOW = datetime(2026, 12, 1, 10, tzinfo=UTC)
OWN = frozenset({"support@x.example"})
SCRIPT = 'require ["vacation"];\nvacation :addresses ["ada@customer.example"] "I am away.";\n'
CUSTOMERS = (
    b"Return-Path: <ada@customer.example>\r\nReceived: from a by b; Tue, 1 Dec 2026 09:00:00 +0000\r\n"
    b"From: Ada <ada@customer.example>\r\nTo: support@x.example\r\nSubject: order\r\nMessage-ID: <1@c.example>\r\n\r\n"
    b"text\r\n"
)


def read(octets: bytes) -> Message:
    claim = Claim(MessageRef(Folder("support", "INBOX", "1"), "1"), "mid")
    return parse(RawMessage(claim, Octets.of(octets), received=NOW))


def vacation(directory: Path, octets: bytes, sender: str) -> tuple[str, bytes]:
    """What Sieve says as this mail comes to Ada, and what it sends."""
    home = directory / "home"
    home.mkdir(exist_ok=True)
    config = directory / "dovecot.conf"
    config.write_text(
        f"protocols =\nlog_path = /dev/stderr\nmail_home = {home}\nmail_location = maildir:{home}/mail\n"
        f"mail_uid = {os.getuid() or 65534}\nmail_gid = {os.getgid() or 65534}\nfirst_valid_uid = 1\n"
        f"first_valid_gid = 1\npostmaster_address = postmaster@customer.example\n"
    )
    (directory / "away.sieve").write_text(SCRIPT)
    (directory / "mail.eml").write_bytes(octets)
    for one in (directory, home, *directory.iterdir()):
        one.chmod(0o777)
    asked = [programs.find("sieve-test"), "-c", str(config), "-e", "-f", sender, "-r", "ada@customer.example"]
    done = subprocess.run(
        [*asked, str(directory / "away.sieve"), str(directory / "mail.eml")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    sent = done.stdout.partition("X-Sieve:")[2].partition("\nRECIPIENT:")[0]
    return done.stdout + done.stderr, f"X-Sieve:{sent}".encode() if sent else b""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that whoever Dovecot becomes may enter."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    yield made
    shutil.rmtree(made)


def test_sieves_vacation_answers_no_acknowledgement_and_its_answer_is_acknowledged_by_nobody(place: Path) -> None:
    owed = acknowledgement_of(read(CUSTOMERS), OWN, NOW, rule="", conversation="")
    words = AcknowledgeConfig.model_validate({"text": "We have it."}).in_language("")
    sender = Sender("support@x.example", "Support")
    to, ours = acknowledgement_octets(owed, words, sender, own_id="<own@x.example>", at=NOW, wish=None)
    assert to == "ada@customer.example"
    # Also where a relay on the way makes an envelope sender of the null one.
    said, sent = vacation(place, ours, "support@x.example")
    assert "discarding vacation response to auto-submitted message" in said, said
    assert not sent
    # A person's mail is what it answers, so it was not asleep; and nobody acknowledges that answer.
    persons = b"\r\n".join(
        line for line in ours.split(b"\r\n") if not line.startswith((b"Auto-Submitted", b"X-", b"In-Reply", b"Ref"))
    )
    said, sent = vacation(place, persons, "support@x.example")
    assert b"I am away." in sent, said
    stamped = b"Return-Path: <ada@customer.example>\r\nReceived: from a by b; Tue, 1 Dec 2026 09:00:00 +0000\r\n"
    assert objection(read(stamped + sent), OWN) == "automatic"
