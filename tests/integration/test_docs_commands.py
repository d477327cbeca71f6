"""Each command of README and of docs/operations.md does what it says when it is pasted into a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios.harness import Site
from servers.command import mailpoller
from servers.dovecot import Dovecot

ROOT = Path(__file__).parents[2]
SAID = {
    "quarantine discard": (66, "nothing that is held is meant"),
    "test": (66, "there is no test"),
    "status --failing --watch": (64, "draws on a terminal"),
}
"""What is said where there is nothing to do, or no terminal."""
ALARMING = ("this is a bug", '"level":"error"', "alarm.raised")


def pasted(page: str) -> Iterator[str]:
    """The lines of its shell blocks that begin with our program, as they stand there."""
    for block in re.findall(r"^```sh\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE):
        yield from (line for line in block.splitlines() if line.startswith("mailpoller "))


def words_of(line: str) -> list[str]:
    """As a shell takes it apart; whatever a shell would do itself is none of our words."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)[1:]
    assert not any(set(word) <= set("<>|&;()") for word in words), f"a shell does something else: {line}"
    return words


@pytest.fixture
def site(tmp_path: Path, dovecot: Dovecot, user: str) -> Site:
    """Two mailboxes, one message that was delivered and two in quarantine."""
    site = Site(tmp_path)
    site.settings["rules"] = [{"name": "odd", "when": {"subject": "odd"}, "then": {"quarantine": "no-queue"}}]
    site.imap("support", dovecot.imap_port, user, rules=["odd"], departments=["sales"])
    site.imap("sales", dovecot.imap_port, user, folders=["Sales"])
    dovecot.create(user, "Sales")
    for name, subject in (("message-id", "a"), ("two", "odd 1"), ("three", "odd 2")):
        text = f"From: ada@customer.example\r\nSubject: {subject}\r\nMessage-ID: <{name}@customer.example>\r\n\r\nx\r\n"
        dovecot.deliver(user, text.encode())
    (tmp_path / "mail.eml").write_bytes(b"From: ada@customer.example\r\nSubject: b\r\n\r\nx\r\n")
    return site


def test_every_command_of_the_pages_can_be_pasted(site: Site, tmp_path: Path) -> None:
    commands = [*pasted("docs/operations.md"), *pasted("README.md")]
    assert len(commands) > 35
    wrong = []
    with site.run() as daemon:
        daemon.until(lambda: daemon.count("message.delivered") == 1 and daemon.count("message.quarantined") == 2)
        listed = mailpoller("quarantine", "list", "--json", MAILPOLLER_CONFIG=str(site.config))
        first, second = (one["mid"] for one in listed.json["messages"])
        for command in commands:
            if "mailpoller.yaml" in command:
                continue  # of the first mailbox, which has a configuration and a server of its own
            words = [first if word == "MID" else word for word in words_of(command)]
            words = [str(tmp_path / word) if word.endswith(".eml") else word for word in words]
            said = mailpoller(*words, MAILPOLLER_CONFIG=str(site.config))
            line = " ".join(words)
            code, told = next((answer for verb, answer in SAID.items() if line.startswith(verb)), (0, ""))
            if said.code != code or told not in said.err or any(one in said.err for one in ALARMING):
                wrong.append((command, said))
        existing = mailpoller(
            "quarantine", "export", second, "-o", str(tmp_path / "mail.eml"), MAILPOLLER_CONFIG=str(site.config)
        )
        assert (existing.code, "mail.eml is there already" in existing.err) == (64, True), existing
        nowhere = mailpoller(
            "quarantine", "export", second, "-o", str(tmp_path / "no/mail.eml"), MAILPOLLER_CONFIG=str(site.config)
        )
        assert (nowhere.code, "cannot be written" in nowhere.err) == (74, True), nowhere
    assert wrong == []
