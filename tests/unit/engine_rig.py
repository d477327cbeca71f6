"""One mailbox's engine on fakes of our own ports: everything real between a fake source, a memory ledger and fake sinks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailpoller.core.component import SourceConfig
from mailpoller.core.message import Message
from mailpoller.core.ports import Rule, Start
from mailpoller.core.verdict import Effect, Match
from mailpoller.engine.agenda import Limits
from mailpoller.engine.alarm import Alarm
from mailpoller.engine.budget import Budget
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.courier import Courier
from mailpoller.engine.dispatcher import LAST_RESORT, Dispatcher
from mailpoller.engine.health import Health
from mailpoller.engine.judge import Judge
from mailpoller.engine.pipeline import Pipeline
from mailpoller.engine.queues import Queue
from mailpoller.engine.tally import Tally
from mailpoller.engine.turns import Turns
from mailpoller.engine.watcher import Watcher
from mailpoller.testing.builders import plain
from mailpoller.testing.fake_sink import FakeSink
from mailpoller.testing.fake_source import FakeMailbox, FakeSource
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


class Routes:
    """A rule that sends messages whose subject has a word to queues."""

    needs_body = False

    def __init__(self, word: str, *queues: str) -> None:
        self.name, self._word, self._queues = f"routes-{word}", word, queues

    def judge(self, message: Message) -> Match | None:
        return Match(Effect(queues=self._queues)) if self._word in message.subject else None


class Rig:
    """``queues`` are ``support`` and ``archive``, with ``sinks`` of the same names, and ``quarantine`` and ``last-resort``."""

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
        self.budget = Budget(memory)
        settings = {"default_queue": "support", "start": "all", "poll_interval": "50ms", "reconnect_interval": "10ms"}
        self.config = kind.model_validate({"type": "fake", **settings, **config})
        self.health.register(name, self.config.poll_interval)
        self.queues = {one: self._queue(one, retry) for one in ("support", "archive", "quarantine", LAST_RESORT)}
        self.dispatcher = Dispatcher(
            self.config,
            {one: self.queues[one] for one in ("support", "archive")},
            self.queues["quarantine"],
            self.queues[LAST_RESORT],
            self.clock,
        )
        self.alarm = Alarm(self.ledger, None, (), self.clock)
        self.watcher = Watcher(
            name,
            self.config,
            self.source,
            ledger=self.ledger,
            clock=self.clock,
            health=self.health,
            alarm=self.alarm,
            budget=budget,
            stop=self.stop,
            connecting=asyncio.Semaphore(8),
        )
        self.judge = Judge(
            name,
            pipeline=Pipeline(mailbox=name, default_queue=self.config.default_queue, rules=rules),
            dispatcher=self.dispatcher,
            ledger=self.ledger,
            clock=self.clock,
            turns=Turns(1),
            max_strikes=3,
            bodies_wanted=True,
            observer=self.watcher,
        )
        self.courier = self.watcher.courier = Courier(
            name,
            self.config,
            judge=self.judge,
            dispatcher=self.dispatcher,
            ledger=self.ledger,
            budget=self.budget,
            clock=self.clock,
            limits=Limits(batch, 8_000_000, 3),
            stop=self.watcher.patience,
            reachable=reachable,
            observer=self.watcher,
        )

    def _queue(self, name: str, retry: float) -> Queue:
        async def listener(queue: Queue, up: bool, reason: str) -> None:
            self.edges.append((queue.name, up))

        return Queue(
            name,
            self.sinks.setdefault(name, FakeSink()),
            payload="summary",
            octets_wanted=True,
            retry_interval=timedelta(seconds=retry),
            clock=self.clock,
            listener=listener,
            on_ready=lambda: self.watcher.rouse(),
        )

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

    async def carry(self, *, suppress: bool = False) -> Tally:
        """One pass over INBOX in a session of its own, as the watcher would do it."""
        session = await self.source.connect()
        try:
            folder = await session.open("INBOX")
            state = await self.ledger.open_folder(folder, self.source.account)
            return await self.courier.carry(session, folder, state.position, Start("all"), suppress=suppress)
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
