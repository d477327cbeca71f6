"""Stations in a row: who is ahead of another at the first one is ahead of it all the way, and no station holds two."""

from __future__ import annotations

import asyncio


class Line:
    """A row of stations. Whoever is at one stays there until the next one is free, so nothing ever gathers between
    two."""

    def __init__(self, stations: int) -> None:
        self._stations = tuple(asyncio.Lock() for _ in range(stations))

    def enter(self) -> Place:
        """A place before the first station."""
        return Place(self._stations)


class Place:
    """Where one thing is in its line. It keeps its station until it goes on or leaves."""

    __slots__ = ("_ahead", "_held")

    def __init__(self, stations: tuple[asyncio.Lock, ...]) -> None:
        self._ahead = iter(stations)
        self._held: asyncio.Lock | None = None

    async def on(self) -> None:
        """Go on to the next station as soon as it is free; who waits longest goes first, as :class:`asyncio.Lock`
        promises."""
        station = next(self._ahead)
        await station.acquire()
        self.leave()
        self._held = station

    def leave(self) -> None:
        """Free the station. Harmless when repeated."""
        held, self._held = self._held, None
        if held is not None:
            held.release()
