"""The real command on a Gmail mailbox: killed at any step, cut, stalled and throttled, nothing is lost and nothing is twice."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from servers.gmail import Gmail, Upset
from servers.proxy import Fault, FaultProxy

COUNT = 25
STEPS = [
    ("after", "ledger.claim", 2),
    ("before", "ledger.advance", 1),
    ("after", "ledger.advance", 1),
    ("during", "session.pending", 1),
    ("during", "session.fetch", 2),
    ("after", "sink.deliver", 1),
    ("before", "session.settle", 1),
    ("after", "session.settle", 2),
]


@pytest.fixture
def server() -> Iterator[Gmail]:
    with Gmail() as gmail:
        gmail.page_size = 7
        yield gmail
        assert gmail.violations == []


@pytest.fixture
def site(tmp_path: Path, server: Gmail) -> Site:
    """A site with one mailbox, ``support``, whose messages are marked and moved."""
    site = Site(tmp_path)
    site.settings["service"]["batch_messages"] = 10
    site.settings["mailboxes"]["support"] = {
        "type": "gmail",
        "user": server.user,
        "url": server.url,
        "auth": server.auth,
        "default_queue": "support",
        "start": "all",
        "disposition": {"seen": True, "move": "Processed"},
        "poll_interval": "1s",
        "reconnect_interval": "1s",
        "notice_interval": "200ms",
    }
    return site


def fill(server: Gmail, count: int = COUNT) -> Counter[str]:
    for number in range(count):
        server.deliver(plain(subject=f"message {number}"))
    return Counter(f"message {number}" for number in range(count))


def assert_all_is_well(site: Site, server: Gmail, expected: Counter[str]) -> None:
    assert site.subjects() == expected
    assert server.under("INBOX") == []
    moved = server.under("Processed")
    assert len(moved) == expected.total()
    assert not any("UNREAD" in mail.labels for mail in moved)
    counts = site.ledger_counts("support")
    assert counts == {"claimed": 0, "deferred": 0, "settled": expected.total(), "undisposed": 0}
    assert not any((site.directory / "state" / "quarantine").glob("new/*"))
    assert_no_secret_is_on_disk(site, server)


def assert_no_secret_is_on_disk(site: Site, server: Gmail) -> None:
    """Neither token nor secret is in the ledger, the queue, the state or the log. The configuration has the secrets, of course."""
    secrets = [b"app-secret", b"refresh-me", *(token.encode() for token in server.tokens)]
    assert len(secrets) > 2
    looked_at = 0
    for file in site.directory.rglob("*"):
        if file.is_file() and file.name != "mailpoller.yaml":
            octets = file.read_bytes()
            assert [file.name for secret in secrets if secret in octets] == []
            looked_at += 1
    assert looked_at >= 3


@pytest.mark.parametrize(("when", "step", "number"), STEPS, ids=lambda value: str(value))
def test_killed_at_any_step_nothing_is_lost_and_nothing_is_twice(
    site: Site, server: Gmail, when: str, step: str, number: int
) -> None:
    expected = fill(server)
    assert site.once(kill=(when, step, number)) == -signal.SIGKILL
    assert site.once() == 0
    assert_all_is_well(site, server, expected)


def test_killed_and_then_told_that_the_history_is_gone_nothing_is_lost_and_nothing_is_twice(
    site: Site, server: Gmail
) -> None:
    site.settings["mailboxes"]["support"]["disposition"] = "seen"
    expected = fill(server)
    assert site.once(kill=("after", "session.settle", 1)) == -signal.SIGKILL
    for number in range(2):
        server.deliver(plain(subject=f"meanwhile {number}"), seen=True)
        expected[f"meanwhile {number}"] += 1
        server.expire_history()
        assert site.once() == 0
    assert site.subjects() == expected


@pytest.mark.parametrize("start", ["unseen", "now", "since:2026-01-01"])
def test_what_the_first_run_left_out_stays_left_out_whatever_people_do_to_it(
    site: Site, server: Gmail, start: str
) -> None:
    site.settings["mailboxes"]["support"] |= {"start": start, "disposition": "seen"}
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    old = [server.deliver(plain(subject=f"old {n}"), seen=True, received=long_ago) for n in range(10)]
    expected: Counter[str] = Counter() if start == "now" else fill(server, 5)
    assert site.once() == 0
    server.relabel(old[0], add=["UNREAD"])
    server.relabel(old[1], add=["STARRED"])
    server.relabel(old[2], remove=["INBOX"])
    server.relabel(old[2], add=["INBOX"])
    assert site.once() == 0
    server.expire_history()
    server.deliver(plain(subject="new"), seen=True)
    assert site.once() == 0
    assert site.subjects() == expected + Counter(["new"])


def faults(seed: int) -> list[Fault]:
    dice = random.Random(seed)
    plan = []
    for _ in range(16):
        direction = dice.choice(("down", "down", "up"))
        reach = 2_000 if direction == "up" else dice.choice((400, 3_000, 30_000))
        plan.append(Fault(dice.choice(("cut", "close", "stall")), dice.randrange(reach), direction))  # type: ignore[arg-type]
    return plan


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [1, 2])
async def test_cut_stalled_throttled_and_refused_at_random(site: Site, server: Gmail, seed: int) -> None:
    dice = random.Random(seed)
    expected: Counter[str] = Counter()
    for number in range(80):
        padding = "x" * 70 + "\r\n"
        text = padding * (1500 if number % 20 == 7 else dice.randrange(1, 200))
        server.deliver(plain(subject=f"message {number}", text=text))
        expected[f"message {number}"] += 1
    async with FaultProxy(server.port, plan=faults(seed)) as proxy:
        site.settings["mailboxes"]["support"] |= {
            "url": f"http://127.0.0.1:{proxy.port}",
            "reconnect_interval": "50ms",
            "timeout": "1s",
        }
        with site.run() as daemon:
            for turn in range(30):
                await asyncio.sleep(0.3)
                server.deliver(plain(subject=f"during turn {turn}"))
                expected[f"during turn {turn}"] += 1
                server.calm()
                server.upset(
                    "/messages", Upset.throttled(after="0.2"), Upset.throttled(403, "userRateLimitExceeded", "0.2")
                )
                server.upset("/messages/", Upset.refusal(500, "backendError", "Backend Error"))
                if turn == 2:
                    server.expire_history()
                await proxy.refuse()
                await asyncio.sleep(0.2)
                await proxy.accept()
                if turn > 3 and proxy.connections > 8:
                    break
            server.calm()
            proxy.plan = []
            proxy.cut()
            await asyncio.to_thread(daemon.until, lambda: site.subjects().total() >= expected.total(), 90)
            assert await asyncio.to_thread(daemon.stop) == 0
        assert proxy.connections > 4, "faults were met"
        assert await asyncio.to_thread(site.once) == 0, "what was not heard of is done again"
    assert_all_is_well(site, server, expected)
    server.violations.clear()  # a request that is cut in its head looks like a wrong one


def test_news_is_fetched_long_before_the_next_poll(site: Site, server: Gmail) -> None:
    site.settings["mailboxes"]["support"]["poll_interval"] = "1h"
    with site.run() as daemon:
        daemon.until_said("session.opened")
        daemon.until(lambda: server.count("GET /history"))
        server.deliver(plain(subject="news"))
        daemon.until(lambda: site.subjects() == Counter(["news"]), 10)
        assert daemon.stop() == 0
    assert_no_secret_is_on_disk(site, server)


def test_message_that_cannot_be_had_does_not_stop_the_others_and_is_had_in_the_end(site: Site, server: Gmail) -> None:
    expected = fill(server, 8)
    broken = list(server.mails)[3]
    server.upset(f"GET .*/messages/{broken}", *[Upset.refusal(500, "backendError", "Backend Error")] * 1000)
    site.once()
    assert site.subjects().total() == 7
    server.calm()
    with site.run() as daemon:
        daemon.until(lambda: site.subjects() == expected, 40)
        assert daemon.stop() == 0


def test_refused_token_ends_in_a_mailbox_that_waits_and_names_the_reason(site: Site, server: Gmail) -> None:
    server.scope = "https://www.googleapis.com/auth/gmail.readonly"
    server.upset(
        "/profile", *[Upset.refusal(403, "insufficientPermissions", f"Insufficient Permission {'A' * 60}")] * 100
    )
    with site.run() as daemon:
        daemon.until_said("mailbox.refused")
        assert "gmail.modify" in daemon.said
        assert daemon.stop() == 0
    assert_no_secret_is_on_disk(site, server)
