"""A bound on who begins at the same time, without waiting for those that take long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

PATIENCE_S = 0.25
"""Whoever has begun so long ago waits for somebody else: a resolver, a server. That costs us nothing, so the next one
may begin."""


@contextlib.asynccontextmanager
async def among(places: asyncio.Semaphore) -> AsyncIterator[None]:
    """A place among those who begin; given back at the end of the block, or after :data:`PATIENCE_S`."""
    await places.acquire()
    given_back = False

    def give_back() -> None:
        nonlocal given_back
        if not given_back:
            given_back = True
            places.release()

    timer = asyncio.get_running_loop().call_later(PATIENCE_S, give_back)
    try:
        yield
    finally:
        timer.cancel()
        give_back()
