"""Two pieces of work side by side."""

from __future__ import annotations

import asyncio

import pytest

from mailpoller.core.errors import SessionLost
from mailpoller.engine.overlap import side_by_side


async def test_the_other_work_is_finished_when_one_fails() -> None:
    finished = asyncio.Event()

    async def fetching() -> None:
        raise SessionLost("cut")

    async def delivering() -> None:
        await asyncio.sleep(0.01)
        finished.set()

    with pytest.raises(SessionLost):
        await side_by_side(fetching(), delivering(), ("fetch", "deliver"))
    assert finished.is_set()


async def test_cancelling_cancels_both() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    both = asyncio.ensure_future(side_by_side(work("a"), work("b"), ("a", "b")))
    await asyncio.sleep(0.01)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
    assert sorted(ended) == ["a", "b"]


async def test_both_results_are_returned() -> None:
    async def give(value: int) -> int:
        return value

    assert await side_by_side(give(1), give(2), ("a", "b")) == (1, 2)
