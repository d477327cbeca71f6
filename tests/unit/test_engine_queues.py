"""A queue's back-off belongs to the queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta

import pytest

from mailpoller.core.delivery import Delivery, Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.message import Claim, Folder, MessageRef, RawMessage
from mailpoller.core.ports import OctetsPlace
from mailpoller.core.seals.sink import SealedReceipt
from mailpoller.core.spool import Octets
from mailpoller.engine.availability import State
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.queues import Queue


class ScriptedSink:
    """A sink that fails as long as it is told to, and remembers what it took."""

    octets_place: OctetsPlace = "beside"

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.poison: str | None = None
        self.calls: list[int] = []
        self.held: list[str] = []
        self.checks = 0

    async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
        self.calls.append(len(batch))
        if self.failure is not None:
            raise self.failure
        if any(delivery.delivery_id == self.poison for delivery in batch):
            raise ValueError("cannot stomach this")
        self.held += [delivery.delivery_id for delivery in batch]
        return [SealedReceipt(delivery.delivery_id) for delivery in batch]

    async def check(self) -> None:
        self.checks += 1
        if self.failure is not None:
            raise TransientError("still down")

    async def close(self) -> None:
        return None


def deliveries(count: int) -> list[Delivery]:
    folder = Folder("support", "INBOX", "epoch")
    made = []
    for number in range(count):
        raw = RawMessage(Claim(MessageRef(folder, str(number)), f"mid-{number}"), Octets.of(b"x"))
        made.append(Delivery(f"id-{number}", f"mid-{number}", "q", b"{}", raw))
    return made


def make_queue(sink: ScriptedSink, edges: list[tuple[bool, str]], *, retry: float = 0.01) -> Queue:
    async def listener(queue: Queue, up: bool, reason: str) -> None:
        edges.append((up, reason))

    return Queue(
        "q",
        sink,
        payload="parsed",
        octets_wanted=False,
        retry_interval=timedelta(seconds=retry),
        clock=SystemClock(),
        listener=listener,
    )


async def test_one_message_that_a_sink_cannot_stomach_never_defers_the_others() -> None:
    sink, edges = ScriptedSink(), list[tuple[bool, str]]()
    sink.poison = "id-3"
    answers = await make_queue(sink, edges).deliver(deliveries(6))
    assert [isinstance(answer, Receipt) for answer in answers] == [True, True, True, False, True, True]
    assert isinstance(answers[3], Refusal)
    assert not answers[3].permanent
    assert sink.held == ["id-0", "id-1", "id-2", "id-4", "id-5"]
    assert edges == [(True, "")], "an alarm of an earlier run ends with the first delivery"


async def test_a_queue_that_is_down_is_not_called_again_before_its_next_try() -> None:
    sink, edges = ScriptedSink(), list[tuple[bool, str]]()
    queue = make_queue(sink, edges, retry=60)
    sink.failure = TransientError("disk full")
    for _ in range(5):
        with pytest.raises(TransientError, match="disk full"):
            await queue.deliver(deliveries(3))
    assert sink.calls == [3]
    assert edges == [(False, "disk full")]


async def test_after_an_outage_one_message_goes_first_and_one_edge_each_way_is_told() -> None:
    sink, edges = ScriptedSink(), list[tuple[bool, str]]()
    queue = make_queue(sink, edges)
    tending = asyncio.create_task(queue.tend())
    sink.failure = TransientError("disk full")
    with pytest.raises(TransientError):
        await queue.deliver(deliveries(3))
    while sink.checks < 2:
        await asyncio.sleep(0.005)
    sink.failure = None
    while queue.state is not State.PROBING:
        await asyncio.sleep(0.005)
    sink.calls.clear()
    answers = await queue.deliver(deliveries(4))
    tending.cancel()
    assert sink.calls == [1, 3]
    assert len(answers) == 4
    assert queue.state is State.UP
    assert edges == [(False, "disk full"), (True, "")]


async def test_a_sink_that_answers_for_other_deliveries_is_not_believed() -> None:
    class Confused(ScriptedSink):
        async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
            return [SealedReceipt("somebody-else") for _ in batch]

    with pytest.raises(TransientError, match="other deliveries"):
        await make_queue(Confused(), []).deliver(deliveries(2))


async def test_a_queue_that_passed_its_check_recovers_though_nobody_has_mail_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mailpoller.engine.availability.BELIEVED_AFTER", timedelta(seconds=0.05))
    sink, edges = ScriptedSink(), list[tuple[bool, str]]()
    queue = make_queue(sink, edges)
    tending = asyncio.create_task(queue.tend())
    sink.failure = TransientError("disk full")
    with pytest.raises(TransientError):
        await queue.deliver(deliveries(1))
    sink.failure = None
    async with asyncio.timeout(60):
        while queue.state is not State.UP:
            await asyncio.sleep(0.005)
    tending.cancel()
    assert edges == [(False, "disk full"), (True, "")]


async def test_an_alarm_of_an_earlier_run_ends_without_mail_once_the_queue_was_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mailpoller.engine.availability.BELIEVED_AFTER", timedelta(milliseconds=10))
    sink, edges = ScriptedSink(), list[tuple[bool, str]]()
    queue = make_queue(sink, edges)
    tending = asyncio.create_task(queue.tend())
    async with asyncio.timeout(30):
        while not edges:
            await asyncio.sleep(0.01)
    assert edges == [(True, "")]
    assert sink.calls == []
    await queue.deliver(deliveries(1))
    assert edges == [(True, "")], "told once"
    tending.cancel()


async def test_a_refusal_that_is_the_queues_trouble_does_not_bring_it_back_nor_keep_it_from_others() -> None:
    class Wary(ScriptedSink):
        bad: frozenset[str] = frozenset()

        async def deliver(self, batch: Sequence[Delivery]) -> Sequence[Receipt | Refusal]:
            await super().deliver([one for one in batch if one.delivery_id not in self.bad])
            return [
                Refusal(one.delivery_id, "not now", blame="queue")
                if one.delivery_id in self.bad
                else SealedReceipt(one.delivery_id)
                for one in batch
            ]

    sink, edges = Wary(), list[tuple[bool, str]]()
    queue = make_queue(sink, edges, retry=60)
    queue.availability.state, queue.availability.reason = State.PROBING, "was down"
    sink.bad = frozenset(f"id-{number}" for number in range(9))
    with pytest.raises(TransientError, match="not now"):
        await queue.deliver(deliveries(9))
    assert queue.state is State.DOWN
    assert (sum(sink.calls), edges) == (0, [])
    queue.availability.state = State.PROBING
    sink.bad = frozenset(("id-0",))
    answers: list[Receipt | Refusal] = []
    for _ in range(100):  # now and then it is the bad one that is tried
        queue.availability.state = State.PROBING
        with contextlib.suppress(TransientError):
            answers = await queue.deliver(deliveries(4))
            break
    assert [isinstance(one, Receipt) for one in answers] == [False, True, True, True]
    assert (queue.state, edges) == (State.UP, [(True, "")])


async def test_a_bug_met_while_a_queue_is_looked_after_does_not_end_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mailpoller.engine.availability.BELIEVED_AFTER", timedelta(0))
    monkeypatch.setattr("mailpoller.engine.queues.UPKEEP_INTERVAL", timedelta(milliseconds=10))
    told: list[bool] = []

    async def listener(queue: Queue, up: bool, reason: str) -> None:
        told.append(up)
        if len(told) == 1:
            raise RuntimeError("a bug")

    queue = Queue(
        "q",
        ScriptedSink(),
        payload="parsed",
        octets_wanted=False,
        retry_interval=timedelta(seconds=1),
        clock=SystemClock(),
        listener=listener,
    )
    tending = asyncio.create_task(queue.tend())
    while len(told) < 2 and not tending.done():
        await asyncio.sleep(0.005)
    assert not tending.done(), "and who could not be told is told again"
    tending.cancel()
