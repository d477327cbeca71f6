"""Several pieces of work side by side."""

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
        await side_by_side(fetch=fetching(), deliver=delivering())
    assert finished.is_set()


async def test_of_two_failures_the_first_is_raised_and_the_second_is_not_forgotten() -> None:
    async def failing(error: Exception, seconds: float) -> None:
        await asyncio.sleep(seconds)
        raise error

    with pytest.raises(SessionLost) as raised:
        await side_by_side(late=failing(ValueError("second"), 0.02), early=failing(SessionLost("first"), 0.0))
    assert isinstance(raised.value.__cause__, ValueError)


async def test_cancelling_cancels_all() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)

    both = asyncio.ensure_future(side_by_side(one=work("a"), other=work("b")))
    await asyncio.sleep(0.01)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
    assert sorted(ended) == ["a", "b"]
