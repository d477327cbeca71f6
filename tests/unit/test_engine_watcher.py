"""One mailbox's watcher through every kind of trouble."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from engine_rig import Rig, log, until  # noqa: F401

from mailpoller.core.errors import (
    ConfigError,
    CredentialsMissing,
    CredentialsRefused,
    LedgerUnavailable,
    SessionLost,
    TransientError,
)
from mailpoller.engine import setbacks as setbacks_module
from mailpoller.engine.alarm import Kind
from mailpoller.engine.availability import State
from mailpoller.engine.health import Condition
from mailpoller.testing.builders import plain
from mailpoller.testing.deliveries import make_delivery
from mailpoller.testing.fake_source import FakeSource


@pytest.mark.parametrize("step", ["connect", "folders", "open", "pending", "fetch", "settle", "wait", "close"])
async def test_a_mailbox_comes_back_after_trouble_at_any_step(step: str) -> None:
    rig = Rig()
    expected = rig.fill(5)
    rig.source.faults.fail(step, SessionLost("cut"), times=3)
    if step == "close":
        rig.source.faults.fail("wait", SessionLost("so that it closes"), times=3)

    def passed() -> bool:
        rig.later(seconds=30)
        return rig.source.faults.met.count(step) >= 3 and rig.subjects() == expected

    async with rig.running():
        await until(passed)
        late = rig.fill(1, "late")
        await until(lambda: rig.subjects() == expected + late)
    assert (await rig.counts())["claimed"] == 0


async def test_wrong_credentials_are_tried_slowly_and_never_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setbacks_module, "CREDENTIALS_RETRY", timedelta(milliseconds=200))
    rig = Rig()
    expected = rig.fill(1)
    rig.source.faults.fail("connect", CredentialsRefused("no"), times=3)
    began = time.monotonic()
    async with rig.running():
        await until(lambda: rig.subjects() == expected)
        assert time.monotonic() - began >= 0.2 * 3


async def test_a_queue_that_comes_and_goes_makes_nobody_knock_faster_after_wrong_credentials() -> None:
    rig = Rig()
    rig.source.faults.fail("connect", CredentialsRefused("no"), times=3)
    async with rig.running():
        await until(lambda: rig.health.mailboxes["support"].condition is Condition.REFUSED)
        for _ in range(50):
            rig.watcher.rouse()
            await asyncio.sleep(0.002)
        assert len(rig.source.faults.met) == 1


async def test_an_operator_who_polls_ends_the_wait_after_wrong_credentials() -> None:
    rig = Rig()
    expected = rig.fill(1)
    rig.source.faults.fail("connect", CredentialsRefused("no"))
    async with rig.running():
        await until(lambda: rig.health.mailboxes["support"].condition is Condition.REFUSED)
        rig.watcher.stir()
        await until(lambda: rig.subjects() == expected)


async def test_one_dropped_connection_costs_seconds_and_the_second_one_the_whole_wait() -> None:
    rig = Rig(reconnect_interval="1h")
    rig.source.faults.fail("connect", SessionLost("dropped"))
    expected = rig.fill(1)
    async with rig.running():
        await until(lambda: rig.subjects() == expected)
        rig.source.faults.fail("wait", SessionLost("dropped"), times=1)
        rig.watcher.stir()
        health = rig.health.mailboxes["support"]
        await until(lambda: health.condition is Condition.RETRYING)
        assert health.next_try_at is not None
        assert health.next_try_at - rig.clock.now() > timedelta(minutes=50)


async def test_an_operator_who_polls_has_the_token_asked_for_anew_and_no_wait_is_longer_than_a_tokens_life() -> None:
    class TokenedSource(FakeSource):
        anew = 0

        def ask_anew(self) -> None:
            self.anew += 1

        def token_left(self) -> timedelta:
            return timedelta(seconds=90)

    rig = Rig()
    source = rig.watcher.source = TokenedSource(rig.mailbox, name="support")
    source.faults.fail("connect", CredentialsRefused("no"))
    expected = rig.fill(1)
    async with rig.running():
        health = rig.health.mailboxes["support"]
        await until(lambda: health.condition is Condition.REFUSED)
        assert health.next_try_at is not None
        assert health.next_try_at - rig.clock.now() <= timedelta(seconds=90)
        rig.watcher.insist()
        assert source.anew == 1
        await until(lambda: rig.subjects() == expected)


async def test_the_wait_grows_while_the_server_takes_us_and_drops_us() -> None:
    rig = Rig(reconnect_interval="20ms")
    rig.source.faults.fail("pending", SessionLost("dropped"), times=6)
    began = time.monotonic()
    async with rig.running():
        await until(lambda: len(rig.source.faults.met) == 6)
    assert time.monotonic() - began >= 0.02 * (1 / 3 + 1 + 2 + 4 + 8)


@pytest.mark.parametrize("step", ["open_folder", "due", "claim", "settle", "advance", "disposed", "complete"])
async def test_a_ledger_that_cannot_commit_raises_one_alarm_and_ends_it_by_itself(step: str) -> None:
    rig = Rig()
    expected = rig.fill(5)
    rig.ledger.fail(step, times=3)
    async with rig.running():
        await until(lambda: rig.subjects() == expected and len(rig.source.applied) >= 0)
        await until(lambda: rig.health.mailboxes["support"].last_poll_at is not None)
        rig.later(minutes=2)
        await until(lambda: len({one.ref.uid for one in rig.source.applied}) == 5)
        assert len(rig.sinks["support"].held) == 5


async def test_a_folder_that_cannot_be_opened_is_trouble_and_passes() -> None:
    rig = Rig()
    rig.source.faults.fail("open", TransientError("not selectable"), times=2)
    expected = rig.fill(2)
    async with rig.running():
        await until(lambda: rig.subjects() == expected)


@pytest.mark.parametrize(
    "lack",
    [
        ConfigError("the certificate file cannot be read"),
        CredentialsMissing("file:/run/secret is empty"),
        ModuleNotFoundError("No module named 'jwt'", name="jwt"),
    ],
    ids=["file", "secret", "module"],
)
async def test_a_mailbox_that_lacks_something_here_is_refused_with_an_alarm_and_looks_again(
    lack: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setbacks_module, "LOOK_AGAIN", timedelta(milliseconds=100))
    rig = Rig(reconnect_interval="1h")
    rig.source.faults.fail("connect", lack, times=2)
    expected = rig.fill(1)
    async with rig.running():
        health = rig.health.mailboxes["support"]
        await until(lambda: health.condition is Condition.REFUSED)
        async with asyncio.timeout(5):
            while not await rig.alarm.stands(Kind.MAILBOX_LACKING, "support", now=True):
                await asyncio.sleep(0.001)
        assert "jwt" in health.reason or "file" in health.reason
        await until(lambda: rig.subjects() == expected)
        await until(lambda: health.condition is Condition.WAITING)
    assert not await rig.alarm.stands(Kind.MAILBOX_LACKING, "support", now=True)
    assert not health.rebuilt  # a missing module is no bug


async def test_new_mail_is_taken_as_soon_as_the_server_tells() -> None:
    rig = Rig(poll_interval="1h")
    async with rig.running():
        await until(lambda: rig.health.mailboxes["support"].condition is Condition.WAITING)
        expected = rig.fill(3)
        await until(lambda: rig.subjects() == expected)


@pytest.mark.parametrize("where", ["waiting", "backing off", "connecting", "fetching"])
async def test_a_stop_ends_every_kind_of_wait_at_once(where: str) -> None:
    rig = Rig(poll_interval="1h", reconnect_interval="1h" if where == "backing off" else "10ms")
    rig.fill(1)
    match where:
        case "backing off":
            rig.source.faults.fail("connect", TransientError("no"))
        case "connecting":
            rig.source.faults.hang("connect")
        case "fetching":
            rig.source.faults.hang("fetch")
    watching = asyncio.create_task(rig.watcher.run())
    reached = {
        "waiting": Condition.WAITING,
        "backing off": Condition.RETRYING,
        "connecting": Condition.CONNECTING,
        "fetching": Condition.POLLING,
    }[where]
    await until(lambda: rig.health.mailboxes["support"].condition is reached)
    await asyncio.sleep(0.01)
    rig.stop.set()
    rig.watcher.stir()
    if where == "fetching":
        watching.cancel()  # what the supervisor does when the grace period is over
    await asyncio.wait({watching}, timeout=60)
    assert watching.done()
    assert (await rig.counts())["claimed"] == 0


async def test_the_ledger_is_asked_before_anything_is_fetched_after_an_outage_of_it() -> None:
    rig = Rig()
    expected = rig.fill(5)
    rig.ledger.fail("settle", LedgerUnavailable("full"))
    rig.ledger.fail("release", LedgerUnavailable("full"), times=4)
    async with rig.running():
        await until(lambda: rig.subjects() == expected)
        await until(lambda: len(rig.source.applied) == 5)
    assert set(rig.downloads().values()) == {2}


async def take_down(rig: Rig) -> None:
    """The queue of all mail fails, and fails its checks, until its sink's faults are cleared."""
    for step in ("deliver", "check"):
        rig.sinks["support"].faults.fail(step, TransientError("down"), times=1_000_000)
    with pytest.raises(TransientError):
        await rig.queues["support"].deliver([make_delivery()])


async def polls(rig: Rig, count: int) -> None:
    """So many more polls are completed."""
    for _ in range(count):
        last = rig.health.mailboxes["support"].last_poll_at
        await until(lambda last=last: rig.health.mailboxes["support"].last_poll_at != last)  # type: ignore[misc]


async def test_the_first_run_of_a_folder_is_said_once_however_long_its_queue_is_down(log: list[Any]) -> None:  # noqa: F811
    rig = Rig(reachable=frozenset({"support"}), poll_interval="5ms")
    await take_down(rig)
    expected = rig.fill(2)
    async with rig.running():
        await polls(rig, 5)
        assert rig.downloads().total() == 0
        rig.sinks["support"].faults.clear()
        rig.queues["support"].availability.down_until = 0
        await until(lambda: rig.subjects() == expected)
    assert [entry["folder"] for entry in log if entry["event"] == "folder.started"] == ["INBOX"]


async def test_a_new_epoch_is_looked_at_and_said_once_however_long_its_queue_is_down(log: list[Any]) -> None:  # noqa: F811
    rig = Rig(reachable=frozenset({"support"}), poll_interval="5ms", hold_above=3)
    expected = rig.fill(2)
    assert await rig.watcher.drain()
    rig.mailbox.renumber()
    await take_down(rig)
    listed = rig.source.steps.count("pending")
    async with rig.running():
        await polls(rig, 3)
        assert rig.source.steps.count("pending") == listed + 1
        expected += rig.fill(5, "later")
        await polls(rig, 3)
        assert rig.health.mailboxes["support"].condition is not Condition.HELD, "what came later is no doubtful epoch"
        rig.sinks["support"].faults.clear()
        rig.queues["support"].availability.down_until = 0
        await until(lambda: rig.subjects() == expected)
    assert [entry["unknown"] for entry in log if entry["event"] == "epoch.changed"] == [0]


async def test_news_of_mail_that_nobody_would_take_is_no_reason_to_look_again_and_again() -> None:
    rig = Rig(reachable=frozenset({"support"}), poll_interval="100ms")
    async with rig.running():
        await polls(rig, 1)
        await take_down(rig)
        rig.fill(1)
        await polls(rig, 4)
    assert rig.source.steps.count("wait") < 20


async def test_old_mail_that_waits_for_its_queue_is_not_lost_when_the_numbering_changes() -> None:
    rig = Rig()
    rig.mailbox.deliver(plain(subject="old"), received=rig.clock.now() - timedelta(days=30))
    rig.sinks["support"].faults.fail("deliver", TransientError("down"))
    for _ in range(2):
        await rig.watcher.drain()
    rig.mailbox.renumber()
    rig.queues["support"].availability.state = State.UP
    await rig.watcher.drain()
    assert rig.subjects() == {"old": 1}


async def test_mail_that_cannot_be_fetched_in_its_new_numbering_is_known_once_it_can_be() -> None:
    rig = Rig()
    expected = rig.fill(3)
    assert await rig.watcher.drain()
    rig.mailbox.renumber()
    rig.source.faults.fail("fetch", TransientError("not now"))
    for _ in range(2):
        await rig.watcher.drain()
    rig.later(minutes=1)
    assert await rig.watcher.drain()
    assert rig.downloads().total() == 6
    assert rig.subjects() == expected


@pytest.mark.parametrize("start", ["unseen", "now"])
async def test_new_mail_that_waits_and_was_read_meanwhile_is_not_lost_when_the_numbering_changes(start: str) -> None:
    rig = Rig(start=start)
    old = rig.clock.now() - timedelta(days=30)
    rig.mailbox.deliver(plain(subject="old"), received=old)
    rig.sinks["support"].faults.fail("deliver", TransientError("down"), times=9)
    await rig.watcher.drain()
    rig.mailbox.deliver(plain(subject="new"), received=rig.clock.now() + timedelta(seconds=1))
    await rig.watcher.drain()
    for mail in rig.mailbox.folders["INBOX"].mails.values():
        mail.flags.add("\\Seen")
    rig.mailbox.renumber()
    rig.sinks["support"].faults.clear()
    rig.queues["support"].availability.state = State.UP
    await rig.watcher.drain()
    assert rig.subjects() == ({"new": 1} if start == "now" else {"old": 1, "new": 1}), (
        "what start wanted is decided once"
    )
