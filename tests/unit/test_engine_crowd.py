"""Who begins at the same time: many that hang keep nobody from beginning."""

from __future__ import annotations

import asyncio
import time

import pytest

from mailpoller.engine import crowd
from mailpoller.engine.crowd import among


async def test_those_that_take_long_give_their_places_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "PATIENCE_S", 0.05)
    places = asyncio.Semaphore(2)

    async def hang() -> None:
        async with among(places):
            await asyncio.sleep(30)

    hanging = [asyncio.create_task(hang()) for _ in range(6)]
    await asyncio.sleep(0)
    began = time.monotonic()
    async with among(places):
        assert time.monotonic() - began < 5
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    assert places._value == 2  # each was given back once


async def test_no_more_begin_at_the_same_time_than_there_are_places() -> None:
    places, inside, most = asyncio.Semaphore(3), 0, 0

    async def begin() -> None:
        nonlocal inside, most
        async with among(places):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.001)
            inside -= 1

    await asyncio.gather(*(begin() for _ in range(20)))
    assert most == 3
