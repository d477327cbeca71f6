"""The real command on a maildrop that is emptied: in the end all is deleted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from scenarios.suite import COUNT, Mailbox, MailboxSuite, assert_all_is_well, fill
from servers.dovecot import Dovecot
from servers.listener import Listener
from servers.proxy import FaultProxy

_numbers = itertools.count()


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot(pop3=True) as server:
        yield server


class Maildrop(Mailbox):
    def __init__(self, server: Dovecot, user: str) -> None:
        self.server = server
        self.user = user
        self.port = server.pop3_port
        self.block = {
            "type": "pop3", "host": "127.0.0.1", "port": self.port, "tls": "none", "username": user,
            "password": "secret",
            "disposition": "delete",
        }  # fmt: skip

    def deliver(self, *mails: bytes, seen: bool = False) -> None:
        assert not seen
        self.server.deliver_all(self.user, list(mails))

    def assert_settled(self, total: int) -> None:
        assert self.left == 0

    def reached_at(self, port: int) -> dict[str, Any]:
        return {"port": port, "connect_timeout": "1s", "command_timeout": "1s"}

    @property
    def left(self) -> int:
        """How many messages are in the maildrop."""
        return sum(1 for part in ("new", "cur") for _ in (self.server.maildir(self.user) / part).iterdir())


class Hasty(Listener):
    """A line to the server that is reset ``times`` times at the word QUIT, which the server never gets."""

    def __init__(self, to: int, times: int) -> None:
        self.to = to
        self.times = times
        self.cuts = 0
        self.logins = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        self.logins += 1
        down = asyncio.create_task(self._pass(far_reader, writer))
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(1 << 16):
                if b"QUIT\r\n" in data and self.cuts < self.times:
                    self.cuts += 1
                    far_writer.write(data.replace(b"QUIT\r\n", b""))
                    await far_writer.drain()
                    break
                far_writer.write(data)
        down.cancel()
        writer.transport.abort()
        far_writer.transport.abort()

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()


class TestPop3(MailboxSuite):
    knowing = 2  # the next session sees that what was deleted is gone
    up = (700,)
    down = (1_500, 30_000, 200_000)

    @pytest.fixture
    def mailbox(self, dovecot: Dovecot) -> Maildrop:
        return Maildrop(dovecot, f"maildrop{next(_numbers)}")

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_killed_when_all_is_marked_and_quit_was_not_said_all_is_deleted_in_the_end(
        self, site: Site, mailbox: Maildrop, when: str
    ) -> None:
        self.kill(site, mailbox, when, "session.open", 2)

    async def test_cut_before_quit_the_next_poll_deletes_again_and_delivers_nothing_again(
        self, site: Site, mailbox: Maildrop
    ) -> None:
        expected = fill(mailbox)
        async with Hasty(mailbox.port, times=2) as line:
            site.settings["mailboxes"]["support"]["port"] = line.port
            for turn in (1, 2):
                assert await asyncio.to_thread(site.once) == 75, (
                    "what was deleted is not known to be, and the exit code says so"
                )
                assert line.cuts == turn
                assert site.subjects() == expected
                assert mailbox.left == COUNT
            assert await asyncio.to_thread(site.once) == 0
            assert mailbox.left == 0
            assert await asyncio.to_thread(site.once) == 0
        assert_all_is_well(site, mailbox, expected)

    async def test_daemon_takes_mail_as_it_comes_and_never_holds_the_lock_while_it_waits(
        self, site: Site, mailbox: Maildrop
    ) -> None:
        expected = fill(mailbox, 3)
        async with FaultProxy(mailbox.port) as proxy:
            site.settings["mailboxes"]["support"]["port"] = proxy.port
            with site.run() as daemon:
                await asyncio.to_thread(daemon.until, lambda: mailbox.left == 0)
                logins, began = proxy.connections, time.monotonic()
                await asyncio.to_thread(daemon.until, lambda: proxy.connections >= logins + 2)
                assert proxy.open_connections <= 1
                mailbox.deliver(plain(subject="later"))
                await asyncio.to_thread(daemon.until, lambda: site.subjects()["later"] == 1)
                await asyncio.to_thread(daemon.until, lambda: mailbox.left == 0)
                assert daemon.count("mailbox.failed") == 0
                assert daemon.count("session.opened") == 1, "a new connection is not a new session"
                assert await asyncio.to_thread(daemon.stop) == 0
            assert proxy.connections - logins < 3 + time.monotonic() - began, "no more logins than polls"
        assert site.subjects() == expected + Counter(["later"])

    def test_mail_that_is_left_is_delivered_once_over_polls_and_restarts(self, site: Site, mailbox: Maildrop) -> None:
        site.settings["mailboxes"]["support"]["disposition"] = "leave"
        expected = fill(mailbox)
        for _ in range(2):
            with site.run() as daemon:
                daemon.until(lambda: site.subjects().total() >= expected.total())
                name = f"new {daemon.process.pid}"
                mailbox.deliver(plain(subject=name))
                expected[name] += 1
                daemon.until(lambda: site.subjects().total() >= expected.total())
                assert daemon.stop() == 0
        assert site.subjects() == expected
        assert mailbox.left == expected.total()

    def test_first_run_from_now_skips_what_is_there_for_good(self, site: Site, mailbox: Maildrop) -> None:
        site.settings["mailboxes"]["support"]["start"] = "now"
        fill(mailbox, 5)
        assert site.once() == 0
        mailbox.deliver(plain(subject="later"))
        for _ in range(2):
            assert site.once() == 0
        assert site.subjects() == Counter(["later"])
        assert mailbox.left == 5
