"""Mailboxes that share a process: nobody starves, and with few connections they take turns."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from engine_rig import Rig, until

from mailpoller.core.errors import LedgerUnavailable, TransientError
from mailpoller.core.message import Account, Claim, Folder, MessageRef
from mailpoller.engine.budget import Budget
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.connections import LEAST_WORK, Connections
from mailpoller.engine.health import Condition
from mailpoller.engine.records import InTurn
from mailpoller.engine.turns import WEIGHTS, Turns
from mailpoller.testing.fake_source import FakeSession
from mailpoller.testing.memory_ledger import MemoryLedger


class Ahead(SystemClock):
    """The real clock, put forward by ``ahead``."""

    ahead = timedelta(0)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead.total_seconds()


# --- memory and processor -------------------------------------------------------------------------------------------
async def test_backlogs_are_carried_four_to_two_to_one_while_memory_is_short() -> None:
    process = Budget(30_000, weights=WEIGHTS)  # one batch of ten messages of 3 KB at a time
    ledger = MemoryLedger(SystemClock())
    settled: list[str] = []
    rigs = []
    for priority in WEIGHTS:
        rig = Rig(name=priority, ledger=ledger, priority=priority)
        rig.runner._fetcher._budget = Budget(1_000_000, process, mailbox=priority)
        rig.fill(300, text="x" * 2500)
        rig.source.witness = lambda settlement, name=priority: settled.append(name)  # type: ignore[misc]
        rigs.append(rig)
    async with asyncio.timeout(60):
        await asyncio.gather(*(rig.carry() for rig in rigs))
    early = Counter(settled[:350])
    assert early["high"] == pytest.approx(200, abs=30)
    assert early["medium"] == pytest.approx(100, abs=30)
    assert early["low"] == pytest.approx(50, abs=30)
    assert Counter(settled) == {"high": 300, "medium": 300, "low": 300}
    assert process.used == 0


async def test_new_mail_of_a_small_mailbox_is_settled_while_many_backlogs_drain() -> None:
    ledger = MemoryLedger(SystemClock())
    judging = Turns(1)
    backlogs = [Rig(name=f"backlog-{number}", ledger=ledger, batch=50) for number in range(4)]
    small = Rig(name="small", ledger=ledger, poll_interval="1h")
    for rig in (*backlogs, small):
        rig.judge._turns = judging
    for rig in backlogs:
        rig.fill(400)
    async with small.running():
        await until(lambda: small.health.mailboxes["small"].condition is Condition.WAITING)
        draining = [asyncio.create_task(rig.carry()) for rig in backlogs]
        await until(lambda: all(len(rig.source.applied) >= 50 for rig in backlogs))
        small.fill(1)
        await until(lambda: small.source.applied)
        assert not any(task.done() for task in draining)
        assert max(len(rig.source.applied) for rig in backlogs) <= 250
        for task in draining:
            task.cancel()
        await asyncio.gather(*draining, return_exceptions=True)


# --- connections ----------------------------------------------------------------------------------------------------
class Fleet:
    """Mailboxes that share connections. ``most``: the most sessions that were open at once, by host and in all
    (``""``)."""

    def __init__(
        self,
        count: int,
        *,
        limit: int = 0,
        per_host: int = 0,
        least_work: timedelta = LEAST_WORK,
        hosts: Sequence[str] = ("a",),
        **config: Any,
    ) -> None:
        self.clock = SystemClock()
        self.connections = Connections(self.clock, limit=limit, per_host=per_host, least_work=least_work)
        self.ledger = MemoryLedger(self.clock)
        self.rigs = [Rig(name=f"box-{number}", ledger=self.ledger, **config) for number in range(count)]
        self.open: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.stuck: set[asyncio.Task[None]] = set()
        self.patience = 60.0  # seconds that a stop may take
        for number, rig in enumerate(self.rigs):
            host = hosts[number % len(hosts)]
            rig.source.account = Account("fake", host, rig.name)
            rig.watcher._connections = self.connections
            self._count_sessions(rig, host)

    def _count_sessions(self, rig: Rig, host: str) -> None:
        connect = rig.source.connect

        async def counted() -> FakeSession:
            for key in (host, ""):
                self.open[key] += 1
                self.most[key] = max(self.most[key], self.open[key])
            try:
                session = await connect()
            except TransientError:
                self.open[host] -= 1
                self.open[""] -= 1
                raise
            close = session.close

            async def closed() -> None:
                await asyncio.sleep(0.001)
                await close()
                self.open[host] -= 1
                self.open[""] -= 1

            session.close = closed  # type: ignore[method-assign]
            return session

        rig.source.connect = counted  # type: ignore[method-assign]

    def polls(self) -> list[int]:
        return [rig.source.steps.count("connect") for rig in self.rigs]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Every watcher, stopped at once at the end, as the supervisor does; what is stuck is cancelled."""
        watching = [asyncio.create_task(rig.watcher.run(), name=rig.name) for rig in self.rigs]
        try:
            yield
            assert not any(task.done() for task in watching)
        finally:
            for rig in self.rigs:
                rig.stop.set()
                rig.watcher.stir()
            _, self.stuck = await asyncio.wait(watching, timeout=self.patience)
            for task in self.stuck:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)


async def test_twenty_mailboxes_over_three_connections_are_all_polled_again_and_again() -> None:
    fleet = Fleet(20, limit=3, poll_interval="100ms")
    subjects = [rig.fill(3) for rig in fleet.rigs]
    async with fleet.running():
        await until(lambda: min(fleet.polls()) >= 4)
    assert not fleet.stuck
    assert fleet.most[""] == 3
    assert max(fleet.polls()) <= 3 * min(fleet.polls())
    assert [rig.subjects() for rig in fleet.rigs] == subjects
    assert (fleet.connections.open, fleet.connections.waiting) == (0, 0)


async def test_no_host_gets_more_connections_than_it_may() -> None:
    fleet = Fleet(12, limit=5, per_host=2, hosts=("a", "b", "c"), poll_interval="50ms")
    async with fleet.running():
        await until(lambda: min(fleet.polls()) >= 4)
    assert {host: fleet.most[host] for host in "abc"} == {"a": 2, "b": 2, "c": 2}
    assert fleet.most[""] <= 5


async def test_full_host_keeps_nobody_else_waiting() -> None:
    fleet = Fleet(6, per_host=1, hosts=("a", "a", "a", "a", "a", "b"), poll_interval="20ms")
    for rig in fleet.rigs[:5]:
        rig.source.faults.hang("open")  # at work for ever
    fleet.patience = 0.1
    async with fleet.running():
        await until(lambda: fleet.rigs[5].health.mailboxes["box-5"].last_poll_at)
        assert fleet.connections.waiting == 4


async def test_without_need_nobody_yields() -> None:
    fleet = Fleet(3, limit=3, poll_interval="30ms")
    async with fleet.running():
        await until(lambda: min(rig.source.steps.count("wait") for rig in fleet.rigs) >= 4)
        assert fleet.polls() == [1, 1, 1]


async def test_session_that_yields_is_closed_in_the_protocol_s_own_way() -> None:
    fleet = Fleet(1, limit=1, poll_interval="1h")
    (rig,) = fleet.rigs
    async with fleet.running():
        await until(lambda: rig.source.steps[-1:] == ["wait"])
        late = asyncio.ensure_future(fleet.connections.take("late", "a", 0.0))
        with await late:
            assert rig.source.steps[-2:] == ["wait", "close"]
            await until(lambda: rig.health.mailboxes["box-0"].reason)
            assert rig.health.mailboxes["box-0"].condition is Condition.WAITING


async def test_mailbox_at_work_is_not_interrupted() -> None:
    fleet = Fleet(2, limit=1, poll_interval="10ms")
    busy, other = fleet.rigs
    busy.fill(5)
    busy.source.faults.hang("fetch:2")
    fleet.patience = 0.1
    async with fleet.running():
        await until(lambda: "fetch:2" in busy.source.faults.met)
        await asyncio.sleep(0.1)
        assert (fleet.polls(), fleet.connections.waiting) == ([1, 0], 1)
        assert other.health.mailboxes["box-1"].condition is Condition.QUEUING
        assert not other.health.mailboxes["box-1"].behind(other.clock.now())


async def test_backlog_gives_way_between_two_batches_and_goes_on_later() -> None:
    fleet = Fleet(3, limit=1, least_work=timedelta(0), poll_interval="10ms", batch=10)
    backlog = fleet.rigs[0]
    expected = backlog.fill(600)
    async with fleet.running():
        await until(lambda: min(fleet.polls()) >= 2)
        assert backlog.subjects().total() < 600
        await until(lambda: len(backlog.source.applied) == 600)
    assert fleet.polls()[0] >= 2
    assert fleet.most[""] == 1
    assert backlog.subjects() == expected
    assert set(backlog.downloads().values()) == {1}
    assert backlog.source.steps.count("pending") <= 600 // 10 + 10, "no session ends without having gained something"


async def test_backlog_keeps_its_connection_while_nobody_has_waited_too_long() -> None:
    fleet = Fleet(2, limit=1, least_work=timedelta(0), poll_interval="1h", batch=10)
    fleet.rigs[0].fill(300)
    async with fleet.running():
        await until(lambda: min(fleet.polls()) == 1)
        assert len(fleet.rigs[0].source.applied) == 300
    assert fleet.polls() == [1, 1]


async def test_only_as_many_give_way_as_are_waited_for_and_none_that_would_not_help() -> None:
    clock = Ahead()
    connections = Connections(clock, limit=3, per_host=2)
    now = clock.monotonic()
    places = [await connections.take(str(number), host, now) for number, host in enumerate("aab")]
    wish = asyncio.ensure_future(connections.take("late", "a", now, interval=1.0))
    await asyncio.sleep(0)
    clock.ahead = timedelta(minutes=1)
    assert [place.gives_way() for place in reversed(places)] == [False, True, False]
    with places[1]:
        pass
    with await wish:
        assert connections.open == 3


async def test_session_works_a_while_before_it_gives_way() -> None:
    clock = Ahead()
    connections = Connections(clock, limit=1, least_work=timedelta(seconds=5))
    place = await connections.take("backlog", "a", clock.monotonic())
    wish = asyncio.ensure_future(connections.take("late", "a", clock.monotonic() - 60, interval=1.0))
    await asyncio.sleep(0)
    assert not place.gives_way()
    clock.ahead = timedelta(seconds=6)
    assert place.gives_way()
    wish.cancel()
    await asyncio.gather(wish, return_exceptions=True)


async def test_longest_wait_for_news_ends_first() -> None:
    connections = Connections(SystemClock(), limit=3)
    asked: list[str] = []
    places = {name: await connections.take(name, "a", 0.0) for name in ("one", "two", "three")}
    for name in ("two", "one", "three"):
        places[name].idle(lambda name=name: asked.append(name))  # type: ignore[misc]
        await asyncio.sleep(0.002)
    wishes = [asyncio.ensure_future(connections.take(f"late {number}", "a", 0.0)) for number in range(2)]
    await asyncio.sleep(0)
    assert asked == ["two", "one"]
    for name in asked:
        with places[name]:
            pass
    for wish in wishes:
        with await wish:
            assert connections.open <= 3
    assert asked == ["two", "one"]


async def test_who_gets_news_while_it_is_asked_is_polled_and_another_makes_room() -> None:
    connections = Connections(SystemClock(), limit=2)
    asked: list[str] = []
    first, second = [await connections.take(name, "a", 0.0) for name in ("first", "second")]
    first.idle(lambda: asked.append("first"))
    await asyncio.sleep(0.002)
    second.idle(lambda: asked.append("second"))
    wish = asyncio.ensure_future(connections.take("late", "a", 0.0))
    await asyncio.sleep(0)
    first.busy()
    assert asked == ["first", "second"]
    assert not first.yielding
    with second:
        pass
    with await wish:
        assert connections.open == 2


async def test_longest_overdue_is_next_and_each_second_counts_by_weight() -> None:
    clock = SystemClock()
    connections = Connections(clock, limit=1, weights={"high": 4, "low": 1})
    now = clock.monotonic()
    holder = await connections.take("holder", "a", now)
    order: list[str] = []

    async def one(name: str, overdue: float) -> None:
        with await connections.take(name, "a", now - overdue):
            order.append(name)

    async with asyncio.TaskGroup() as group:
        for name, overdue in (("just due", 0.0), ("low", 30.0), ("medium", 20.0), ("high", 11.0), ("late", 25.0)):
            group.create_task(one(name, overdue))
        await asyncio.sleep(0)
        with holder:
            pass
    assert order == ["late", "high", "medium", "low", "just due"]


async def test_cancelled_applicant_leaves_no_trace() -> None:
    connections = Connections(SystemClock(), limit=1)
    holder = await connections.take("holder", "a", 0.0)
    wishes = [asyncio.ensure_future(connections.take(str(number), "a", 0.0)) for number in range(4)]
    await asyncio.sleep(0)
    wishes[3].cancel()
    with holder:
        pass
    wishes[0].cancel()  # granted, and not told yet
    await asyncio.gather(*wishes[::3], return_exceptions=True)
    for wish in wishes[1:3]:
        with await wish:
            assert connections.open == 1
    assert (connections.open, connections.waiting) == (0, 0)


async def test_back_off_holds_no_connection() -> None:
    fleet = Fleet(2, limit=1, poll_interval="30ms", reconnect_interval="1h")
    broken, sound = fleet.rigs
    broken.source.faults.fail("open", TransientError("no such folder"))
    async with fleet.running():
        await until(lambda: broken.health.mailboxes["box-0"].condition is Condition.RETRYING)
        await until(lambda: sound.health.mailboxes["box-1"].last_poll_at)
        assert fleet.connections.open == 1


async def test_operator_s_poll_needs_no_wait_until_it_is_due() -> None:
    fleet = Fleet(2, limit=1, poll_interval="1h")
    async with fleet.running():
        await until(lambda: min(fleet.polls()) == 1)
        resting = next(rig for rig in fleet.rigs if rig.source.steps[-1] == "close")
        resting.watcher.stir()
        await until(lambda: resting.source.steps.count("connect") == 2)
        assert fleet.most[""] == 1


async def test_news_in_a_session_that_was_not_asked_is_still_taken_at_once() -> None:
    fleet = Fleet(2, limit=1, poll_interval="1h")
    async with fleet.running():
        await until(lambda: min(fleet.polls()) == 1)
        await until(lambda: any(rig.source.steps[-1] == "wait" for rig in fleet.rigs))
        watching = next(rig for rig in fleet.rigs if rig.source.steps[-1] == "wait")
        watching.fill(1)
        await until(lambda: watching.source.applied)


async def test_stop_is_prompt_while_many_wait_for_a_connection() -> None:
    fleet = Fleet(200, limit=2, poll_interval="1h")
    loop = asyncio.get_running_loop()
    async with fleet.running():
        await until(lambda: fleet.connections.waiting > 100)
        began = loop.time()
    assert loop.time() - began < 30
    assert not fleet.stuck
    assert (fleet.connections.open, fleet.connections.waiting) == (0, 0)


async def test_once_drains_every_mailbox_over_one_connection() -> None:
    fleet = Fleet(5, limit=1)
    subjects = [rig.fill(4) for rig in fleet.rigs]
    assert all(await asyncio.gather(*(rig.watcher.drain() for rig in fleet.rigs)))
    assert [rig.subjects() for rig in fleet.rigs] == subjects
    assert fleet.most[""] == 1


# --- the ledger -----------------------------------------------------------------------------------------------------
async def test_ledger_is_handed_few_batches_at_once_and_a_short_one_before_long_ones() -> None:
    ledger = MemoryLedger(SystemClock())
    turns = Turns(2)
    at_once = most = 0
    order: list[str] = []
    claim = ledger.claim

    async def slow(refs: Sequence[MessageRef]) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        order.append(refs[0].folder.mailbox)
        await asyncio.sleep(0.005)
        at_once -= 1
        return await claim(refs)

    ledger.claim = slow  # type: ignore[method-assign]

    async def one(mailbox: str, count: int) -> None:
        folder = Folder(mailbox, "INBOX", f"epoch of {mailbox}")
        records = InTurn(ledger, turns, mailbox)
        await ledger.open_folder(folder, Account("fake", "a", mailbox))
        claims = await records.claim([MessageRef(folder, str(number)) for number in range(count)])
        assert len(claims) == count

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(one(f"backlog-{number}", 200))
        await until(lambda: len(order) >= 2)
        before = len(order)
        group.create_task(one("small", 1))
    assert most == 2
    assert order.index("small") - before <= 2
    assert len(order) == 13


async def test_ledger_s_refusal_gives_the_turn_back() -> None:
    ledger, turns = MemoryLedger(SystemClock()), Turns(1)
    records = InTurn(ledger, turns, "support")
    folder = Folder("support", "INBOX", "epoch")
    await ledger.open_folder(folder, Account("fake", "a", "support"))
    claims = [one for one in await records.claim([MessageRef(folder, "1")]) if isinstance(one, Claim)]
    for step in ("defer", "release", "settle", "disposed", "repeats"):
        ledger.fail(step)
    now = SystemClock().now()
    for refused in (
        records.defer(claims, until=now, reason="later", queue="support"),
        records.release(claims),
        records.settle([]),
        records.disposed([]),
        records.repeats("support", []),
    ):
        with pytest.raises(LedgerUnavailable):
            await refused
        assert turns.taken == 0
    ledger.heal()
    await records.defer(claims, until=now, reason="later", queue="support")
    assert await ledger.due(folder, limit=5, down=["support"]) == []
    assert [ref.uid for ref in await ledger.due(folder, limit=5)] == ["1"]
