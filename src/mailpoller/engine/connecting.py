"""The beginning of a session and its end: neither keeps a service that stops, and new mail, waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

from mailpoller.core.errors import MailpollerError, Sacrificed, TransientError
from mailpoller.core.ports import Clock, Session, Source
from mailpoller.engine.batcher import Stop
from mailpoller.engine.crowd import among

CONNECT_DEADLINE = timedelta(minutes=5)
"""For the whole of connecting; a source keeps finer deadlines of its own."""
AT_ONCE_S = 0.1
"""The pause after a session that was sacrificed, and what its end may take."""
FAREWELL_S = 0.7
"""So long a server may take to say goodbye when the service stops: what it does not hear is done again."""
SACRIFICES, SPARING = 40, timedelta(minutes=10)
"""So many sessions may be sacrificed within so long before the server is spared."""


class Stopped(Exception):
    """The service stops while nothing is in hand."""


class Connecting:
    """Opens and closes one mailbox's sessions.

    ``places``: those who begin at the same time. ``require``: raises :class:`ConfigError` while something is missing
    here without which a connection is of no use, for servers count those who come and do not log in; reads files.
    """

    def __init__(
        self, places: asyncio.Semaphore, stop: Stop, clock: Clock, require: Callable[[], None] | None = None
    ) -> None:
        self._places = places
        self._stop = stop
        self._clock = clock
        self._require = require
        self._dialling: asyncio.Timeout | None = None
        self._sacrifices: list[float] = []

    async def connect(self, source: Source) -> Session:
        """A session. Raises :class:`Stopped` when the service stops meanwhile, and what the source raises."""
        async with among(self._places):
            try:
                async with asyncio.timeout(CONNECT_DEADLINE.total_seconds()) as self._dialling:
                    if self._stop.is_set():
                        raise Stopped
                    if self._require is not None:
                        await asyncio.to_thread(self._require)
                    return await source.connect()
            except TimeoutError:
                if self._stop.is_set():
                    raise Stopped from None
                raise TransientError("connecting took too long") from None
            finally:
                self._dialling = None

    def interrupt(self) -> None:
        """End the connecting that is under way, if the service stops: nothing is in hand yet."""
        if self._dialling is not None and self._stop.is_set():
            # One that already fired cannot be moved again.
            with contextlib.suppress(RuntimeError):
                self._dialling.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def closing(self, session: Session) -> AsyncIterator[None]:
        """Close the session, however the block ends. Where it ends well, a close that fails is trouble like any other:
        dispositions may count only then. Raises :class:`Stopped` if the service stops and the server does not say
        goodbye."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(MailpollerError, TimeoutError):
                async with asyncio.timeout(AT_ONCE_S if isinstance(error, Sacrificed) else None):
                    await session.close()
            raise
        try:
            async with asyncio.timeout(FAREWELL_S if self._stop.is_set() else None):
                await session.close()
        except TimeoutError:
            raise Stopped from None

    def sacrificed(self) -> bool:
        """A session was. True if the server is to be spared, because there are very many."""
        now = self._clock.monotonic()
        self._sacrifices = [at for at in self._sacrifices if now - at < SPARING.total_seconds()] + [now]
        return len(self._sacrifices) > SACRIFICES
