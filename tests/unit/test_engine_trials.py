"""Poison and outage are told apart: one bad message stops no other, and a bad queue costs no message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from engine_rig import Rig, log  # noqa: F401

from mailpoller.core.delivery import Delivery, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.engine.availability import State
from mailpoller.engine.trials import IN_A_ROW
from mailpoller.testing.fake_sink import failing, refusing

HANGS_UP = TransientError("the server hung up")


def refusing_all(delivery: Delivery) -> Refusal:
    return Refusal(delivery.delivery_id, "422 what is that?", permanent=True)


async def until_up(rig: Rig, wanted: Callable[[], bool]) -> int:
    """Carry, with the queue's next try in between, until it is so: how many passes that took."""
    queue = rig.queues["support"]
    for count in range(1, 60):
        await rig.carry()
        if wanted():
            return count
        if queue.state is State.DOWN:
            queue.availability.state = State.PROBING  # its check passed
        rig.later(hours=5)
    raise AssertionError("never")


async def test_a_message_at_which_the_server_hangs_up_is_put_off_alone_and_ends_as_refused_by_queue() -> None:
    rig = Rig()
    rig.sinks["support"].doubt = failing(["3"], HANGS_UP)
    rig.fill(6)
    await until_up(rig, lambda: len(rig.subjects()) == 5)
    rig.edges.clear()
    await until_up(rig, lambda: bool(rig.sinks["quarantine"].held))
    (held,) = rig.sinks["quarantine"].held.values()
    assert (held.reason, held.detail) == ("refused-by-queue", "support: the server hung up")
    assert rig.downloads()["3"] >= 20
    assert ("support", False) not in rig.edges, "while it is put off alone the queue is up"


async def test_new_mail_passes_a_message_at_which_the_server_hangs_up() -> None:
    rig = Rig()
    rig.sinks["support"].doubt = failing(["2"], HANGS_UP)
    rig.fill(4)
    await until_up(rig, lambda: len(rig.subjects()) == 3)
    for number in range(10):
        rig.fill(1, "new", start=number)
        await rig.carry()
        assert rig.subjects()[f"new {number}"] == 1
        rig.later(hours=5)
    assert rig.queues["support"].state is State.UP


async def test_a_queue_that_was_down_is_tried_with_one_message_and_another_one_each_time() -> None:
    rig = Rig()
    tried: list[str] = []

    def doubt(delivery: Delivery) -> TransientError:
        tried.append(delivery.raw.claim.ref.uid)
        return HANGS_UP

    rig.sinks["support"].doubt = doubt
    rig.fill(5)
    await rig.carry()
    rig.sinks["support"].batches.clear()
    for _ in range(12):
        rig.queues["support"].availability.state = State.PROBING
        tried.clear()
        await rig.carry()
    assert set(rig.sinks["support"].batches) == {1}
    assert len({uid for uid, count in rig.downloads().items() if count > 1}) > 1


async def test_bad_messages_that_came_first_do_not_keep_a_queue_down() -> None:
    rig = Rig(reachable=frozenset(("support",)))
    bad = [str(number) for number in range(1, 6)]
    rig.sinks["support"].doubt = failing(bad, HANGS_UP)
    rig.fill(5)
    await rig.carry()
    assert rig.queues["support"].state is State.DOWN
    rig.fill(1, "good")
    assert await until_up(rig, lambda: rig.subjects()["good 0"] == 1) <= 3
    assert rig.queues["support"].state is State.UP


async def test_a_queue_that_refuses_everything_is_down_and_fills_no_quarantine() -> None:
    rig = Rig(batch=4)
    rig.sinks["support"].doubt = refusing_all
    rig.fill(40)
    for _ in range(12):
        await rig.carry()
        if rig.queues["support"].state is State.DOWN:
            rig.queues["support"].availability.state = State.PROBING
        rig.later(hours=5)
    assert len(rig.sinks["quarantine"].held) < IN_A_ROW
    assert [edge for edge in rig.edges if not edge[1]] == [("support", False)]
    assert "10 different messages in a row were refused, and none taken: 422" in rig.queues["support"].reason
    before = len(rig.sinks["quarantine"].held)
    rig.sinks["support"].doubt = refusing([])
    await until_up(rig, lambda: len(rig.subjects()) == 40 - before)
    assert rig.edges[-1] == ("support", True)


async def test_one_good_message_between_them_shows_that_bad_ones_are_bad() -> None:
    rig = Rig(batch=5)
    bad = [str(number) for number in range(1, 31) if number % 5]
    rig.sinks["support"].doubt = refusing(bad)
    rig.fill(30)
    await rig.carry()
    assert len(rig.sinks["quarantine"].held) == len(bad)
    assert ("support", False) not in rig.edges


async def test_what_was_never_asked_says_nothing_of_the_queue() -> None:
    rig = Rig()
    rig.sinks["support"].doubt = lambda one: Refusal(one.delivery_id, "too large", permanent=True, unasked=True)
    rig.fill(25)
    await rig.carry()
    assert len(rig.sinks["quarantine"].held) == 25
    rig.queues["support"].availability.state = State.PROBING
    rig.fill(3)
    await rig.carry()
    assert rig.queues["support"].state is State.PROBING, "nobody has seen it take anything"


@pytest.mark.parametrize("queue_fails_its_check", [True, False], ids=["outage", "blip"])
async def test_what_failed_with_its_queue_counts_against_no_message(queue_fails_its_check: bool) -> None:
    rig = Rig()
    sink = rig.sinks["support"]
    rig.fill(10)
    sink.faults.fail("deliver", HANGS_UP)
    if queue_fails_its_check:
        sink.faults.fail("check", TransientError("refused"))
    await rig.carry()
    rig.queues["support"].availability.state = State.PROBING
    await asyncio.sleep(0)
    sink.batches.clear()
    await until_up(rig, lambda: len(rig.subjects()) == 10)
    assert sink.batches[:2] == ([1, 9] if queue_fails_its_check else [1, 1])
    assert not rig.sinks["quarantine"].held
