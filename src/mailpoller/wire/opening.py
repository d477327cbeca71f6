"""Opening a session: whatever fails meanwhile was an attempt, and leaves nothing open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.wire.dial import adopt, dial
from mailpoller.wire.server import KeptServer


@contextmanager
def attempt() -> Iterator[None]:
    """For the first words of a session. There was none before, so that what is lost is an attempt, and reconnecting
    is no remedy of its own: :class:`SessionLost` becomes a :class:`TransientError`."""
    try:
        yield
    except SessionLost as error:
        raise TransientError(str(error), retry_after=error.retry_after) from error


@asynccontextmanager
async def connected(
    protocol: asyncio.Protocol, server: KeptServer, lose: Callable[[str], None]
) -> AsyncIterator[float]:
    """For all that opens a session on ``protocol``, once it is connected to ``server``: if that fails, the connection
    is given up by ``lose``, which is told why.

    Yields the instant, on the loop's clock, until which TLS must be up and the greeting read. Raises
    :class:`TransientError`.
    """
    seconds = server.connect_timeout.total_seconds()
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        with attempt():
            await adopt(protocol, await dial(server.host, server.effective_port, seconds=seconds, proxy=server.proxy))
            yield deadline
    except BaseException:
        lose("connecting failed")
        raise
