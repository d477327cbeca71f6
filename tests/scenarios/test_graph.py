"""The real command on a Graph mailbox: killed at any step, cut, stalled and throttled, nothing is lost and nothing is twice."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailpoller.testing.builders import auto_reply, plain
from scenarios.harness import Site
from servers.graph import Graph, strict_graph
from servers.proxy import Fault, FaultProxy

COUNT = 25
STEPS = [
    ("after", "ledger.claim", 2),
    ("after", "ledger.advance", 1),
    ("during", "session.fetch", 2),
    ("after", "sink.deliver", 1),
    ("before", "session.settle", 1),
    ("after", "session.settle", 2),
]


@pytest.fixture
def server() -> Iterator[Graph]:
    with strict_graph() as graph:
        graph.page_size = 7
        yield graph


@pytest.fixture
def site(tmp_path: Path, server: Graph) -> Site:
    """A site with one mailbox, ``support``, whose messages are marked and moved."""
    site = Site(tmp_path)
    site.settings["service"]["batch_messages"] = 10
    site.settings["mailboxes"]["support"] = {
        "type": "graph",
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


def fill(server: Graph, count: int = COUNT) -> Counter[str]:
    for number in range(count):
        server.deliver(plain(subject=f"message {number}"))
    return Counter(f"message {number}" for number in range(count))


def assert_all_is_well(site: Site, server: Graph, expected: Counter[str]) -> None:
    assert site.subjects() == expected
    assert server.mails() == []
    moved = server.mails("Processed")
    assert len(moved) == expected.total()
    assert all(mail.seen for mail in moved)
    counts = site.ledger_counts("support")
    assert counts == {"claimed": 0, "deferred": 0, "settled": expected.total(), "undisposed": 0}
    assert not any((site.directory / "state" / "quarantine").glob("new/*"))
    assert_no_secret_is_on_disk(site, server)


def assert_no_secret_is_on_disk(site: Site, server: Graph) -> None:
    """Neither token nor secret is in the ledger, the queue, the state or the log. The configuration has the secret, of course."""
    secrets = [server.secret.encode(), *(part.encode() for token in server.tokens for part in token.split(".")[2:])]
    assert len(secrets) > 1
    looked_at = 0
    for file in site.directory.rglob("*"):
        if file.is_file() and file.name != "mailpoller.yaml":
            octets = file.read_bytes()
            assert [file.name for secret in secrets if secret in octets] == []
            looked_at += 1
    assert looked_at >= 3


@pytest.mark.parametrize(("when", "step", "number"), STEPS, ids=lambda value: str(value))
def test_killed_at_any_step_nothing_is_lost_and_nothing_is_twice(
    site: Site, server: Graph, when: str, step: str, number: int
) -> None:
    expected = fill(server)
    assert site.once(kill=(when, step, number)) == -signal.SIGKILL
    assert site.once() == 0
    assert_all_is_well(site, server, expected)


def test_killed_and_then_told_that_the_delta_token_is_unknown_nothing_is_twice(site: Site, server: Graph) -> None:
    site.settings["mailboxes"]["support"]["disposition"] = "seen"
    expected = fill(server)
    assert site.once(kill=("after", "session.settle", 1)) == -signal.SIGKILL
    for _ in range(2):
        server.expire()
        assert site.once() == 0
    assert site.subjects() == expected
    assert all(mail.seen for mail in server.mails())


def test_what_the_first_run_left_out_stays_left_out_whatever_people_do_to_it(site: Site, server: Graph) -> None:
    mailbox = site.settings["mailboxes"]["support"]
    mailbox |= {"start": "unseen", "disposition": "seen", "sweep_interval": "100ms"}
    old = [server.deliver(plain(subject=f"old {number}"), seen=True) for number in range(10)]
    expected = fill(server, 5)
    assert site.once() == 0
    server.change(old[0], seen=False)
    server.change(old[1], flagged=True)
    server.move(old[2], "deleteditems")
    server.move(old[2], "inbox")
    assert site.once() == 0
    server.expire()
    server.deliver(plain(subject="new"), seen=True)
    assert site.once() == 0
    assert site.subjects() == expected + Counter(["new"])


def faults(seed: int) -> list[Fault]:
    dice = random.Random(seed)
    plan = []
    for _ in range(16):
        direction = dice.choice(("down", "down", "up"))
        reach = 6_000 if direction == "up" else dice.choice((1_500, 10_000, 60_000))
        plan.append(Fault(dice.choice(("cut", "close", "stall")), dice.randrange(reach), direction))  # type: ignore[arg-type]
    return plan


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [1, 2])
async def test_cut_stalled_throttled_and_refused_at_random(site: Site, server: Graph, seed: int) -> None:
    dice = random.Random(seed)
    expected: Counter[str] = Counter()
    for number in range(80):
        padding = "x" * 70 + "\r\n"
        server.deliver(
            plain(subject=f"message {number}", text=padding * (1500 if number % 20 == 7 else dice.randrange(1, 200)))
        )
        expected[f"message {number}"] += 1
    async with FaultProxy(server.port, plan=faults(seed)) as proxy:
        server.reached_at = proxy.port
        site.settings["mailboxes"]["support"] |= {
            "url": f"http://127.0.0.1:{proxy.port}/v1.0",
            "reconnect_interval": "50ms",
            "timeout": "1s",
        }
        with site.run() as daemon:
            for turn in range(4):
                await asyncio.sleep(1)
                server.throttle(2, retry_after=0.2)
                server.throttle_parts(5, retry_after=0.1)
                if turn == 2:
                    server.expire()
                await proxy.refuse()
                await asyncio.sleep(0.2)
                await proxy.accept()
            proxy.plan = []
            proxy.cut()
            await asyncio.to_thread(daemon.until, lambda: site.subjects().total() >= expected.total(), 90)
            assert await asyncio.to_thread(daemon.stop) == 0
            assert daemon.count("mailbox.failed") >= 3
        # What was on its way when a line was cut is due a minute later, or at the next start.
        assert await asyncio.to_thread(site.once) == 0
    assert_all_is_well(site, server, expected)


def test_news_is_fetched_long_before_the_next_poll(site: Site, server: Graph) -> None:
    site.settings["mailboxes"]["support"]["poll_interval"] = "1h"
    with site.run() as daemon:
        daemon.until_said("session.opened")
        daemon.until(lambda: server.count("/delta"))
        server.deliver(plain(subject="news"))
        daemon.until(lambda: site.subjects() == Counter(["news"]), 10)
        assert daemon.stop() == 0
    assert_no_secret_is_on_disk(site, server)


def test_message_that_cannot_be_had_does_not_stop_the_others_and_is_had_in_the_end(site: Site, server: Graph) -> None:
    expected = fill(server, 8)
    broken = server.mails()[3].uid
    server.broken[broken] = 500, "ErrorMimeContentConversionFailed"
    site.once()
    assert site.subjects().total() == 7
    server.broken.clear()
    with site.run() as daemon:
        daemon.until(lambda: site.subjects() == expected, 40)
        assert daemon.stop() == 0


def test_quarantine_goes_to_a_mailbox_by_graph(site: Site, server: Graph) -> None:
    site.settings["outgoing"] = {
        "office": {"type": "graph", "sender": server.user, "url": server.url, "auth": server.auth}
    }
    site.settings["quarantine"] = {"type": "smtp", "outgoing": "office", "to": "quarantine@example.com"}
    robot = auto_reply(subject="away")
    server.deliver(robot)
    expected = fill(server, 3)
    assert site.once() == 0
    assert site.subjects() == expected
    (sent,) = server.sent
    assert b"quarantine@example.com" in sent
    assert len(server.mails("Processed")) == 4
    assert not any((site.directory / "state" / "quarantine").glob("new/*"))
