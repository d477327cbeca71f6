"""The line that batches go along: in order, one at a stage, and all stages at work at once."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from mailpoller.engine.stages import Stages, StageSlot

STAGES = 4


class Walkers:
    """Things that walk along one line and write down where they are."""

    def __init__(self, count: int, seed: int = 1) -> None:
        self.stages = Stages(STAGES)
        self.random = Random(seed)
        self.at: list[list[int]] = [[] for _ in range(STAGES)]
        self.seen: list[list[int]] = [[] for _ in range(STAGES)]
        self.busiest = 0
        self.places = [self.stages.enter() for _ in range(count)]

    async def walk(self, number: int, place: StageSlot, stations: int = STAGES) -> None:
        try:
            for station in range(stations):
                await place.on()
                for others in self.at:
                    if number in others:
                        others.remove(number)
                self.at[station].append(number)
                assert len(self.at[station]) == 1, "no stage holds two"
                self.seen[station].append(number)
                self.busiest = max(self.busiest, sum(map(len, self.at)))
                for _ in range(self.random.randrange(4)):
                    await asyncio.sleep(0)
        finally:
            for others in self.at:
                if number in others:
                    others.remove(number)
            place.leave()


@pytest.mark.parametrize("seed", range(5))
async def test_nobody_overtakes_and_no_station_holds_two(seed: int) -> None:
    walkers = Walkers(30, seed)
    async with asyncio.timeout(60):
        await asyncio.gather(*(walkers.walk(number, place) for number, place in enumerate(walkers.places)))
    assert walkers.seen == [list(range(30))] * STAGES
    assert walkers.busiest == STAGES, "all stages are at work at once"


async def test_who_leaves_in_the_middle_makes_room_for_the_next() -> None:
    walkers = Walkers(3)
    async with asyncio.timeout(60):
        first = asyncio.create_task(walkers.walk(0, walkers.places[0], stations=2))
        await asyncio.gather(first, *(walkers.walk(n, walkers.places[n]) for n in (1, 2)))
    assert walkers.seen[-1] == [1, 2]


async def test_who_is_cancelled_while_it_waits_keeps_nothing() -> None:
    stages = Stages(2)
    ahead, behind, last = stages.enter(), stages.enter(), stages.enter()
    await ahead.on()
    await ahead.on()
    await behind.on()
    waiting = asyncio.create_task(behind.on())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    behind.leave()
    behind.leave()
    ahead.leave()
    async with asyncio.timeout(60):
        await last.on()
        await last.on()
    last.leave()
