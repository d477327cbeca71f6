"""The real command on an IMAP mailbox; and killed again and again over the same messages, it finds the one that
kills."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from scenarios.suite import ALIKE, Mailbox, MailboxSuite, assert_all_is_well, fill
from servers.dovecot import Dovecot


class ImapMailbox(Mailbox):
    def __init__(self, server: Dovecot, user: str) -> None:
        self.server = server
        self.user = user
        self.port = server.imap_port
        self.block = {
            "type": "imap", "host": "127.0.0.1", "port": self.port, "tls": "none", "username": user,
            "password": "secret",
        }  # fmt: skip

    def deliver(self, *mails: bytes, seen: bool = False) -> None:
        assert not seen
        self.server.deliver_all(self.user, list(mails))

    def assert_settled(self, total: int) -> None:
        flags = self.server.flags(self.user, "INBOX")
        assert len(flags) == total
        assert all("\\Seen" in of_one for of_one in flags.values()), flags

    def reached_at(self, port: int) -> dict[str, Any]:
        return {"port": port, "connect_timeout": "1s", "command_timeout": "1s"}


class TestImap(MailboxSuite):
    up = (500,)
    down = (1_500, 30_000, 200_000)

    @pytest.fixture
    def mailbox(self, dovecot: Dovecot, user: str) -> ImapMailbox:
        return ImapMailbox(dovecot, user)

    @pytest.mark.parametrize(("when", "step", "number"), ALIKE, ids=lambda value: str(value))
    def test_killed_at_a_step_that_is_alike_for_every_source_nothing_is_lost_and_nothing_is_twice(
        self, site: Site, mailbox: ImapMailbox, when: str, step: str, number: int
    ) -> None:
        self.kill(site, mailbox, when, step, number)

    @pytest.mark.parametrize(
        ("when", "step"), [(when, f"ledger.{step}") for when in ("before", "after") for step in ("at_risk", "cleared")]
    )
    def test_killed_again_while_suspects_travel_alone_nothing_is_lost_and_nobody_is_quarantined(
        self, site: Site, mailbox: ImapMailbox, when: str, step: str
    ) -> None:
        expected = fill(mailbox, 6)
        assert site.once(kill=("after", "session.fetch", 1)) == -signal.SIGKILL
        for number in (1, 2):
            assert site.once(kill=(when, step, number)) == -signal.SIGKILL
        assert site.once() == 0
        assert_all_is_well(site, mailbox, expected)

    def test_a_message_that_kills_the_parser_is_quarantined_after_its_strikes_and_its_neighbours_are_delivered(
        self, site: Site, mailbox: ImapMailbox
    ) -> None:
        quarantine = site.directory / "quarantine"
        site.settings["quarantine"] = {"type": "maildir", "path": str(quarantine)}
        poison = plain(subject="poison", headers={"X-Kills-The-Parser": "yes"})
        for number in range(10):
            mailbox.deliver(plain(subject=f"neighbour {number}") if number != 4 else poison)
        deaths = 0
        while (code := site.once(kill=("never", "poison", 1))) == -signal.SIGKILL:
            deaths += 1
            assert deaths <= 4
        assert code == 0
        assert deaths == 4, "the first death makes suspects, the next three are strikes"
        assert site.subjects() == Counter(f"neighbour {number}" for number in range(10) if number != 4)
        held = list((quarantine / "new").iterdir())
        assert len(held) == 1
        assert held[0].read_bytes() == poison
        assert site.quarantined() == [poison]
