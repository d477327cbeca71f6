"""A maildrop that is emptied: killed at any step or cut at any point, nothing is lost, nothing comes twice, and in the end all is deleted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from servers.dovecot import Dovecot
from servers.proxy import Fault, FaultProxy

COUNT = 25
STEPS = [
    ("before", "ledger.advance", 1),
    ("during", "session.fetch", 2),
    ("after", "sink.deliver", 1),
    ("before", "ledger.settle", 1),
    ("before", "session.settle", 1),
    ("after", "session.settle", 2),
    ("after", "ledger.disposed", 3),
    ("before", "session.open", 2),  # all is marked, and QUIT was not said
    ("after", "session.open", 2),
    ("before", "session.close", 1),
]
"""Those where deleting makes a difference; the others are the same code for every source."""

_numbers = itertools.count()


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with Dovecot(pop3=True) as server:
        yield server


@pytest.fixture
def user() -> str:
    return f"maildrop{next(_numbers)}"


def maildrop(site: Site, port: int, user: str, **settings: Any) -> None:
    """The mailbox ``support``, which deletes."""
    site.settings["mailboxes"]["support"] = {
        "type": "pop3", "host": "127.0.0.1", "port": port, "tls": "none", "username": user, "password": "secret",
        "default_queue": "support", "disposition": "delete", "poll_interval": "1s", "reconnect_interval": "1s", **settings,
    }  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, dovecot: Dovecot, user: str) -> Site:
    site = Site(tmp_path)
    maildrop(site, dovecot.pop3_port, user)
    return site


def fill(dovecot: Dovecot, user: str, count: int = COUNT) -> Counter[str]:
    names = [f"message {number}" for number in range(count)]
    dovecot.deliver_all(user, [plain(subject=name) for name in names])
    return Counter(names)


def left(dovecot: Dovecot, user: str) -> int:
    """How many messages are in the maildrop."""
    return sum(1 for part in ("new", "cur") for _ in (dovecot.maildir(user) / part).iterdir())


def assert_all_is_well(site: Site, dovecot: Dovecot, user: str, expected: Counter[str]) -> None:
    assert site.subjects() == expected
    assert left(dovecot, user) == 0
    counts = site.ledger_counts("support")
    assert counts == {"claimed": 0, "deferred": 0, "settled": expected.total(), "undisposed": 0}


@pytest.mark.parametrize(("when", "step", "number"), STEPS, ids=lambda value: str(value))
def test_killed_at_any_step_nothing_is_lost_nothing_is_twice_and_all_is_deleted(
    site: Site, dovecot: Dovecot, user: str, when: str, step: str, number: int
) -> None:
    site.settings["service"]["batch_messages"] = 10
    expected = fill(dovecot, user)
    assert site.once(kill=(when, step, number)) == -signal.SIGKILL
    assert site.once() == 0
    assert left(dovecot, user) == 0
    assert site.once() == 0, "the next session sees that what was deleted is gone"
    assert_all_is_well(site, dovecot, user, expected)


class Hasty:
    """A line to the server that is reset ``times`` times at the word QUIT, which the server never gets."""

    def __init__(self, to: int, times: int) -> None:
        self.to = to
        self.times = times
        self.cuts = 0
        self.logins = 0

    async def __aenter__(self) -> Hasty:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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


async def test_cut_before_quit_the_next_poll_deletes_again_and_delivers_nothing_again(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    expected = fill(dovecot, user)
    async with Hasty(dovecot.pop3_port, times=2) as line:
        maildrop(site, line.port, user)
        for turn in (1, 2):
            assert await asyncio.to_thread(site.once) == 75, (
                "what was deleted is not known to be, and the exit code says so"
            )
            assert line.cuts == turn
            assert site.subjects() == expected
            assert left(dovecot, user) == COUNT
        assert await asyncio.to_thread(site.once) == 0
        assert left(dovecot, user) == 0
        assert await asyncio.to_thread(site.once) == 0
    assert_all_is_well(site, dovecot, user, expected)


async def test_daemon_takes_mail_as_it_comes_and_never_holds_the_lock_while_it_waits(
    site: Site, dovecot: Dovecot, user: str
) -> None:
    expected = fill(dovecot, user, 3)
    async with FaultProxy(dovecot.pop3_port) as proxy:
        maildrop(site, proxy.port, user)
        with site.run() as daemon:
            await asyncio.to_thread(daemon.until, lambda: left(dovecot, user) == 0)
            logins = proxy.connections
            await asyncio.to_thread(daemon.until, lambda: proxy.connections >= logins + 2)
            assert proxy.open_connections <= 1
            dovecot.deliver(user, plain(subject="later"))
            await asyncio.to_thread(daemon.until, lambda: site.subjects()["later"] == 1)
            await asyncio.to_thread(daemon.until, lambda: left(dovecot, user) == 0)
            assert daemon.count("mailbox.failed") == 0
            assert daemon.count("session.opened") == 1, "a new connection is not a new session"
            assert await asyncio.to_thread(daemon.stop) == 0
        assert proxy.connections - logins < 12, "no more logins than polls"
    assert site.subjects() == expected + Counter(["later"])


def test_mail_that_is_left_is_delivered_once_over_polls_and_restarts(site: Site, dovecot: Dovecot, user: str) -> None:
    maildrop(site, dovecot.pop3_port, user, disposition="leave")
    expected = fill(dovecot, user)
    for _ in range(2):
        with site.run() as daemon:
            daemon.until(lambda: site.subjects().total() >= expected.total())
            name = f"new {daemon.process.pid}"
            dovecot.deliver(user, plain(subject=name))
            expected[name] += 1
            daemon.until(lambda: site.subjects().total() >= expected.total())
            assert daemon.stop() == 0
    assert site.subjects() == expected
    assert left(dovecot, user) == expected.total()


def test_first_run_from_now_skips_what_is_there_for_good(site: Site, dovecot: Dovecot, user: str) -> None:
    maildrop(site, dovecot.pop3_port, user, disposition="delete", start="now")
    fill(dovecot, user, 5)
    assert site.once() == 0
    dovecot.deliver(user, plain(subject="later"))
    for _ in range(2):
        assert site.once() == 0
    assert site.subjects() == Counter(["later"])
    assert left(dovecot, user) == 5


def faults(seed: int) -> list[Fault]:
    """Two dozen connections that all fail, most of them early: that is where most steps of a conversation lie."""
    dice = random.Random(seed)
    plan = []
    for _ in range(24):
        direction = dice.choice(("down", "down", "up"))
        reach = 700 if direction == "up" else dice.choice((1_500, 30_000, 200_000))
        plan.append(Fault(dice.choice(("cut", "close", "stall")), dice.randrange(reach), direction))  # type: ignore[arg-type]
    return plan


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
async def test_cut_stalled_and_refused_at_random_nothing_is_lost_nothing_is_twice_and_all_is_deleted(
    site: Site, dovecot: Dovecot, user: str, seed: int
) -> None:
    dice = random.Random(seed)
    expected: Counter[str] = Counter()
    padding = "x" * 70 + "\r\n"
    mails = []
    for number in range(120):
        text = padding * (1500 if number % 40 == 7 else dice.randrange(1, 200))
        mails.append(plain(subject=f"message {number}", text=text))
        expected[f"message {number}"] += 1
    dovecot.deliver_all(user, mails)
    async with FaultProxy(dovecot.pop3_port, plan=faults(seed)) as proxy:
        quick = {"reconnect_interval": "50ms", "connect_timeout": "1s", "command_timeout": "1s"}
        maildrop(site, proxy.port, user, **quick)
        with site.run() as daemon:
            for _ in range(3):
                await asyncio.sleep(1)
                await proxy.refuse()
                await asyncio.sleep(0.2)
                await proxy.accept()
            proxy.plan = []
            proxy.cut()
            await asyncio.to_thread(daemon.until, lambda: site.subjects().total() >= expected.total(), 120)
            assert await asyncio.to_thread(daemon.stop) == 0
        assert proxy.connections > 3
        for _ in range(2):
            assert await asyncio.to_thread(site.once) == 0
    assert not any((site.directory / "state" / "quarantine").glob("new/*"))
    assert_all_is_well(site, dovecot, user, expected)
