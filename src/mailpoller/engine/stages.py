"""Stages in a row: who is ahead of another at the first one is ahead of it all the way, and no stage holds two."""

from __future__ import annotations

import asyncio


class Stages:
    """A row of stages. Whoever is at one stays there until the next one is free, so nothing ever gathers between
    two."""

    def __init__(self, stages: int) -> None:
        self._stages = tuple(asyncio.Lock() for _ in range(stages))

    def enter(self) -> StageSlot:
        """A place before the first stage."""
        return StageSlot(self._stages)


class StageSlot:
    """Where one thing is in its line. It keeps its stage until it goes on or leaves."""

    __slots__ = ("_ahead", "_held")

    def __init__(self, stages: tuple[asyncio.Lock, ...]) -> None:
        self._ahead = iter(stages)
        self._held: asyncio.Lock | None = None

    async def on(self) -> None:
        """Go on to the next stage as soon as it is free; who waits longest goes first, as :class:`asyncio.Lock`
        promises."""
        stage = next(self._ahead)
        await stage.acquire()
        self.leave()
        self._held = stage

    def leave(self) -> None:
        """Free the stage. Harmless when repeated."""
        held, self._held = self._held, None
        if held is not None:
            held.release()
