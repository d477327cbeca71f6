"""The bound on octets in hand."""

from __future__ import annotations

import asyncio

import pytest

from mailpoller.engine.budget import Budget


async def settle_down() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_never_more_octets_are_in_hand_than_the_budget() -> None:
    budget = Budget(100)
    first = await budget.reserve(60)
    second = asyncio.ensure_future(budget.reserve(50))
    await settle_down()
    assert not second.done()
    first.release()
    (await second).release()
    assert budget.used == 0


async def test_a_wish_larger_than_the_whole_is_granted_alone() -> None:
    budget = Budget(100)
    small = await budget.reserve(1)
    huge = asyncio.ensure_future(budget.reserve(10_000))
    await settle_down()
    assert not huge.done()
    small.release()
    await huge
    assert budget.used == 100


async def test_a_large_wish_is_not_overtaken_by_small_ones() -> None:
    budget = Budget(100)
    holder = await budget.reserve(60)
    large = asyncio.ensure_future(budget.reserve(90))
    await settle_down()
    small = asyncio.ensure_future(budget.reserve(5))
    await settle_down()
    assert not small.done()
    holder.release()
    await settle_down()
    assert large.done()
    assert small.done()


async def test_a_cancelled_wish_leaves_no_trace() -> None:
    process = Budget(100)
    mailbox = Budget(100, process)
    holder = await process.reserve(80)
    wish = asyncio.ensure_future(mailbox.reserve(50))
    await settle_down()
    wish.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wish
    holder.release()
    assert process.used == 0
    assert mailbox.used == 0


async def test_every_mailbox_counts_against_the_process() -> None:
    process = Budget(100)
    one, other = Budget(80, process), Budget(80, process)
    held = await one.reserve(70)
    late = asyncio.ensure_future(other.reserve(70))
    await settle_down()
    assert not late.done()
    held.release()
    (await late).release()
    assert (process.used, one.used, other.used) == (0, 0, 0)


async def test_releasing_twice_gives_back_once() -> None:
    budget = Budget(100)
    held = await budget.reserve(40)
    held.release()
    held.release()
    assert budget.used == 0
