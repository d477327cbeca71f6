"""What a sink wants an operator to know although deliveries succeed is told in the sink's own words."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from given import given
from test_alarm import FakeOutgoing, read

from clocks import SkippingClock
from mailpoller.assembly.parts import Ports, queue_parts
from mailpoller.assembly.shares import Bounds, Shares
from mailpoller.core.component import Runtime, SinkConfig
from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.core.ports import DoubtKind, SinkDoubt
from mailpoller.core.spool import Spool
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.batcher import Limits
from mailpoller.engine.health import Health
from mailpoller.engine.queues import Queue
from mailpoller.sinks.sqlite.sink import WAL_GROWING
from mailpoller.testing.fake_sink import FakeSink
from mailpoller.testing.memory_ledger import MemoryLedger

LAGGING = DoubtKind(
    "broker-lagging",
    "The broker of the queue {subject} lags",
    "The broker of the queue {subject} has caught up",
    "Add a partition.",
    timedelta(minutes=2),
)
UNREPLICATED = DoubtKind(
    "unreplicated", "One copy of {subject} is left", "{subject} has its copies", "Look at the rack."
)


class Broker(FakeSink):
    """A sink from outside, which doubts what it is told to."""

    doubts: Collection[DoubtKind] = (LAGGING, UNREPLICATED)

    def __init__(self) -> None:
        super().__init__()
        self.said: list[SinkDoubt] = []
        self.trouble: Exception | None = None

    async def upkeep(self) -> Sequence[SinkDoubt]:
        if self.trouble is not None:
            raise self.trouble
        return self.said


class Site:
    """A queue with such a sink, its alarm, and who reads its mail; ``start`` is a new process on the same ledger."""

    def __init__(self) -> None:
        self.clock = SkippingClock()
        self.ledger = MemoryLedger(self.clock)
        self.outgoing = FakeOutgoing()
        self.start()

    def start(self, name: str = "events") -> None:
        self.ledger = self.ledger.restarted()
        self.alarm = Alarm(self.ledger, self.outgoing, ["op@example.com"], self.clock)  # type: ignore[arg-type]
        self.sink = Broker()
        runtime = Runtime(self.clock, Spool(Path()), Path())
        ports = Ports(self.ledger, self.alarm, Health(self.clock), runtime, asyncio.Event())
        bounds = Bounds(16_000_000, 8_000_000, Limits(5, 8_000_000, 3), timedelta(minutes=15))
        self.queue = queue_parts(name, given(SinkConfig, self.sink), lambda: None, ports, Shares(bounds, self.clock))

    async def minutes(self, number: int) -> None:
        """Let time pass: the sink has its turn every minute."""
        for _ in range(number):
            await turn(self.queue)
            for _ in range(12):
                await self.alarm.step()
                self.clock.seconds += 5

    @property
    def bodies(self) -> list[str]:
        return [str(read(mail).get_content()) for mail in self.outgoing.mails]


async def turn(queue: Queue) -> None:
    await queue.upkeep.turn()


@pytest.fixture
def site() -> Site:
    return Site()


async def test_a_doubt_is_mailed_in_the_words_of_its_sink_and_so_is_its_end(site: Site) -> None:
    await site.minutes(1)
    site.sink.said = [SinkDoubt(LAGGING, "40,000 events behind")]
    await site.minutes(1)
    assert site.outgoing.mails == [], "it is not worth a mail yet"
    assert site.queue.concerns == {"sink": "40,000 events behind"}
    await site.minutes(2)
    assert site.outgoing.subjects == ["[mailpoller] The broker of the queue events lags"]
    assert "40,000 events behind" in site.bodies[0]
    assert "Add a partition." in site.bodies[0]
    site.sink.said = []
    await site.minutes(10)
    assert site.outgoing.subjects[1:] == ["[mailpoller] The broker of the queue events has caught up"]
    assert site.queue.concerns == {}


async def test_doubts_of_two_kinds_come_and_go_by_themselves(site: Site) -> None:
    site.sink.said = [SinkDoubt(LAGGING, "behind"), SinkDoubt(UNREPLICATED, "one copy")]
    await site.minutes(1)
    assert site.queue.concerns == {"sink": "behind; one copy"}
    site.sink.said = [SinkDoubt(LAGGING, "behind")]
    await site.minutes(1)
    assert await site.alarm.stands(LAGGING, "events")
    assert not await site.alarm.stands(UNREPLICATED, "events")


async def test_what_was_said_stands_while_the_sink_cannot_look(site: Site) -> None:
    site.sink.said = [SinkDoubt(LAGGING, "behind")]
    await site.minutes(1)
    site.sink.trouble = TransientError("no answer")
    with pytest.raises(TransientError):
        await turn(site.queue)
    assert await site.alarm.stands(LAGGING, "events")


async def test_a_doubt_of_an_earlier_run_ends_in_the_words_of_its_sink(site: Site) -> None:
    site.sink.said = [SinkDoubt(LAGGING, "behind")]
    await site.minutes(4)
    assert len(site.outgoing.mails) == 1
    site.start()
    site.sink.said = [SinkDoubt(LAGGING, "behind")]
    await site.minutes(10)
    assert len(site.outgoing.mails) == 1, "it was told"
    site.sink.said = []
    await site.minutes(10)
    assert site.outgoing.subjects[1:] == ["[mailpoller] The broker of the queue events has caught up"]


async def test_a_doubt_that_a_sink_never_spoke_of_is_a_bug_of_the_sink(site: Site) -> None:
    site.sink.doubts = (UNREPLICATED,)
    site.sink.said = [SinkDoubt(LAGGING, "behind")]
    with pytest.raises(RuntimeError, match="broker-lagging"):
        await turn(site.queue)


async def test_no_sink_takes_the_name_of_an_alarm_of_the_service(site: Site) -> None:
    taken = DoubtKind(Kind.QUEUE_FAILING.value, "{subject} fails", "{subject} works", "")
    with pytest.raises(ConfigError, match="queue-failing"):
        site.alarm.learn([taken])


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("Lagging", "{subject} lags"),
        ("a:b", "{subject} lags"),
        ("", "{subject} lags"),
        ("lagging", "{subject} {place} lags"),
        ("lagging", "{subject lags"),
        ("lagging", "it lags"),
        ("lagging", "{subject}\r\nBcc: x"),
    ],
)
def test_words_that_could_not_be_told_are_refused_when_they_are_written(name: str, one: str) -> None:
    with pytest.raises(ValueError, match=r"subject|small letters"):
        DoubtKind(name, one, "{subject} is well", "")


async def test_a_queue_file_that_grows_is_told_as_ever(site: Site) -> None:
    site.sink.doubts = (WAL_GROWING,)
    site.alarm.learn(site.queue.doubts)
    site.sink.said = [SinkDoubt(WAL_GROWING, "a reader keeps a transaction open")]
    await site.minutes(5)
    assert site.outgoing.mails == []
    await site.minutes(2)
    site.sink.said = []
    await site.minutes(8)
    assert site.outgoing.subjects == [
        "[mailpoller] A reader keeps the file of the queue events growing",
        "[mailpoller] The file of the queue events shrinks again",
    ]
    assert "Somebody holds a read transaction open on it: end that program, or let it commit." in site.bodies[0]
    assert "wal-growing:events" not in {edge.key for edge in await site.ledger.alarms()}
