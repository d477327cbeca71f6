"""Parts that cannot be built at the start are stood in for, and come as soon as they can be built."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from engine_rig import log  # noqa: F401
from test_fleet import SETTINGS, Harbour, Relay, Sending

from mailpoller.assembly import lacking as lacking_module
from mailpoller.assembly.lacking import Lacking
from mailpoller.assembly.parts import MailboxPlan
from mailpoller.assembly.standins import AbsentOutgoing, outgoing_of
from mailpoller.core.component import OutgoingConfig, Runtime, SinkConfig
from mailpoller.core.errors import ConfigError
from mailpoller.core.source_config import SourceConfig
from mailpoller.engine.availability import State
from mailpoller.engine.health import Condition
from mailpoller.engine.pipeline import Pipeline
from mailpoller.testing.builders import plain
from mailpoller.testing.fake_mailbox import FakeMailbox
from mailpoller.testing.fake_sink import FakeSink
from mailpoller.testing.fake_source import FakeSource
from waiting import until

FAILURES = [
    ConfigError("needs thing: pip install 'mailpoller[thing]'"),
    ModuleNotFoundError("No module named 'thing'", name="thing"),
    ValueError("a bug of a plug-in's"),
]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(lacking_module, "LOOK_AGAIN", timedelta(milliseconds=50))
    yield


class Switch:
    """What parts lack until it is installed."""

    failure: Exception | None = None

    def require(self) -> None:
        if self.failure is not None:
            raise self.failure


def blocks(switch: Switch, box: FakeMailbox, sinks: dict[str, FakeSink], relay: Relay) -> tuple[Any, ...]:
    class LateSource(SourceConfig):
        def build(self, name: str, runtime: Runtime) -> Any:
            switch.require()
            return FakeSource(box, name=name)

    class LateSink(SinkConfig):
        def build(self, name: str, runtime: Runtime) -> Any:
            switch.require()
            sinks[name] = FakeSink()
            return sinks[name]

    class LateOutgoing(OutgoingConfig):
        sender: str = "mailpoller@example.com"

        def build(self, name: str, runtime: Runtime) -> Any:
            switch.require()
            return relay

    return LateSource, LateSink, LateOutgoing


@pytest.mark.parametrize("failure", FAILURES, ids=["extra", "module", "bug"])
async def test_what_cannot_be_built_waits_with_an_alarm_while_all_others_run_and_comes_without_a_restart(
    failure: Exception,
    log: list[Any],  # noqa: F811
) -> None:
    switch, box, sinks, relay = Switch(), FakeMailbox(), {}, Relay()
    switch.failure = failure
    source_class, sink_class, outgoing_class = blocks(switch, box, sinks, relay)
    harbour = Harbour()
    sending = outgoing_class.model_validate({"type": "late"})
    harbour.fleet.outgoings["mail"] = outgoing_of("mail", sending, harbour.fleet.ports.runtime)
    harbour.fleet.add_queue("support", harbour.sink("support"))
    harbour.fleet.add_mailbox(harbour.plan("old", "support"))
    lacking = Lacking(harbour.fleet)
    lacking.outgoing("mail", sending)
    lacking.queue("sent", Sending(outgoing="mail"))
    lacking.queue("sales", sink_class.model_validate({"type": "late", "payload": "summary", "retry_interval": "10ms"}))
    block = source_class.model_validate({"type": "late", "default_queue": "sales", **SETTINGS})
    pipeline = Pipeline(mailbox="new", default_queue="sales", rules=[])
    bare = MailboxPlan("new", block, Pipeline(mailbox="new", default_queue=None, rules=[]), reachable=frozenset())
    lacking.mailbox("new", lambda: MailboxPlan("new", block, pipeline, reachable=frozenset({"sales"})), bare)
    box.deliver(plain(subject="waited", text="hello"))
    async with harbour.running():
        running = asyncio.create_task(lacking.run(harbour.stop))
        others = harbour.fill("old", 2)
        await until(lambda: harbour.held("support") == others)
        await until(lambda: harbour.health.mailboxes["new"].condition is Condition.REFUSED)
        assert await harbour.alarms() == {"mailbox-lacking:new", "queue-failing:sales"}
        assert isinstance(harbour.fleet.outgoings["mail"], AbsentOutgoing)
        switch.failure = None
        await until(lambda: len(sinks["sales"].held) == 1 if "sales" in sinks else False)
        assert harbour.fleet.outgoings["mail"] is relay
        assert harbour.fleet.queues["sent"].sink.outgoing is relay  # type: ignore[attr-defined]
        assert harbour.fleet.queues["sales"].state is State.UP
        await until(lambda: harbour.health.mailboxes["new"].condition is Condition.WAITING)
        assert not lacking.reasons
        assert await harbour.alarms() == set()
    async with asyncio.timeout(5):
        await running
    assert [entry["part"] for entry in log if entry["event"] == "part.lacking"] == [
        "outgoing mail",
        "queue sales",
        "mailbox new",
    ]


async def test_a_stop_is_heeded_while_something_is_lacking() -> None:
    harbour = Harbour()
    lacking = Lacking(harbour.fleet)
    switch = Switch()
    switch.failure = FAILURES[0]
    _, sink_class, _ = blocks(switch, FakeMailbox(), {}, Relay())
    lacking.queue("sales", sink_class.model_validate({"type": "late"}))
    running = asyncio.create_task(lacking.run(harbour.stop))
    await asyncio.sleep(0.02)
    harbour.stop.set()
    async with asyncio.timeout(1):
        await running
    await harbour.fleet.close()
