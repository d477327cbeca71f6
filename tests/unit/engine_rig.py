"""One mailbox's engine on fakes of our own ports: everything real between a fake source, a memory ledger and fake
sinks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from given import given
from structlog.testing import capture_logs

from mailpoller.assembly.fleet import Fleet
from mailpoller.assembly.parts import Bystander, MailboxPlan, Ports, Scope
from mailpoller.assembly.plans import brake_of
from mailpoller.assembly.shares import Bounds
from mailpoller.core.component import Runtime, SinkConfig
from mailpoller.core.message import Message
from mailpoller.core.ports import Rule, Start
from mailpoller.core.source_config import SourceConfig
from mailpoller.core.spool import Spool
from mailpoller.core.verdict import Effect, Match
from mailpoller.engine.alarm import Alarm
from mailpoller.engine.batcher import Limits
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.health import Health
from mailpoller.engine.pass_result import PassResult
from mailpoller.engine.pipeline import ConversationFinder, Pipeline
from mailpoller.engine.queues import Queue
from mailpoller.mail.understand.arrival import Arrival
from mailpoller.testing.builders import plain
from mailpoller.testing.fake_mailbox import FakeMailbox
from mailpoller.testing.fake_sink import FakeSink
from mailpoller.testing.fake_source import FakeSource
from mailpoller.testing.memory_ledger import MemoryLedger
from waiting import until

__all__ = ["Rig", "Routes", "log", "until"]


@pytest.fixture(autouse=True)
def log() -> Iterator[list[Any]]:
    """What the engine logs: kept, and not painted with its tracebacks, which takes a second each."""
    with capture_logs() as entries:
        yield entries


class Shifted(SystemClock):
    """The real clock, whose wall and monotonic time a test may put forward."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> Any:
        return super().now() + self.ahead


class Edges(Bystander):
    """Notes which queues went down and came back."""

    def __init__(self, noted: list[tuple[str, bool]]) -> None:
        self._noted = noted

    def edge(self, queue: Queue, up: bool) -> None:
        self._noted.append((queue.name, up))


class Routes:
    """A rule that sends messages whose subject has a word to queues."""

    needs_body = False

    def __init__(self, word: str, *queues: str) -> None:
        self.name, self._word, self._queues = f"routes-{word}", word, queues

    def judge(self, message: Message) -> Match | None:
        return Match(Effect(queues=self._queues)) if self._word in message.subject else None


class Rig:
    """``queues`` are ``support`` and ``archive``, with ``sinks`` of the same names, and
    ``quarantine``."""

    def __init__(
        self,
        *,
        name: str = "support",
        rules: Sequence[Rule] = (),
        memory: int = 16_000_000,
        batch: int = 10,
        retry: float = 0.01,
        ledger: MemoryLedger | None = None,
        sinks: Mapping[str, FakeSink] | None = None,
        reachable: frozenset[str] | None = None,
        budget: timedelta = timedelta(minutes=15),
        kind: type[SourceConfig] = SourceConfig,
        conversations: ConversationFinder | None = None,
        scope: Scope = "mailbox",
        arrival: Arrival | None = None,
        log_rate: int = 0,
        **config: Any,
    ) -> None:
        self.name = name
        self.clock = Shifted()
        self.mailbox = FakeMailbox()
        self.source = FakeSource(self.mailbox, name=name)
        self.ledger = ledger or MemoryLedger(self.clock)
        self.sinks = dict(sinks or {})
        self.edges: list[tuple[str, bool]] = []
        self.stop = asyncio.Event()
        self.health = Health(self.clock)
        settings = {"default_queue": "support", "start": "all", "poll_interval": "50ms", "reconnect_interval": "10ms"}
        self.config = given(kind, self.source, **{**settings, **config})
        self.alarm = Alarm(self.ledger, None, (), self.clock)
        # Nothing that is fetched here goes through a spool.
        runtime = Runtime(self.clock, Spool(Path()), Path())
        self.fleet = Fleet(
            Ports(self.ledger, self.alarm, self.health, runtime, self.stop, bystander=Edges(self.edges)),
            Bounds(
                memory=1_000_000_000,
                memory_per_mailbox=memory,
                limits=Limits(batch, 8_000_000, 3),
                poll_budget=budget,
                judging=1,
                log_rate=log_rate,
            ),
            self._sink("quarantine", retry),
        )
        for one in ("support", "archive"):
            self.fleet.add_queue(one, self._sink(one, retry))
        self.queues = {**self.fleet.queues, **self.fleet.own}
        pipeline = Pipeline(
            mailbox=name,
            default_queue=self.config.default_queue,
            policies=self.config.policies(),
            rules=rules,
            conversations=conversations,
            brake=brake_of(self.config),
            removal=self.config.removal(),
            arrival=arrival,
        )
        parts = self.fleet.add_mailbox(MailboxPlan(name, self.config, pipeline, reachable=reachable, scope=scope))
        self.watcher, self.runner, self.judge = parts.watcher, parts.runner, parts.judge
        self.dispatcher, self.budget = parts.dispatcher, parts.budget

    def _sink(self, name: str, retry: float) -> SinkConfig:
        sink = self.sinks.setdefault(name, FakeSink())
        return given(SinkConfig, sink, payload="summary", raw=True, retry_interval=f"{retry * 1000:.0f}ms")

    def fill(self, count: int, word: str = "message", *, start: int = 0, text: str = "hello") -> Counter[str]:
        """Deliver so many messages to the mailbox: their subjects."""
        subjects = [f"{word} {number}" for number in range(start, start + count)]
        for subject in subjects:
            self.mailbox.deliver(plain(subject=subject, text=text))
        return Counter(subjects)

    def subjects(self, queue: str = "support") -> Counter[str]:
        """How often each subject is in a queue."""
        return Counter(json.loads(held.event)["data"]["subject"] for held in self.sinks[queue].held.values())

    def downloads(self) -> Counter[str]:
        """uid -> how often it was downloaded."""
        return Counter(uid for _, uid, _ in self.source.asked)

    async def carry(self, name: str = "INBOX", *, suppress: bool = False) -> PassResult:
        """One pass over a folder in a session of its own, as the watcher would do it."""
        session = await self.source.connect()
        try:
            folder = await session.open(name)
            state = await self.ledger.open_folder(folder, self.source.account)
            return await self.runner.carry(session, folder, state.position, Start("all"), suppress=suppress)
        finally:
            await session.close()

    def later(self, **time: float) -> None:
        """Let time pass for whoever waits on the wall clock."""
        self.clock.ahead += timedelta(**time)

    async def counts(self) -> Mapping[str, int]:
        return await self.ledger.counts(self.name)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The watcher and the queues' own tasks, stopped in order at the end."""
        tending = [asyncio.create_task(queue.tend()) for queue in self.queues.values()]
        watching = asyncio.create_task(self.watcher.run())
        try:
            yield
            assert not watching.done(), watching
        finally:
            self.stop.set()
            self.watcher.stir()
            await asyncio.wait({watching}, timeout=60)
            for task in (*tending, watching):
                task.cancel()
            await asyncio.gather(*tending, watching, return_exceptions=True)
