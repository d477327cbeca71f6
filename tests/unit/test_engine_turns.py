"""What is scarce goes round in shares of 4 : 2 : 1, and nobody starves."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailpoller.engine.budget import Budget, Reservation
from mailpoller.engine.turns import FairShare, Turns

WEIGHTS = {"high": 4, "medium": 2, "low": 1}


async def settle_down() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def shares(room: FairShare, sizes: dict[str, int], grants: int) -> Counter[str]:
    """How often each mailbox was served, of so many grants, when all of them always want more."""
    served: Counter[str] = Counter()
    done = asyncio.Event()

    async def always(mailbox: str) -> None:
        while not done.is_set():
            taken = await room.take(sizes[mailbox], mailbox)
            if served.total() < grants:
                served[mailbox] += 1
            else:
                done.set()
            await asyncio.sleep(0)
            room.give_back(taken)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for mailbox in sizes:
            # Two at a time, as a batch runner that fetches a batch while it delivers another.
            group.create_task(always(mailbox))
            group.create_task(always(mailbox))
    return served


async def test_mailboxes_that_always_wait_are_served_four_to_two_to_one() -> None:
    served = await shares(FairShare(10, WEIGHTS), {"high": 10, "medium": 10, "low": 10}, grants=700)
    assert served["high"] == pytest.approx(400, abs=4)
    assert served["medium"] == pytest.approx(200, abs=4)
    assert served["low"] == pytest.approx(100, abs=4)


async def test_shares_are_counted_in_octets_and_not_in_wishes() -> None:
    served = await shares(FairShare(100, {"high": 4, "low": 1}), {"high": 100, "low": 10}, grants=700)
    assert served["high"] * 100 == pytest.approx(4 * served["low"] * 10, rel=0.05)


async def test_mailbox_that_seldom_asks_is_next_however_many_wait_with_a_backlog() -> None:
    turns = Turns(1, {"small": 1})
    order: list[str] = []

    async def batch(mailbox: str, messages: int) -> None:
        async with turns.turn(mailbox, messages):
            order.append(mailbox)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            for _ in range(3):
                group.create_task(batch(f"backlog {number}", 200))
        while len(order) < 21:  # each backlog was served once, and has its next batches waiting
            await asyncio.sleep(0)
        before = len(order)
        group.create_task(batch("small", 1))
    assert order.index("small") - before <= 1


async def test_nobody_gains_credit_by_having_asked_for_nothing() -> None:
    room = FairShare(1)
    for _ in range(1000):
        room.give_back(await room.take(1, "busy"))
    served = await shares(room, {"busy": 1, "idle": 1}, grants=100)
    assert abs(served["busy"] - served["idle"]) <= 4


async def test_large_wish_is_not_overtaken_for_ever_by_small_ones() -> None:
    room = FairShare(100)
    holder = await room.take(50, "other")
    large = asyncio.ensure_future(room.take(1_000_000, "large"))
    await settle_down()
    overtaken = 0

    async def small(number: int) -> None:
        nonlocal overtaken
        while not large.done():
            taken = await room.take(5, f"small {number}")
            overtaken += not large.done()
            await asyncio.sleep(0)
            room.give_back(taken)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(small(number))
        await settle_down()
        room.give_back(holder)
        room.give_back(await large)
    assert overtaken <= 10 * 100 / 5  # each of them gets what the large one gets, and no more
    assert room.used == 0


async def test_cancelled_wish_leaves_no_trace() -> None:
    room = FairShare(10, WEIGHTS)
    held = await room.take(10, "holder")
    wishes = [asyncio.ensure_future(room.take(10, "high")) for _ in range(5)]
    behind = asyncio.ensure_future(room.take(10, "low"))
    await settle_down()
    for wish in wishes:
        wish.cancel()
    await asyncio.gather(*wishes, return_exceptions=True)
    assert room.waiting == 1
    room.give_back(held)
    room.give_back(await behind)
    assert (room.used, room.waiting) == (0, 0)
    served = await shares(room, {"high": 10, "low": 10}, grants=500)
    assert served["high"] == pytest.approx(400, abs=4)


async def test_wish_that_is_cancelled_as_it_is_granted_gives_back() -> None:
    room = FairShare(1)
    held = await room.take(1, "one")
    wish, behind = (asyncio.ensure_future(room.take(1, name)) for name in ("two", "three"))
    await settle_down()
    room.give_back(held)  # granted, and not told yet
    wish.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wish
    room.give_back(await behind)
    assert room.used == 0


async def test_wish_that_is_cancelled_before_it_is_granted_gives_back() -> None:
    room = FairShare(1)
    held = await room.take(1, "one")
    wish, behind = (asyncio.ensure_future(room.take(1, name)) for name in ("two", "three"))
    await settle_down()
    wish.cancel()
    room.give_back(held)  # its task has not heard of it yet
    with pytest.raises(asyncio.CancelledError):
        await wish
    room.give_back(await behind)
    assert room.used == 0


async def test_block_that_raises_gives_its_place_back() -> None:
    turns = Turns(1)
    with pytest.raises(ValueError, match="boom"):
        async with turns.turn("one"):
            assert turns.taken == 1
            raise ValueError("boom")
    assert turns.taken == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["high", "medium", "low"]), st.integers(0, 30), st.sampled_from("gcr")), max_size=60
    )
)
@settings(max_examples=150, deadline=None)
def test_room_is_never_overdrawn_and_always_comes_back(steps: list[tuple[str, int, str]]) -> None:
    async def scenario() -> None:
        room = FairShare(20, WEIGHTS)
        held: list[int] = []
        wishes: list[asyncio.Future[int]] = []
        for mailbox, size, step in steps:
            if step == "g":
                wishes.append(asyncio.ensure_future(room.take(size, mailbox)))
            elif step == "c" and wishes:
                wishes.pop(size % len(wishes)).cancel()
            elif step == "r" and held:
                room.give_back(held.pop())
            if size % 2:
                await settle_down()
            held += [wish.result() for wish in wishes if wish.done() and not wish.cancelled()]
            wishes = [wish for wish in wishes if not wish.done()]
            assert sum(held) <= room.used <= 20
        await settle_down()
        held += [wish.result() for wish in wishes if wish.done()]
        wishes = [wish for wish in wishes if not wish.done()]
        for _ in range(len(steps) + 1):
            for size in held:
                room.give_back(size)
            held.clear()
            await settle_down()
            held += [wish.result() for wish in wishes if wish.done()]
            wishes = [wish for wish in wishes if not wish.done()]
        assert (wishes, room.used, room.waiting) == ([], 0, 0)

    asyncio.run(scenario())


async def test_small_batch_does_not_wait_for_large_ones_on_slow_lines() -> None:
    process = Budget(64_000_000, aside=8_000_000)
    slow = [Budget(16_000_000, process, mailbox=f"slow {number}") for number in range(8)]
    held: list[Reservation] = []
    waiting = [asyncio.ensure_future(budget.reserve(8_000_000)) for budget in slow for _ in range(2)]
    await settle_down()
    assert process.used == 56_000_000
    async with asyncio.timeout(60):
        held.append(await Budget(16_000_000, process, mailbox="small").reserve(20_000))
    held[0].release()
    for wish in waiting:
        async with asyncio.timeout(60):
            (await wish).release()
    assert process.used == 0


async def test_mailboxes_share_the_memory_of_the_process_by_their_weights() -> None:
    process = Budget(1000, weights=WEIGHTS)
    served: Counter[str] = Counter()
    done = asyncio.Event()

    async def runner(mailbox: str) -> None:
        budget = Budget(2000, process, mailbox=mailbox)

        async def batches() -> None:
            while not done.is_set():
                reservation = await budget.reserve(600)
                served[mailbox] += 1
                if served.total() == 350:
                    done.set()
                await asyncio.sleep(0)
                reservation.release()

        async with asyncio.TaskGroup() as group:
            group.create_task(batches())
            group.create_task(batches())

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for mailbox in WEIGHTS:
            group.create_task(runner(mailbox))
    assert served["high"] == pytest.approx(200, abs=5)
    assert served["medium"] == pytest.approx(100, abs=5)
    assert served["low"] == pytest.approx(50, abs=5)
    assert process.used == 0


async def test_who_is_alone_has_every_place_and_waits_for_all_of_them() -> None:
    turns, done = Turns(2), list[str]()
    leave = asyncio.Event()

    async def one(name: str) -> None:
        async with turns.turn(name):
            done.append(name)
            await leave.wait()

    async def alone() -> None:
        async with turns.alone("b"):
            assert turns.taken == 2
            done.append("b")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(one("a"))
        await settle_down()
        group.create_task(alone())
        await settle_down()
        group.create_task(one("c"))
        await settle_down()
        assert done == ["a"]
        leave.set()
    assert done == ["a", "b", "c"] and turns.taken == 0
