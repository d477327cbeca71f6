"""What the real command keeps to on every kind of mailbox: killed at any step, cut, stalled and throttled, nothing is
lost or twice.

A new source is one small file: its mailbox as a :class:`Mailbox`, and a class of tests that inherits
:class:`MailboxSuite`, or :class:`NoticedSuite` where new mail is noticed between polls and positions can be
forgotten.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from abc import abstractmethod
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from servers.proxy import Fault, FaultProxy

COUNT = 25
STEPS = [
    ("during", "session.pending", 1),
    ("after", "ledger.claim", 2),
    ("before", "ledger.advance", 1),
    ("after", "ledger.advance", 1),
    ("before", "session.fetch", 2),
    ("during", "session.fetch", 2),
    ("after", "session.fetch", 1),
    ("after", "sink.deliver", 1),
    ("before", "ledger.settle", 1),
    ("after", "ledger.settle", 2),
    ("before", "session.settle", 1),
    ("after", "session.settle", 2),
    ("before", "ledger.disposed", 1),
    ("after", "ledger.disposed", 2),
    ("before", "session.close", 1),
]
"""When, at which step and at its how manieth call the process is killed."""
ALIKE = [
    ("before", "ledger.claim", 1),
    ("before", "parse", 13),
    ("after", "parse", 13),
    ("before", "sink.deliver", 2),
    ("after", "sink.deliver", 2),
]
"""Those that are alike for every source, so that one may stand for all."""


class Mailbox(Protocol):
    """A mailbox on its server, as a scenario sees it: what the world does to it, and what has become of its
    messages."""

    block: dict[str, Any]
    """Its YAML, as data: how it is reached and what is done with a message. The suite adds what is the same for every
    mailbox."""
    port: int
    """Where its server listens, on 127.0.0.1."""

    @abstractmethod
    def deliver(self, *mails: bytes, seen: bool = False) -> None:
        """New messages come."""

    @abstractmethod
    def assert_settled(self, total: int) -> None:
        """So many messages there are, and with each was done what the configuration wants."""

    @abstractmethod
    def reached_at(self, port: int) -> dict[str, Any]:
        """What is different in the block when it is reached at another port of 127.0.0.1, with times-out of a
        second."""

    def secrets(self) -> list[bytes]:
        """What may be nowhere but in the configuration. Asked for when all is over."""
        return []

    def disturb(self) -> None:
        """The server is too busy for a while."""

    def calm(self) -> None:
        """It no longer is."""

    def forget(self) -> None:
        """The server no longer knows where our listings ended, if it ever does."""


class MailboxSuite:
    """For every source. The fixture ``mailbox`` is the subclass's own."""

    knowing = 1
    """Runs after which all is settled and known to be."""
    up = (6_000,)
    down = (1_500, 10_000, 60_000)
    """How far connections reach that fail, in octets towards the server and from it: one of these, or less."""

    @pytest.fixture
    def site(self, tmp_path: Path, mailbox: Mailbox) -> Site:
        """A site with one mailbox, ``support``."""
        site = Site(tmp_path)
        site.settings["service"]["batch_messages"] = 10
        site.settings["mailboxes"]["support"] = {
            "default_queue": "support", "start": "all", "poll_interval": "1s", "reconnect_interval": "1s",
            **mailbox.block
        }  # fmt: skip
        return site

    @pytest.mark.parametrize(("when", "step", "number"), STEPS, ids=lambda value: str(value))
    def test_killed_at_any_step_nothing_is_lost_and_nothing_is_twice(
        self, site: Site, mailbox: Mailbox, when: str, step: str, number: int
    ) -> None:
        self.kill(site, mailbox, when, step, number)

    def kill(self, site: Site, mailbox: Mailbox, when: str, step: str, number: int) -> None:
        """Kill the command while it works through :data:`COUNT` messages, and let it finish."""
        expected = fill(mailbox)
        assert site.once(kill=(when, step, number)) == -signal.SIGKILL
        for _ in range(self.knowing):
            assert site.once() == 0
        assert_all_is_well(site, mailbox, expected)

    @pytest.mark.timeout(300)
    @pytest.mark.parametrize("seed", [1, 2])
    async def test_cut_stalled_throttled_and_refused_at_random(self, site: Site, mailbox: Mailbox, seed: int) -> None:
        dice = random.Random(seed)
        plan = faults(dice, self.up, self.down)
        padding = "x" * 70 + "\r\n"
        lengths = [1500 if number % 20 == 7 else dice.randrange(1, 200) for number in range(80)]
        expected = Counter(f"message {number}" for number in range(80))
        mailbox.deliver(*(plain(subject=f"message {n}", text=padding * length) for n, length in enumerate(lengths)))
        async with FaultProxy(mailbox.port, plan=plan) as proxy:
            site.settings["mailboxes"]["support"] |= {"reconnect_interval": "50ms", **mailbox.reached_at(proxy.port)}
            with site.run() as daemon:
                for turn in itertools.count():
                    await asyncio.sleep(0.6)
                    mailbox.deliver(plain(subject=f"during turn {turn}"))
                    expected[f"during turn {turn}"] += 1
                    if turn < 4:  # not for longer: each failure makes the next wait longer
                        mailbox.disturb()
                        await proxy.refuse()
                        await asyncio.sleep(0.2)
                        await proxy.accept()
                    else:
                        proxy.cut()  # a line that is little used may live through every count of octets
                    if turn == 2:
                        mailbox.forget()
                    if turn >= 3 and proxy.connections > len(plan) // 3:  # so many faults were met
                        break
                mailbox.calm()
                proxy.plan = []
                proxy.cut()
                await asyncio.to_thread(daemon.until, lambda: site.subjects().total() >= expected.total())
                assert await asyncio.to_thread(daemon.stop) == 0
            # What was on its way when a line was cut is due a minute later, or at the next start.
            for _ in range(self.knowing):
                assert await asyncio.to_thread(site.once) == 0
        assert_all_is_well(site, mailbox, expected)


class NoticedMailbox(Mailbox, Protocol):
    """A mailbox whose server is asked for news between polls, and knows positions that it may forget."""

    @abstractmethod
    def listed(self) -> bool:
        """The folder was listed."""

    @abstractmethod
    def withhold(self) -> None:
        """One of the messages that are there cannot be had, until :meth:`calm`."""


class ServedMailbox(NoticedMailbox):
    """On a strict server of this process, which has ``deliver``, and ``mails`` of a folder: seen, and moved to
    ``Processed``."""

    def __init__(self, server: Any, **block: Any) -> None:
        self.server = server
        self.port = server.port
        self.block = {"url": server.url, "disposition": {"seen": True, "move": "Processed"}, **block}

    def deliver(self, *mails: bytes, seen: bool = False) -> None:
        for mail in mails:
            self.server.deliver(mail, seen=seen)

    def assert_settled(self, total: int) -> None:
        assert self.server.mails() == []
        moved = self.server.mails("Processed")
        assert len(moved) == total
        assert all(mail.seen for mail in moved)


class NoticedSuite(MailboxSuite):
    """For sources that ask for news."""

    def test_killed_and_then_told_that_the_position_is_unknown_nothing_is_lost_and_nothing_is_twice(
        self, site: Site, mailbox: NoticedMailbox
    ) -> None:
        site.settings["mailboxes"]["support"]["disposition"] = "seen"
        expected = fill(mailbox)
        assert site.once(kill=("after", "session.settle", 1)) == -signal.SIGKILL
        for number in range(2):
            mailbox.deliver(plain(subject=f"meanwhile {number}"), seen=True)
            expected[f"meanwhile {number}"] += 1
            mailbox.forget()
            assert site.once() == 0
        assert site.subjects() == expected

    def test_news_is_fetched_long_before_the_next_poll(self, site: Site, mailbox: NoticedMailbox) -> None:
        site.settings["mailboxes"]["support"] |= {"poll_interval": "1h", "notice_interval": "200ms"}
        with site.run() as daemon:
            daemon.until_said("session.opened")
            daemon.until(mailbox.listed)
            mailbox.deliver(plain(subject="news"))
            daemon.until(lambda: site.subjects() == Counter(["news"]))
            assert daemon.stop() == 0
        assert_no_secret_is_on_disk(site, mailbox)

    def test_a_message_that_cannot_be_had_does_not_stop_the_others_and_is_had_in_the_end(
        self, site: Site, mailbox: NoticedMailbox
    ) -> None:
        expected = fill(mailbox, 8)
        mailbox.withhold()
        site.once()
        assert site.subjects().total() == 7
        mailbox.calm()
        with site.run() as daemon:
            daemon.until(lambda: site.subjects() == expected)
            assert daemon.stop() == 0


def fill(mailbox: Mailbox, count: int = COUNT) -> Counter[str]:
    """Deliver ``message 0`` and so on; how often each is expected."""
    names = [f"message {number}" for number in range(count)]
    mailbox.deliver(*(plain(subject=name) for name in names))
    return Counter(names)


def assert_all_is_well(site: Site, mailbox: Mailbox, expected: Counter[str]) -> None:
    """Queue, mailbox and ledger agree, nobody was quarantined, and nothing was told that must not be."""
    assert site.subjects() == expected
    mailbox.assert_settled(expected.total())
    counts = site.ledger_counts("support")
    assert counts == {"claimed": 0, "deferred": 0, "settled": expected.total(), "undisposed": 0}
    assert site.quarantined() == []
    assert_no_secret_is_on_disk(site, mailbox)


def assert_no_secret_is_on_disk(site: Site, mailbox: Mailbox) -> None:
    """Neither token nor secret is in the ledger, the queue, the state or the log. The configuration has secrets, of
    course."""
    secrets = mailbox.secrets()
    files = [file for file in site.directory.rglob("*") if file.is_file() and file.name != "mailpoller.yaml"]
    assert len(files) >= 3
    for file in files:
        octets = file.read_bytes()
        assert not any(secret in octets for secret in secrets), file.name


def faults(dice: random.Random, up: tuple[int, ...], down: tuple[int, ...]) -> list[Fault]:
    """Sixteen connections that all fail, some of them early: that is where most steps of a conversation lie."""
    plan = []
    for _ in range(16):
        direction = dice.choice(("down", "down", "up"))
        reach = dice.randrange(dice.choice(up if direction == "up" else down))
        plan.append(Fault(dice.choice(("cut", "close", "stall")), reach, direction))  # type: ignore[arg-type]
    return plan
