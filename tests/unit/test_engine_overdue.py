"""Nothing ends in silence: what should have come to its end is said once, shown, told, and taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from engine_rig import Rig, log

from mailpoller.core.delivery import Disposed, Question, Settlement
from mailpoller.core.errors import TransientError
from mailpoller.core.message import Folder, MessageRef
from mailpoller.engine import supervisor as supervisor_module
from mailpoller.engine.alarm import Kind
from mailpoller.engine.health import Condition, Health
from mailpoller.engine.notify import Notifier
from mailpoller.engine.overdue import Overdue
from mailpoller.testing.fake_source import SURVEYED, FakeSession

__all__ = ["log"]

FOLDER = Folder("support", "INBOX", "fake fake.example support 1")


def overdue(rig: Rig) -> Overdue:
    return Overdue(rig.ledger, rig.health, rig.alarm, rig.clock, rig.fleet.watchers)


def events(log: Sequence[Any], name: str) -> list[Any]:
    return [entry for entry in log if entry["event"] == name and entry["log_level"] == "warning"]


async def keys(rig: Rig) -> list[str]:
    """The alarms that stand, once what ended is taken back."""
    await rig.alarm.step()
    rig.later(minutes=2)
    await rig.alarm.step()
    rig.later(minutes=-2)
    return sorted(edge.key for edge in await rig.ledger.alarms())


def rig_of(interval: str = "1m", **more: Any) -> Rig:
    return Rig(poll_interval=interval, **more)


# --- mailboxes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("interval", "silent", "told"),
    [
        ("1m", timedelta(minutes=9), False),
        ("1m", timedelta(minutes=11), True),
        ("30m", timedelta(minutes=119), False),
        ("30m", timedelta(minutes=121), True),
        ("90m", timedelta(minutes=178), False),  # two polls at least
        ("90m", timedelta(minutes=182), True),
    ],
)
async def test_a_mailbox_that_completes_no_poll_is_told_after_ten_polls_or_two_hours_but_two_polls_at_least(
    interval: str, silent: timedelta, told: bool
) -> None:
    rig = rig_of(interval)
    looking = overdue(rig)
    rig.health.polled(rig.name)
    rig.clock.ahead += silent
    rig.health.enter(rig.name, Condition.POLLING)
    await looking.look()
    assert (await keys(rig) == [f"mailbox-overdue:{rig.name}"]) is told
    rig.health.polled(rig.name)
    await looking.look()
    assert await keys(rig) == []


async def test_what_a_failing_mailbox_goes_through_resets_nothing(log: list[Any]) -> None:
    rig = rig_of()
    looking = overdue(rig)
    for minute in range(30):
        rig.later(minutes=1)
        rig.health.enter(rig.name, (Condition.CONNECTING, Condition.POLLING)[minute % 2])
        await looking.look()
    assert rig.health.mailboxes[rig.name].behind(rig.clock.now())
    assert await keys(rig) == [f"mailbox-overdue:{rig.name}"]
    assert sorted(entry["reason"] for entry in events(log, "mailbox.overdue")) == ["connecting", "polling"], "once each"
    assert "mailbox.overdue" in {fault.event for fault in await rig.ledger.faults(rig.name)}


async def test_a_process_that_is_started_again_and_again_does_not_begin_to_count_anew() -> None:
    rig = rig_of()
    rig.health.polled(rig.name)
    await overdue(rig).look()
    rig.later(hours=3)
    again = Rig(poll_interval="1m", ledger=rig.ledger.restarted())
    again.clock.ahead = rig.clock.ahead
    again.health.recall(await again.ledger.last_polls(), await again.ledger.first_runs())
    assert again.health.mailboxes[again.name].behind(again.clock.now())
    assert again.health.report()[0]["last_poll_at"] == rig.health.report()[0]["last_poll_at"]
    await overdue(again).look()
    assert await keys(again) == [f"mailbox-overdue:{again.name}"]


async def test_a_mailbox_whose_first_poll_never_ended_is_measured_from_its_first_run() -> None:
    rig = rig_of()
    rig.fill(1)
    await rig.carry()
    health = Health(rig.clock)
    rig.later(hours=3)
    health.recall(await rig.ledger.last_polls(), await rig.ledger.first_runs())
    assert health.register(rig.name, timedelta(minutes=1)).behind(rig.clock.now())
    assert health.report()[0]["last_poll_at"] is None


async def test_polls_are_kept_in_one_commit_and_only_when_there_is_news() -> None:
    rig = rig_of()
    looking = overdue(rig)
    await looking.look()
    assert "polled" not in rig.ledger.calls
    rig.health.polled(rig.name)
    await looking.look()
    await looking.look()
    assert rig.ledger.calls.count("polled") == 1


async def test_polls_are_kept_when_the_service_stops() -> None:
    rig = rig_of()
    looking, stop = overdue(rig), asyncio.Event()
    running = asyncio.create_task(looking.run(stop))
    await asyncio.sleep(0.01)
    rig.health.polled(rig.name)
    stop.set()
    await running
    assert list(await rig.ledger.last_polls()) == [rig.name]
    assert looking.over.is_set()


async def test_a_mailbox_whose_trouble_has_an_alarm_gets_no_second_one() -> None:
    rig = rig_of()
    looking = overdue(rig)
    await rig.alarm.raised(Kind.MAILBOX_DOWN, rig.name, "connection refused")
    rig.later(hours=3)
    await looking.look()
    assert await keys(rig) == [f"mailbox-down:{rig.name}"]


async def test_a_task_that_is_built_anew_again_and_again_is_told_until_it_runs_on(log: list[Any]) -> None:
    rig = rig_of()
    looking = overdue(rig)
    for times in range(3):
        assert await keys(rig) == [], times
        rig.watcher.rebuilt("watcher.stalled", "no step got anywhere within its budget")
        rig.health.polled(rig.name)
        await looking.look()
        rig.later(minutes=20)
    assert await keys(rig) == [f"watcher-failing:{rig.name}"]
    assert rig.health.report()[0]["rebuilt"] == 3
    rig.later(hours=1)
    rig.health.polled(rig.name)
    await looking.look()
    assert await keys(rig) == []


# --- messages ---------------------------------------------------------------------------------------------------------
async def test_a_message_that_the_server_lists_and_never_gives_is_told_after_an_hour_with_uid_date_and_size(
    log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = rig_of()
    rig.fill(3)
    given = FakeSession.fetch

    async def without_the_second(self: FakeSession, claims: Sequence[Any], limit: int) -> Any:
        async for answer in given(self, [claim for claim in claims if claim.ref.uid != "2"], limit):
            yield answer

    monkeypatch.setattr(FakeSession, "fetch", without_the_second)
    looking = overdue(rig)
    for _ in range(7):
        await rig.watcher.drain()
        await looking.look()
        rig.later(minutes=10)
    assert len(rig.subjects()) == 2, "the others go on"
    assert rig.mailbox.uids() == ["1", "2", "3"]
    mail = rig.mailbox.folders["INBOX"].mails["2"]
    assert await keys(rig) == ["mail-stuck:support, uid 2 of INBOX"]
    (edge,) = await rig.ledger.alarms()
    assert f"received {mail.received:%Y-%m-%d %H:%M} UTC, {len(mail.octets)} octets" in edge.summary
    assert len(events(log, "message.unfetched")) == 1, "once for each reason"
    assert len(events(log, "message.overdue")) == 1
    assert [(one.ref.uid, one.what) for one in looking.stuck] == [("2", "fetch")]
    assert "message.overdue" in {fault.event for fault in await rig.ledger.faults(rig.name)}
    # A restart begins no hour anew, and takes nothing back.
    again = Rig(poll_interval="1m", ledger=rig.ledger.restarted())
    again.clock.ahead = rig.clock.ahead
    again.health.polled(again.name)
    await overdue(again).look()
    assert await keys(again) == ["mail-stuck:support, uid 2 of INBOX"]
    monkeypatch.setattr(FakeSession, "fetch", given)
    rig.later(hours=4)
    await rig.watcher.drain()
    assert len(rig.subjects()) == 3
    await looking.look()
    assert await keys(rig) == []
    assert not looking.stuck


async def test_the_date_of_a_message_that_never_came_is_asked_for_where_the_listing_does_not_tell_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = rig_of()
    rig.fill(1 + 2 * SURVEYED)
    given = FakeSession.fetch

    async def without_the_first(self: FakeSession, claims: Sequence[Any], limit: int) -> Any:
        async for answer in given(self, [claim for claim in claims if claim.ref.uid != "1"], limit):
            yield answer

    monkeypatch.setattr(FakeSession, "fetch", without_the_first)
    await rig.watcher.drain()
    rig.later(hours=2)
    (waiting,) = await rig.ledger.stuck(rig.clock.now())
    mail = rig.mailbox.folders["INBOX"].mails["1"]
    assert waiting.ref.received == mail.received.replace(microsecond=0)


async def test_a_disposition_that_stays_pending_is_told_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rig_of(disposition="delete")
    rig.fill(1)
    settle = FakeSession.settle

    async def undecided(self: FakeSession, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        return [Disposed(one, "pending", "no word of it") for one in settlements]

    monkeypatch.setattr(FakeSession, "settle", undecided)
    looking = overdue(rig)
    for _ in range(8):
        await rig.watcher.drain()
        await looking.look()
        rig.later(minutes=10)
    assert await keys(rig) == ["disposition-pending:support, uid 1 of INBOX"]
    monkeypatch.setattr(FakeSession, "settle", settle)
    await rig.watcher.drain()
    await looking.look()
    assert await keys(rig) == []
    assert not rig.mailbox.uids()


async def test_a_name_whose_bearer_cannot_be_told_is_told_after_an_hour_and_no_longer_than_it_is_asked() -> None:
    rig = rig_of()
    looking = overdue(rig)
    question = Question(MessageRef(FOLDER, "7", 100), "5b1c9f0e-4a3d-5f5b-8c2e-0d8a5b3f9f6a", b"x" * 16)
    for _ in range(8):
        rig.health.polled(rig.name)
        rig.watcher.reports.questioned(FOLDER, [question])
        await looking.look()
        rig.later(minutes=10)
    assert await keys(rig) == ["mail-stuck:support, uid 7 of INBOX"]
    rig.health.polled(rig.name)
    rig.watcher.reports.questioned(FOLDER, [])
    await looking.look()
    assert await keys(rig) == []


async def test_mail_that_waits_for_a_queue_that_is_down_is_not_stuck() -> None:
    rig = rig_of()
    rig.fill(5)
    rig.sinks["support"].faults.fail("deliver", TransientError("down"), times=1000)
    await rig.watcher.drain()
    rig.later(hours=5)
    assert await rig.ledger.stuck(rig.clock.now()) == []


async def test_a_hundred_thousand_messages_that_wait_for_a_queue_cost_the_look_nothing() -> None:
    rig = rig_of()
    rig.fill(1)
    rig.source.faults.fail("fetch:0", TransientError("not this one"), times=1)
    await rig.watcher.drain()
    connection = rig.ledger.store.connection
    connection.execute(
        "WITH RECURSIVE number (n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM number LIMIT 100000) "
        "INSERT INTO message (folder, uid, state, due_at, mid, claimed_at, waits_for) "
        "SELECT 1, n, 'deferred', 1, randomblob(16), 1, 'support' FROM number"
    )
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.set_progress_handler(count, 100)
    found = await rig.ledger.stuck(rig.clock.now() + timedelta(hours=1))
    connection.set_progress_handler(None, 0)
    assert [one.ref.uid for one in found] == ["1"]
    assert steps < 100


async def test_many_messages_that_are_stuck_have_no_alarm_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rig_of(batch=100)
    rig.fill(60)

    async def nothing(self: FakeSession, claims: Sequence[Any], limit: int) -> Any:
        for answer in ():
            yield answer

    monkeypatch.setattr(FakeSession, "fetch", nothing)
    await rig.watcher.drain()
    rig.later(hours=2)
    rig.health.polled(rig.name)
    await overdue(rig).look()
    told = await keys(rig)
    assert len(told) == 51
    assert "mail-stuck:support, and others" in told


# --- run once ---------------------------------------------------------------------------------------------------------
async def test_a_drain_says_what_waits_and_what_is_not_disposed_of(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rig_of(disposition="delete")
    rig.fill(2)
    rig.source.faults.fail("fetch:1", TransientError("not this one"), times=1)
    settle = FakeSession.settle

    async def undecided(self: FakeSession, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        return [Disposed(one, "pending", "no word of it") for one in settlements]

    monkeypatch.setattr(FakeSession, "settle", undecided)
    assert not await rig.watcher.drain()
    assert str(rig.watcher.remainder) == "1 waiting, 1 to dispose of"
    monkeypatch.setattr(FakeSession, "settle", settle)
    assert not await rig.watcher.drain()
    assert str(rig.watcher.remainder) == "1 waiting"
    rig.later(hours=5)
    assert await rig.watcher.drain()
    assert str(rig.watcher.remainder) == ""


async def test_a_drain_looks_once_more_by_another_connection_at_what_a_session_alone_cannot_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = rig_of(disposition="delete")
    rig.fill(3)
    settle = FakeSession.settle

    async def at_the_end(self: FakeSession, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        results = await settle(self, settlements)
        new = rig.source.steps.count("connect") == 1
        return [Disposed(one.settlement, "pending", "it counts at QUIT") if new else one for one in results]

    monkeypatch.setattr(FakeSession, "settle", at_the_end)
    assert await rig.watcher.drain()
    assert rig.source.steps.count("connect") == 2
    assert (await rig.counts())["undisposed"] == 0


async def test_a_drain_that_hangs_ends_when_its_budget_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "HEARTBEAT", timedelta(milliseconds=10))
    rig = Rig(budget=timedelta(milliseconds=200))
    rig.source.faults.hang("pending", times=100)
    supervisor = rig.fleet.supervisor(notifier=Notifier(), grace=timedelta(seconds=1), services={})
    async with asyncio.timeout(20):
        assert not await supervisor.drain()


# --- listings that lack something -------------------------------------------------------------------------------------
async def test_a_listing_that_is_partial_completes_nothing_and_prunes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rig_of()
    rig.fill(3)
    pending = FakeSession.pending

    async def partial(self: FakeSession, *how: Any) -> Any:
        async for page in pending(self, *how):
            yield replace(page, refs=page.refs[:2], position=None, partial=True)

    monkeypatch.setattr(FakeSession, "pending", partial)
    assert not await rig.watcher.drain()
    assert "lacks messages" in str(rig.watcher.remainder)
    assert len(rig.subjects()) == 2, "what is listed is taken"
    folder = await opened(rig)
    assert not (await rig.ledger.open_folder(folder, rig.source.account)).complete
    monkeypatch.setattr(FakeSession, "pending", pending)
    assert await rig.watcher.drain()
    assert (await rig.ledger.open_folder(folder, rig.source.account)).complete
    monkeypatch.setattr(FakeSession, "pending", partial)
    rig.later(days=500)
    rig.source.steps.clear()
    for _ in range(3):
        await rig.watcher.drain()
    assert "prune" not in rig.ledger.calls
    monkeypatch.setattr(FakeSession, "pending", pending)
    rig.later(days=1)
    await rig.watcher.drain()
    assert "prune" in rig.ledger.calls


async def test_a_whole_listing_for_a_pruning_that_is_partial_is_asked_for_later_and_not_at_every_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = rig_of()
    rig.fill(3)
    await rig.watcher.drain()
    pending, asked = FakeSession.pending, 0

    async def partial(self: FakeSession, folder: Any, since: Any, start: Any) -> Any:
        nonlocal asked
        asked += since is None
        async for page in pending(self, folder, since, start):
            yield replace(page, partial=since is None)

    monkeypatch.setattr(FakeSession, "pending", partial)
    rig.later(days=2)
    for _ in range(5):
        await rig.watcher.drain()
    assert asked == 1
    assert "prune" not in rig.ledger.calls


async def test_a_gap_is_one_alarm_for_its_folder_until_a_listing_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rig_of()
    rig.fill(3)
    pending = FakeSession.pending

    async def gap(self: FakeSession, *how: Any) -> Any:
        async for page in pending(self, *how):
            yield replace(page, gap="2 messages between uid 7 and uid 9")

    monkeypatch.setattr(FakeSession, "pending", gap)
    for _ in range(3):
        assert await rig.watcher.drain(), "the mailbox does not stand still"
    assert await keys(rig) == ["listing-gap:support/INBOX"]
    (edge,) = await rig.ledger.alarms()
    assert edge.summary == "2 messages between uid 7 and uid 9"
    assert [fault.event for fault in await rig.ledger.faults(rig.name)] == ["listing.incomplete"]
    monkeypatch.setattr(FakeSession, "pending", pending)
    await rig.watcher.drain()
    assert await keys(rig) == []


async def opened(rig: Rig) -> Folder:
    session = await rig.source.connect()
    try:
        return await session.open("INBOX")
    finally:
        await session.close()
