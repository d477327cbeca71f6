"""A queue is delivered to only while it is the one that the ledger knows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import LedgerUnavailable, MailpollerError, QueueVanished, TransientError
from mailpoller.core.ports import Mark
from mailpoller.engine.availability import State
from mailpoller.engine.queues import Queue
from mailpoller.engine.recognition import Recognition
from mailpoller.testing.memory_ledger import MemoryLedger, MemoryStore
from unit.sink_runtime import HandClock
from unit.test_engine_queues import ScriptedSink, deliveries


class Disk:
    """Where a queue lies, or does not."""

    def __init__(self) -> None:
        self.mark: Mark | None = None
        self.begun = 0

    def begin(self) -> None:
        self.begun += 1
        self.mark = Mark(f"queue {self.begun}", 0, "/q")


class MarkedSink(ScriptedSink):
    """A sink with a mark, of one process."""

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self.disk = disk
        self.expected: Mark | None = None
        self.untaken_words: str | None = None

    def _require(self) -> None:
        if self.expected is not None and (trouble := self.expected.unlike(self.disk.mark, "/q")):
            raise QueueVanished(trouble)

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        self._require()
        if self.disk.mark is None:
            self.disk.begin()
        answers = await super().deliver(batch)
        assert self.disk.mark is not None
        self.disk.mark = Mark(self.disk.mark.identity, self.disk.mark.height + len(batch), "/q")
        return answers

    async def check(self) -> None:
        self._require()
        await super().check()

    async def mark(self) -> Mark | None:
        return self.disk.mark

    async def renewed(self) -> Mark | None:
        self._require()
        return self.disk.mark

    def expect(self, mark: Mark | None) -> None:
        self.expected = mark

    def place(self) -> str:
        return "/q"

    async def untaken(self) -> str | None:
        return self.untaken_words


class Rig:
    """One ledger and one disk, and a process on them at a time."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.ledger = MemoryLedger(self.clock, MemoryStore())
        self.disk = Disk()
        self.edges: list[tuple[bool, bool, str]] = []
        self.told: list[str | None] = []
        self.start()

    def start(self) -> None:
        """A new process."""

        async def listener(queue: Queue, up: bool, reason: str) -> None:
            self.edges.append((up, queue.vanished, reason))

        async def untaken(queue: Queue, words: str | None) -> None:
            self.told.append(words)

        self.ledger = self.ledger.restarted()
        self.sink = MarkedSink(self.disk)
        self.queue = Queue(
            "support",
            self.sink,
            payload="parsed",
            octets_wanted=False,
            retry_interval=timedelta(seconds=10),
            clock=self.clock,
            listener=listener,
            untaken=untaken,
            recognition=Recognition("support", self.sink, self.ledger, self.clock),
        )

    @asynccontextmanager
    async def tended(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.queue.tend())
        try:
            await settle()
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def pass_by(self, seconds: float) -> None:
        end = self.clock.elapsed + seconds
        while self.clock.elapsed < end:
            self.clock.advance(timedelta(seconds=min(5.0, end - self.clock.elapsed)))
            await settle()


class SteppedClock(HandClock):
    """Sleepers wake when the hand has moved that far."""

    async def sleep(self, seconds: float) -> None:
        end = self.elapsed + seconds
        while self.elapsed < end:
            await asyncio.sleep(0)


async def settle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


async def known_height(rig: Rig) -> int | None:
    record = await rig.ledger.queue_mark("support")
    return None if record is None else record.mark.height


async def test_the_ledger_knows_a_queue_before_its_first_receipt_comes_back() -> None:
    rig = Rig()
    assert len(await rig.queue.deliver(deliveries(3))) == 3
    record = await rig.ledger.queue_mark("support")
    assert record is not None
    assert (record.mark, record.receipts) == (rig.disk.mark, 3)


async def test_nothing_is_noted_per_batch_but_once_a_minute_and_at_the_end() -> None:
    rig = Rig()
    for _ in range(50):
        await rig.queue.deliver(deliveries(2))
    assert rig.ledger.calls.count("note_queue") == 1
    assert rig.ledger.calls.count("queue_mark") == 1
    rig.clock.advance(timedelta(seconds=61))
    await rig.queue.deliver(deliveries(2))
    await rig.queue.deliver(deliveries(2))
    assert rig.ledger.calls.count("note_queue") == 2
    await rig.queue.close()
    assert rig.ledger.calls.count("note_queue") == 3
    record = await rig.ledger.queue_mark("support")
    assert record is not None
    assert (record.mark.height, record.receipts) == (104, 104)


async def test_what_is_not_noted_by_a_delivery_is_noted_within_a_minute_or_two() -> None:
    rig = Rig()
    async with rig.tended():
        await rig.queue.deliver(deliveries(1))
        await rig.queue.deliver(deliveries(1))
        await rig.pass_by(125)
        assert await known_height(rig) == 2


@pytest.mark.parametrize("what", ["gone", "another", "older"])
async def test_a_queue_that_vanished_while_we_were_down_is_down_and_not_begun_anew(what: str) -> None:
    rig = Rig()
    await rig.queue.deliver(deliveries(3))
    await rig.queue.close()
    rig.disk.mark = {"gone": None, "another": Mark("x", 99, "/q"), "older": Mark("queue 1", 2, "/q")}[what]
    rig.start()
    with pytest.raises(TransientError, match="mailpoller queue adopt support"):
        await rig.queue.deliver(deliveries(1))
    assert (rig.queue.state, rig.queue.vanished, rig.disk.begun) == (State.DOWN, True, 1)
    assert [(up, vanished) for up, vanished, _ in rig.edges][-1] == (False, True)
    assert rig.sink.calls == []
    assert rig.sink.expected is not None, "its upkeep makes nothing anew either"


async def test_a_queue_that_vanished_is_told_of_at_the_start_though_nobody_brings_mail() -> None:
    rig = Rig()
    await rig.queue.deliver(deliveries(1))
    rig.disk.mark = None
    rig.start()
    async with rig.tended():
        assert rig.queue.vanished


async def test_a_queue_that_vanishes_while_nobody_brings_mail_is_told_of_within_a_minute() -> None:
    rig = Rig()
    await rig.queue.deliver(deliveries(1))
    async with rig.tended():
        await rig.pass_by(30)
        rig.disk.mark = None
        await rig.pass_by(65)
        assert rig.queue.vanished


async def test_a_queue_that_is_back_goes_on_by_itself() -> None:
    rig = Rig()
    await rig.queue.deliver(deliveries(1))
    held, rig.disk.mark = rig.disk.mark, None
    async with rig.tended():
        with pytest.raises(TransientError):
            await rig.queue.deliver(deliveries(1))
        assert rig.queue.vanished
        await rig.pass_by(60)
        assert rig.queue.state is State.DOWN
        rig.disk.mark = held
        await rig.pass_by(120)
        await rig.queue.deliver(deliveries(1))
    assert (rig.queue.state, rig.queue.vanished, rig.disk.begun) == (State.UP, False, 1)


async def test_an_adopted_queue_takes_mail_at_once_and_says_what_was_noted_of_the_one_before() -> None:
    rig = Rig()
    await rig.queue.deliver(deliveries(3))
    await rig.queue.close()
    rig.disk.mark = None
    rig.start()
    async with rig.tended():
        record = await rig.queue.adopt()
        assert record is not None
        assert record.receipts == 3
        assert (rig.queue.state, rig.queue.vanished) == (State.UP, False)
        await rig.queue.deliver(deliveries(1))
        assert rig.disk.begun == 2
        assert [(up, vanished) for up, vanished, _ in rig.edges][-1] == (True, False)
    rig.start()
    await rig.queue.deliver(deliveries(1))
    assert rig.disk.begun == 2


async def test_a_queue_that_did_not_vanish_is_not_adopted() -> None:
    rig = Rig()
    await rig.queue.deliver(deliveries(3))
    with pytest.raises(MailpollerError, match="nothing to adopt"):
        await rig.queue.adopt()
    assert await known_height(rig) == 3


async def test_a_failing_queue_that_turns_out_to_have_vanished_is_told_as_that() -> None:
    rig = Rig()
    await rig.queue.deliver(deliveries(1))
    async with rig.tended():
        rig.sink.failure = TransientError("disk full")
        with pytest.raises(TransientError):
            await rig.queue.deliver(deliveries(1))
        assert not rig.queue.vanished
        rig.sink.failure, rig.disk.mark = None, None
        await rig.pass_by(60)
        assert rig.queue.vanished
    assert [(up, vanished) for up, vanished, _ in rig.edges][-2:] == [(False, False), (False, True)]


async def test_a_mark_that_the_ledger_does_not_know_is_taken() -> None:
    rig = Rig()
    rig.disk.mark = Mark("from elsewhere", 12, "/q")
    await rig.queue.deliver(deliveries(1))
    record = await rig.ledger.queue_mark("support")
    assert record is not None
    assert record.mark == Mark("from elsewhere", 13, "/q")


async def test_a_ledger_that_cannot_be_asked_is_not_the_queue_s_trouble() -> None:
    rig = Rig()
    rig.ledger.fail("queue_mark")
    with pytest.raises(LedgerUnavailable):
        await rig.queue.deliver(deliveries(1))
    assert rig.sink.calls == [], "nothing is believed of a queue that could not be compared"
    assert rig.queue.state is State.UP
    rig.ledger.fail("note_queue")
    await rig.queue.deliver(deliveries(1))
    assert rig.queue.state is State.UP
    await rig.queue.deliver(deliveries(1))
    assert await known_height(rig) == 2, "noted the next time"


async def test_a_queue_that_is_replaced_between_two_notes_is_not_noted_in_its_place() -> None:
    rig = Rig()
    await rig.queue.deliver(deliveries(1))
    await rig.queue.deliver(deliveries(1))
    rig.disk.mark = Mark("x", 99, "/q")
    rig.sink.expected = None  # a sink that does not look by itself
    await rig.queue.close()
    record = await rig.ledger.queue_mark("support")
    assert record is not None
    assert record.mark.identity == "queue 1"


async def test_a_sink_without_a_mark_is_never_in_doubt() -> None:
    rig = Rig()
    sink = ScriptedSink()
    recognition = Recognition("relay", sink, rig.ledger, rig.clock)
    await recognition.require()
    await recognition.received(3)
    await recognition.note()
    assert "note_queue" not in rig.ledger.calls
    with pytest.raises(MailpollerError, match="bears no mark"):
        await recognition.adopt()


async def test_a_queue_that_nobody_takes_from_is_a_concern_until_somebody_does() -> None:
    rig = Rig()
    async with rig.tended():
        rig.sink.untaken_words = "nobody takes"
        await rig.pass_by(65)
        assert rig.queue.concerns == {"untaken": "nobody takes"}
        assert rig.queue.state is State.UP
        rig.sink.untaken_words = None
        await rig.pass_by(65)
    assert rig.queue.concerns == {}
    assert rig.told[0] == "nobody takes"
    assert rig.told[-1] is None
