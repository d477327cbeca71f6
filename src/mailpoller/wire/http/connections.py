"""Connections to one origin, of which each is one request's at a time: what httpcore's pool is for, and cancelled at
any moment.

In httpcore's pool (1.0.9) a request that is cancelled while it waits for its connection leaves behind one that was
never opened and is never closed: it takes a place for ever, and with the last place every later request waits in vain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpcore


class Connections:
    """At most ``most`` at once; an idle one is kept for ``kept`` seconds. ``connect`` makes the wire of a new one, and
    raises :class:`~mailpoller.core.errors.TransientError`."""

    def __init__(
        self, connect: Callable[[httpcore.Origin], Awaitable[httpcore.AsyncNetworkStream]], *, most: int, kept: float
    ) -> None:
        self._connect = connect
        self._kept = kept
        self._places = asyncio.Semaphore(most)
        self._idle: list[httpcore.AsyncHTTP11Connection] = []
        self._lent: set[httpcore.AsyncHTTP11Connection] = set()
        self._closed = False

    @asynccontextmanager
    async def stream(
        self, method: bytes | str, url: bytes | str, *, extensions: dict[str, Any], **more: Any
    ) -> AsyncIterator[httpcore.Response]:
        """A request and its response, as :meth:`httpcore.AsyncConnectionPool.stream`. Raises
        :class:`httpcore.PoolTimeout` if no place becomes free within ``extensions["timeout"]["pool"]`` seconds."""
        async with (
            self.lend(httpcore.URL(url).origin, extensions["timeout"]["pool"]) as (connection, _),
            connection.stream(method, url, extensions=extensions, **more) as response,
        ):
            yield response

    @asynccontextmanager
    async def lend(
        self, origin: httpcore.Origin, seconds: float
    ) -> AsyncIterator[tuple[httpcore.AsyncHTTP11Connection, bool]]:
        """A connection that is nobody else's, and whether it was kept. What is not idle at the end is closed."""
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            raise httpcore.PoolTimeout from None
        try:
            connection, kept = await self._taken(origin)
            self._lent.add(connection)
            try:
                yield connection, kept
            finally:
                self._lent.discard(connection)
                if connection.is_idle() and not self._closed:
                    self._idle.append(connection)
                else:
                    await connection.aclose()
        finally:
            self._places.release()

    async def aclose(self) -> None:
        """Close them all, also those that are in use."""
        self._closed = True
        for connection in (*self._idle, *self._lent):
            await connection.aclose()
        self._idle.clear()

    async def _taken(self, origin: httpcore.Origin) -> tuple[httpcore.AsyncHTTP11Connection, bool]:
        while self._idle:
            kept = self._idle.pop()
            if kept.can_handle_request(origin) and kept.is_available() and not kept.has_expired():
                return kept, True
            await kept.aclose()
        stream = await self._connect(origin)
        return httpcore.AsyncHTTP11Connection(origin, stream, keepalive_expiry=self._kept), False
