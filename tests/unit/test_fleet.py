"""Mailboxes, queues and outgoings that join, change and leave while the rest runs."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from engine_rig import Routes, log  # noqa: F401
from given import given

from mailpoller.assembly import closing as closing_module
from mailpoller.assembly.fleet import Fleet
from mailpoller.assembly.parts import MailboxPlan, Ports
from mailpoller.assembly.shares import Bounds
from mailpoller.core.component import OutgoingConfig, Runtime, SinkConfig
from mailpoller.core.delivery import QUARANTINE
from mailpoller.core.errors import ConfigError, CredentialsRefused, LedgerUnavailable, TransientError
from mailpoller.core.literals import OutgoingName
from mailpoller.core.source_config import SourceConfig
from mailpoller.core.spool import Spool
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.batcher import Limits
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.forecast import Forecast
from mailpoller.engine.health import Condition, Health
from mailpoller.engine.notify import Notifier
from mailpoller.engine.pipeline import Pipeline
from mailpoller.engine.supervisor import Supervisor
from mailpoller.engine.turns import WEIGHTS
from mailpoller.testing.builders import plain
from mailpoller.testing.fake_mailbox import FakeMailbox
from mailpoller.testing.fake_sink import FakeSink
from mailpoller.testing.fake_source import FakeSource
from mailpoller.testing.memory_ledger import MemoryLedger
from waiting import until

SETTINGS = {"start": "all", "poll_interval": "20ms", "reconnect_interval": "10ms"}


class Expiring(FakeSource):
    """Whose password ends some day."""

    def expiries(self) -> list[tuple[str, datetime]]:
        return [("password", datetime(2030, 1, 1, tzinfo=UTC))]


class Sending(SinkConfig):
    """A sink that sends by an outgoing, as the real one looks it up."""

    type: Literal["sending"] = "sending"
    outgoing: OutgoingName

    def build(self, name: str, runtime: Runtime) -> FakeSink:
        sink = FakeSink()
        sink.outgoing = runtime.outgoings[self.outgoing]  # type: ignore[attr-defined]
        return sink


class Relay:
    """An outgoing that counts."""

    host, sender = "relay.test", "mailpoller@example.com"

    def __init__(self) -> None:
        self.sent = 0
        self.closed = False

    async def send(self, mail: object) -> str:
        assert not self.closed
        self.sent += 1
        return "250 Ok"

    def probe(self) -> None: ...

    async def close(self) -> None:
        self.closed = True


class Harbour:
    """A fleet on fakes. ``sinks`` and ``boxes`` are by name, the newest of each."""

    def __init__(self, *, alerts: Relay | None = None, grace: float = 5.0) -> None:
        self.clock = SystemClock()
        self.ledger = MemoryLedger(self.clock)
        self.health = Health(self.clock)
        self.stop = asyncio.Event()
        self.sinks: dict[str, FakeSink] = {}
        self.boxes: dict[str, FakeMailbox] = {}
        self.sources: dict[str, FakeSource] = {}
        self.alarm = Alarm(self.ledger, alerts, ("op@example.com",) if alerts else (), self.clock)
        runtime = Runtime(self.clock, Spool(Path()), Path(), {"relay": alerts} if alerts else {})
        self.fleet = Fleet(
            Ports(self.ledger, self.alarm, self.health, runtime, self.stop, alerts="relay" if alerts else ""),
            Bounds(16_000_000, 8_000_000, Limits(5, 8_000_000, 3), timedelta(minutes=15)),
            self.sink(QUARANTINE),
        )
        self.grace = timedelta(seconds=grace)

    def sink(self, name: str, **settings: Any) -> SinkConfig:
        self.sinks[name] = FakeSink()
        block = {"payload": "summary", "raw": True, "retry_interval": "10ms", **settings}
        return given(SinkConfig, self.sinks[name], **block)

    def plan(
        self,
        name: str,
        *queues: str,
        source: type[FakeSource] = FakeSource,
        rules: tuple[Any, ...] = (),
        notices: str = "",
        **block: Any,
    ) -> MailboxPlan:
        box = self.boxes.setdefault(name, FakeMailbox())
        self.sources[name] = source(box, name=name)
        settings = {**SETTINGS, "default_queue": queues[0], **block}
        return MailboxPlan(
            name,
            given(SourceConfig, self.sources[name], **settings),
            Pipeline(mailbox=name, default_queue=queues[0], rules=list(rules)),
            notices=notices,
            reachable=frozenset(queues),
        )

    def fill(self, name: str, count: int, word: str = "message") -> Counter[str]:
        subjects = [f"{name} {word} {number}" for number in range(count)]
        for subject in subjects:
            self.boxes[name].deliver(plain(subject=subject, text="hello"))
        return Counter(subjects)

    def held(self, queue: str) -> Counter[str]:
        return Counter(json.loads(one.event)["data"]["subject"] for one in self.sinks[queue].held.values())

    async def alarms(self) -> set[str]:
        await self.alarm.step()
        return {key for key, one in self.alarm._alarms.open.items() if one.ended_at is None}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        supervisor = self.fleet.supervisor(notifier=Notifier(""), grace=self.grace, services={})
        task = asyncio.create_task(supervisor.run())
        await asyncio.sleep(0.01)
        try:
            yield supervisor
            assert not task.done(), task
        finally:
            self.stop.set()
            async with asyncio.timeout(60):
                await task
            await self.fleet.close()
        assert not [one for one in asyncio.all_tasks() if one.get_name().split()[0] in ("watcher", "queue", "retry")]


@pytest.fixture
def harbour() -> Harbour:
    made = Harbour()
    made.fleet.add_queue("support", made.sink("support"))
    made.fleet.add_mailbox(made.plan("old", "support"))
    return made


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(closing_module, "CLOSING", timedelta(milliseconds=300))
    yield


# --- mailboxes -------------------------------------------------------------------------------------------------------
async def test_a_mailbox_and_a_queue_that_join_work_at_once_and_nobody_else_notices(
    harbour: Harbour,
    log: list[Any],  # noqa: F811
) -> None:
    async with harbour.running():
        expected = harbour.fill("old", 3)
        await until(lambda: harbour.held("support") == expected)
        harbour.fleet.add_queue("sales", harbour.sink("sales"))
        harbour.fleet.add_mailbox(harbour.plan("new", "sales", priority="high"))
        joined = harbour.fill("new", 3)
        await until(lambda: harbour.held("sales") == joined)
        assert harbour.fleet.shares.weights["new"] == WEIGHTS["high"]
        assert harbour.fleet.shares.judging._room._weights["new"] == WEIGHTS["high"]
    assert harbour.sources["old"].steps.count("connect") == 1
    assert harbour.sinks["sales"].closed
    changed = [entry["part"] for entry in log if entry["event"] == "fleet.changed"]
    assert changed == ["queue sales", "mailbox new"]


async def test_a_queue_that_joins_is_looked_after(harbour: Harbour) -> None:
    async with harbour.running():
        harbour.fleet.add_queue("sales", harbour.sink("sales"))
        harbour.sinks["sales"].faults.fail("deliver", TransientError("down"), times=2)
        harbour.fleet.add_mailbox(harbour.plan("new", "sales"))
        expected = harbour.fill("new", 3)
        await until(lambda: harbour.held("sales") == expected)
        assert harbour.sinks["sales"].checks


async def test_a_route_may_lead_to_a_queue_that_joined_after_its_mailbox(harbour: Harbour) -> None:
    async with harbour.running():
        harbour.fleet.add_queue("sales", harbour.sink("sales"))
        await harbour.fleet.replace_mailbox(
            harbour.plan("old", "support", "sales", rules=(Routes("sell", "sales", "support"),))
        )
        expected = harbour.fill("old", 3, "sell")
        await until(lambda: harbour.held("sales") == harbour.held("support") == expected)


async def test_a_removed_mailbox_brings_its_batch_home_and_begins_no_other(harbour: Harbour) -> None:
    harbour.fleet.add_mailbox(harbour.plan("other", "support"))
    arrived, go_on = asyncio.Event(), asyncio.Event()
    deliver = harbour.sinks["support"].deliver

    async def slow(batch: Any) -> Any:
        if batch[0].raw.claim.ref.folder.mailbox == "old":
            arrived.set()
            await go_on.wait()
        return await deliver(batch)

    harbour.sinks["support"].deliver = slow  # type: ignore[method-assign]
    mine = harbour.fill("old", 200)
    async with harbour.running():
        await arrived.wait()
        leaving = asyncio.create_task(harbour.fleet.remove_mailbox("old"))
        others = harbour.fill("other", 3)
        await until(lambda: harbour.held("support") & others == others)
        assert not leaving.done()
        go_on.set()
        await leaving
        brought = harbour.held("support") - others
        assert 0 < brought.total() < len(mine)
        counts = await harbour.ledger.counts("old")
        assert counts["claimed"] == 0
        assert harbour.sources["old"].sessions[0].lost
        assert "old" not in harbour.health.mailboxes
        assert "old" not in harbour.fleet.watchers
        # All is as if it had never been there: it may come back, and goes on where it was.
        harbour.fleet.add_mailbox(harbour.plan("old", "support"))
        await until(lambda: harbour.held("support") == mine + others)
    assert harbour.sinks["support"].repeats == 0
    assert harbour.sources["other"].steps.count("connect") == 1


async def test_a_removed_mailbox_that_hangs_is_cancelled_after_the_grace() -> None:
    harbour = Harbour(grace=0.1)
    harbour.fleet.add_queue("support", harbour.sink("support"))
    harbour.fleet.add_mailbox(harbour.plan("old", "support"))
    harbour.fleet.add_mailbox(harbour.plan("other", "support"))
    harbour.sources["old"].faults.hang("fetch")
    harbour.fill("old", 3)
    async with harbour.running():
        await until(lambda: harbour.sources["old"].faults.met)
        async with asyncio.timeout(10):
            await harbour.fleet.remove_mailbox("old")
        assert (await harbour.ledger.counts("old"))["claimed"] == 0
        expected = harbour.fill("other", 1)
        await until(lambda: harbour.held("support") == expected)


@pytest.mark.parametrize("how", ["replaced", "removed and added"])
async def test_claims_whose_return_never_reached_the_ledger_go_to_the_successor(harbour: Harbour, how: str) -> None:
    """Else they would be nobody's until the process is started anew."""
    fleet = harbour.fleet
    harbour.grace = timedelta(milliseconds=100)

    async def unreached(claims: Any) -> None:
        raise LedgerUnavailable("its turn did not come")

    harbour.sources["old"].faults.hang("fetch")
    expected = harbour.fill("old", 3)
    async with harbour.running():
        await until(lambda: harbour.sources["old"].faults.met)
        fleet.parts["old"].runner._records.claims.release = unreached  # type: ignore[method-assign]
        if how == "replaced":
            await fleet.replace_mailbox(harbour.plan("old", "support"))
        else:
            await fleet.remove_mailbox("old")
            fleet.add_mailbox(harbour.plan("old", "support"))
        await until(lambda: harbour.held("support") == expected)


async def test_a_replaced_mailbox_never_has_two_sessions(harbour: Harbour) -> None:
    mine = harbour.fill("old", 60)
    async with harbour.running():
        for number in range(5):
            await until(lambda: harbour.sources["old"].sessions)
            former = harbour.sources["old"]
            await harbour.fleet.replace_mailbox(harbour.plan("old", "support", poll_interval=f"{20 + number}ms"))
            assert all(session.lost for session in former.sessions)
            await asyncio.sleep(0.02)
        await until(lambda: harbour.held("support") == mine)
        assert harbour.health.mailboxes["old"].poll_interval == timedelta(milliseconds=24)
        await until(lambda: harbour.health.mailboxes["old"].settled == len(mine))
    assert harbour.sinks["support"].repeats == 0


async def test_a_mailbox_that_cannot_be_built_leaves_the_former_one_at_work(harbour: Harbour) -> None:
    class Broken(SourceConfig):
        def build(self, name: str, runtime: Runtime) -> Any:
            raise ConfigError("no such server can be")

    broken = Broken.model_validate({"type": "fake"})
    async with harbour.running():
        for mailbox in ("old", "new"):
            plan = MailboxPlan(mailbox, broken, Pipeline(mailbox=mailbox, default_queue="support", rules=[]))
            with pytest.raises(ConfigError):
                if mailbox == "old":
                    await harbour.fleet.replace_mailbox(plan)
                else:
                    harbour.fleet.add_mailbox(plan)
        assert set(harbour.health.mailboxes) == set(harbour.fleet.watchers) == {"old"}
        expected = harbour.fill("old", 1)
        await until(lambda: harbour.held("support") == expected)
    assert harbour.sources["old"].steps.count("connect") == 1


async def test_a_mailbox_is_not_taken_whose_mail_would_go_nowhere(harbour: Harbour) -> None:
    with pytest.raises(ConfigError, match="sales"):
        harbour.fleet.add_mailbox(harbour.plan("new", "sales"))
    with pytest.raises(ValueError, match="old"):
        harbour.fleet.add_mailbox(harbour.plan("old", "support"))
    assert set(harbour.health.mailboxes) == {"old"}


async def test_what_was_said_of_a_removed_mailbox_is_over(harbour: Harbour) -> None:
    harbour.fleet.add_mailbox(harbour.plan("wrong", "support", source=Expiring))
    harbour.sources["wrong"].faults.fail("connect", CredentialsRefused("no"), times=99)
    async with harbour.running():
        await until(lambda: harbour.health.mailboxes["wrong"].condition is Condition.REFUSED)
        assert await harbour.alarms() == {"credentials-refused:wrong"}
        assert "mailbox wrong" in harbour.fleet.expiring
        await harbour.fleet.remove_mailbox("wrong")  # at once, though it backs off for minutes
        assert await harbour.alarms() == set()
        assert "mailbox wrong" not in harbour.fleet.expiring


async def test_a_watcher_that_waits_to_be_run_again_leaves_at_once(harbour: Harbour) -> None:
    harbour.sources["old"].faults.fail("connect", RuntimeError("a bug"), times=99)
    async with harbour.running():
        await until(lambda: harbour.sources["old"].faults.met)
        async with asyncio.timeout(2):
            await harbour.fleet.remove_mailbox("old")


async def test_folders_that_a_mailbox_no_longer_has_fail_no_longer(harbour: Harbour) -> None:
    class Folders(SourceConfig):
        folders: list[str] = []  # noqa: RUF012

    def plan(*folders: str) -> MailboxPlan:
        made = harbour.plan("old", "support")
        return replace(made, block=given(Folders, harbour.sources["old"], **SETTINGS, folders=folders))

    async with harbour.running():
        await harbour.fleet.replace_mailbox(plan("INBOX", "Gone", "Lost"))
        await until(lambda: len(harbour.health.mailboxes["old"].failing) == 2)
        await harbour.fleet.replace_mailbox(plan("INBOX", "Lost"))
        assert set(harbour.health.mailboxes["old"].failing) == {"Lost"}
        assert await harbour.alarms() == {"folder-failing:old/Lost"}
        await harbour.fleet.remove_mailbox("old")
        assert await harbour.alarms() == set()


@pytest.mark.parametrize("how", ["replaced", "removed"])
async def test_trouble_that_was_told_a_moment_before_a_mailbox_left_is_over_too(harbour: Harbour, how: str) -> None:
    async with harbour.running():
        harbour.alarm.tell(Kind.DISPOSITION_IMPOSSIBLE, "old", "no such folder")
        if how == "replaced":
            await harbour.fleet.replace_mailbox(harbour.plan("old", "support"))
        else:
            await harbour.fleet.remove_mailbox("old")
        assert await harbour.alarms() == set()


# --- queues ----------------------------------------------------------------------------------------------------------
async def test_a_replaced_queue_begins_when_the_former_one_has_answered_and_is_closed(harbour: Harbour) -> None:
    former = harbour.sinks["support"]
    arrived, go_on = asyncio.Event(), asyncio.Event()
    deliver = former.deliver

    async def slow(batch: Any) -> Any:
        arrived.set()
        await go_on.wait()
        return await deliver(batch)

    former.deliver = slow  # type: ignore[method-assign]
    harbour.fleet.add_mailbox(harbour.plan("other", "support"))
    mine = harbour.fill("old", 20)
    async with harbour.running():
        await arrived.wait()
        replacing = asyncio.create_task(harbour.fleet.replace_queue("support", harbour.sink("support")))
        await asyncio.sleep(0)
        mine += harbour.fill("other", 3)
        await until(lambda: harbour.fleet.queues["support"]._under_way)
        await asyncio.sleep(0.05)
        assert not replacing.done()
        assert not harbour.sinks["support"].batches
        go_on.set()
        await replacing
        assert former.closed
        assert [task.get_name() for task in asyncio.all_tasks()].count("queue support") == 1
        first = Counter(json.loads(one.event)["data"]["subject"] for one in former.held.values())
        await until(lambda: first + harbour.held("support") == mine)
    assert first
    assert harbour.sources["old"].steps.count("connect") == 1


async def test_a_replaced_queue_that_never_answers_loses_nothing_and_says_nothing_later() -> None:
    harbour = Harbour(grace=0.1)
    harbour.fleet.add_queue("support", harbour.sink("support"))
    harbour.fleet.add_mailbox(harbour.plan("old", "support"))
    harbour.fleet.add_mailbox(harbour.plan("other", "support"))
    former = harbour.sinks["support"]
    give_up = asyncio.Event()

    async def deliver(batch: Any) -> Any:
        await give_up.wait()
        raise TransientError("never")

    former.deliver = deliver  # type: ignore[method-assign]
    mine = harbour.fill("old", 3)
    async with harbour.running():
        await until(lambda: harbour.fleet.queues["support"]._under_way)
        await harbour.fleet.replace_queue("support", harbour.sink("support"))
        assert former.closed
        others = harbour.fill("other", 1)
        await until(lambda: harbour.held("support") == others)  # so that it is known to work
        give_up.set()
        await until(lambda: harbour.held("support") == mine + others)
        assert await harbour.alarms() == set()


async def test_mail_that_waits_for_a_queue_that_is_down_goes_to_its_successor_at_once(harbour: Harbour) -> None:
    harbour.sinks["support"].faults.fail("deliver", TransientError("down"), times=9999)
    harbour.sinks["support"].faults.fail("check", TransientError("down"), times=9999)
    mine = harbour.fill("old", 3)
    async with harbour.running():
        await harbour.fleet.replace_mailbox(harbour.plan("old", "support", poll_interval="1h"))
        await until(lambda: not harbour.fleet.queues["support"].takes_mail)
        await until(lambda: harbour.health.mailboxes["old"].condition is Condition.WAITING)
        await asyncio.sleep(0.05)
        assert await harbour.alarms() == {"queue-failing:support"}
        await harbour.fleet.replace_queue("support", harbour.sink("support"))
        await until(lambda: harbour.held("support") == mine)
        async with asyncio.timeout(10):
            while await harbour.alarms():  # its end is written behind the receipts
                await asyncio.sleep(0.01)


async def test_a_queue_leaves_when_no_mail_can_go_to_it_any_more(harbour: Harbour) -> None:
    harbour.fleet.add_queue("sales", harbour.sink("sales"))
    harbour.fleet.add_mailbox(harbour.plan("seller", "sales"))
    harbour.sinks["sales"].faults.fail("deliver", TransientError("down"), times=9999)
    harbour.sinks["sales"].faults.fail("check", TransientError("down"), times=9999)
    mine = harbour.fill("seller", 2)
    async with harbour.running():
        await until(lambda: not harbour.fleet.queues["sales"].takes_mail)
        with pytest.raises(ConfigError, match="seller"):
            await harbour.fleet.remove_queue("sales")
        await harbour.fleet.replace_mailbox(harbour.plan("seller", "support"))
        await harbour.fleet.remove_queue("sales")
        assert harbour.sinks["sales"].closed
        assert await harbour.alarms() == set()
        # What was judged for it, and waits for it by the ledger, goes where the rules say now.
        await until(lambda: harbour.held("support") == mine)


async def test_a_queue_that_leaves_under_mail_on_its_way_to_it_costs_an_attempt_and_no_strike(harbour: Harbour) -> None:
    harbour.fleet.add_queue("sales", harbour.sink("sales"))
    both = Routes("both", "support", "sales")
    plan = harbour.plan("seller", "support", "sales", rules=(both,))
    harbour.fleet.add_mailbox(plan)
    dispatcher = harbour.fleet.parts["seller"].dispatcher
    bring = dispatcher._bring

    async def losing(name: str, batch: Any) -> None:
        if name == "sales":
            harbour.fleet.queues.pop("sales", None)
        await bring(name, batch)

    dispatcher._bring = losing  # type: ignore[method-assign]
    harbour.fill("seller", 1, "both")
    async with harbour.running():
        await until(lambda: any(one.state == "deferred" for one in harbour.ledger.store.messages.values()))
        (row,) = harbour.ledger.store.messages.values()
        assert "sales" in row.reason
        assert row.strikes == 0
        assert set(row.receipts) == {"support"}


async def test_a_queue_for_notices_goes_with_the_last_mailbox_that_has_it(harbour: Harbour) -> None:
    fleet = harbour.fleet
    block = harbour.sink("vault")
    name = fleet.notices("old", block)
    async with harbour.running():
        await fleet.replace_mailbox(harbour.plan("old", "support", notices=name))
        assert fleet.notices("new", block) == name
        fleet.add_mailbox(harbour.plan("new", "support", notices=name))
        await fleet.remove_mailbox("old")
        assert name in fleet.own
        assert not harbour.sinks["vault"].closed
        other = fleet.notices("new", harbour.sink("other"))
        assert other != name
        await fleet.replace_mailbox(harbour.plan("new", "support", notices=other))
        assert set(fleet.own) == {QUARANTINE, other}
        assert harbour.sinks["vault"].closed


# --- outgoings -------------------------------------------------------------------------------------------------------
async def test_a_replaced_outgoing_is_everybodys_and_the_former_one_is_closed_last() -> None:
    first, second = Relay(), Relay()
    harbour = Harbour(alerts=first)
    fleet = harbour.fleet
    fleet.add_queue("mail", Sending(outgoing="relay"))
    fleet.add_queue("support", harbour.sink("support"))
    async with harbour.running():
        untouched = fleet.queues["support"]
        assert fleet.queues["mail"].sink.outgoing is first  # type: ignore[attr-defined]
        await fleet.replace_outgoing("relay", given(OutgoingConfig, second))
        assert fleet.queues["mail"].sink.outgoing is second  # type: ignore[attr-defined]
        assert fleet.queues["support"] is untouched
        assert harbour.alarm._outgoing is second
        assert first.closed
        assert not second.closed
        with pytest.raises(ConfigError, match="queue mail, alerts"):
            await fleet.remove_outgoing("relay")
    assert second.closed


async def test_an_outgoing_that_cannot_be_built_changes_nothing() -> None:
    class Broken(OutgoingConfig):
        def build(self, name: str, runtime: Runtime) -> Any:
            raise ConfigError("no")

    first = Relay()
    harbour = Harbour(alerts=first)
    harbour.fleet.add_queue("mail", Sending(outgoing="relay"))
    with pytest.raises(ConfigError):
        await harbour.fleet.replace_outgoing("relay", Broken.model_validate({"type": "fake"}))
    assert harbour.fleet.outgoings == {"relay": first}
    assert not first.closed


async def test_outgoings_join_and_leave(harbour: Harbour) -> None:
    relay = Relay()
    async with harbour.running():
        harbour.fleet.add_outgoing("relay", given(OutgoingConfig, relay))
        queue = harbour.fleet.add_queue("mail", Sending(outgoing="relay"))
        assert queue.sink.outgoing is relay  # type: ignore[attr-defined]
        await harbour.fleet.remove_queue("mail")
        await harbour.fleet.remove_outgoing("relay")
        assert relay.closed


# --- the end ---------------------------------------------------------------------------------------------------------
async def test_a_part_that_does_not_close_holds_up_nobody(harbour: Harbour, log: list[Any]) -> None:  # noqa: F811
    harbour.sinks["support"].faults.hang("close")
    async with harbour.running():
        async with asyncio.timeout(5):
            await harbour.fleet.replace_queue("support", harbour.sink("support"))
        former = [entry for entry in log if entry["event"] == "fleet.unclosed"]
        assert [entry["part"] for entry in former] == ["queue support"]
        expected = harbour.fill("old", 2)
        await until(lambda: harbour.held("support") == expected)


async def test_a_service_that_stops_during_a_change_stops(harbour: Harbour) -> None:
    harbour.sources["old"].faults.hang("fetch")
    harbour.grace = timedelta(milliseconds=200)
    harbour.fill("old", 2)
    async with harbour.running():
        await until(lambda: harbour.sources["old"].faults.met)
        replacing = asyncio.create_task(harbour.fleet.replace_mailbox(harbour.plan("old", "support")))
        await asyncio.sleep(0.05)
        harbour.stop.set()
        await replacing
        await asyncio.sleep(0)
        assert not harbour.sources["old"].steps  # the successor does not begin


async def test_a_mailbox_that_joins_a_service_that_has_ended_is_not_run(harbour: Harbour) -> None:
    async with harbour.running():
        pass
    harbour.fleet.add_mailbox(harbour.plan("new", "support"))
    await asyncio.sleep(0.01)
    assert not harbour.sources["new"].steps


async def test_a_fleet_may_change_while_its_expiries_are_looked_at(harbour: Harbour) -> None:
    class Slow(Expiring):
        def expiries(self) -> list[tuple[str, datetime]]:
            time.sleep(0.05)
            return super().expiries()

    harbour.fleet.add_mailbox(harbour.plan("slow", "support", source=Slow))
    looking = asyncio.create_task(Forecast(harbour.fleet.expiring, harbour.alarm, harbour.clock).look())
    await asyncio.sleep(0.01)
    harbour.fleet.add_mailbox(harbour.plan("new", "support", source=Expiring))
    await looking
