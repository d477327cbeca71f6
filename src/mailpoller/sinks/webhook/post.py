"""One POST, and the beginning of its answer: bounded in octets and time, on httpcore.

:class:`mailpoller.wire.http.HttpClient` is for services that are asked for something. Here any answer is one, its body
does not matter, and what is sent is large: so it goes in pieces, each of which may take its time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING

from mailpoller.core.record import record
from mailpoller.wire.dial import Way
from mailpoller.wire.http import HttpCut, HttpError, faults
from mailpoller.wire.http.framing import Framing
from mailpoller.wire.retry import briefly
from mailpoller.wire.tls import TlsPolicy

if TYPE_CHECKING:
    import httpcore

    from mailpoller.wire.http.connections import Connections

BEGINNING = 4096
"""Octets of an answer's body that are kept, for the reason in it. No more than these are waited for."""
_PIECE = 64 << 10
"""Octets that are sent in one go. Each of these may take the whole time-out, and together one second each."""
_KEPT = 30.0
"""Seconds that an idle connection is kept."""


class _Stale(HttpCut):
    """An idle connection broke before anything of an answer came: the service was just closing it."""


@record
class Answer:
    """What a service said. Names of header fields are in lower case; ``beginning``: of the body."""

    status: int
    headers: Mapping[str, str]
    beginning: bytes


class Post:
    """Sends to one service. ``host`` is whom to name in errors, ``way`` what leads there."""

    def __init__(
        self, host: str, port: int, secure: bool, *, policy: TlsPolicy, way: Way, timeout: timedelta, connections: int
    ) -> None:
        self._host = host
        self._port = port
        self._secure = secure
        self._policy = policy
        self._way = way
        self._seconds = timeout.total_seconds()
        self._connections = connections
        self._pool: Connections | None = None

    async def reach(self) -> None:
        """Connect, with TLS where it is wanted, and say nothing. Raises :class:`TransientError`, or
        :class:`ConfigError` for certificates of no use."""
        from mailpoller.wire.http.network import Backend

        context = await asyncio.to_thread(self._policy.context)  # 40 ms the first time
        stream = await Backend(self._policy, self._way, self._seconds).connect_tcp(self._host, self._port)
        try:
            if self._secure:  # by our own context; httpcore's interface wants to see one
                stream = await stream.start_tls(context, self._host, self._seconds)
        finally:
            await stream.aclose()

    async def send(self, url: str, fields: Mapping[str, str], body: bytes) -> Answer:
        """POST, and return the answer, whatever its status is.

        A 2xx has come whole, or as far as :data:`BEGINNING`, after the whole body was sent; of all others what came is
        enough. Raises :class:`HttpError` if there is no such answer, and :class:`TransientError` if nobody could be
        asked. What an idle connection did not take any more goes over a new one.
        """
        limit = 2 * self._seconds + len(body) / _PIECE
        try:
            async with asyncio.timeout(limit) as whole:
                return await briefly(lambda: self._once(url, fields, body), on=_Stale, tries=2)
        except TimeoutError:
            if not whole.expired():
                raise
            raise HttpError(f"{self._host}: no complete answer within {limit:.3g} s") from None

    async def close(self) -> None:
        """Close every connection. A later request opens new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

    async def _once(self, url: str, fields: Mapping[str, str], body: bytes) -> Answer:
        import httpcore

        pool = await self._opened()
        answered = kept = False
        sent = _Body(body)
        header = {"content-length": str(len(body)), **fields}
        try:
            with faults(self._host, self._seconds):
                async with (
                    pool.lend(httpcore.URL(url).origin, self._seconds) as (connection, kept),
                    connection.stream(
                        "POST",
                        url,
                        headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in header.items()],
                        content=sent.pieces(),
                        extensions={"timeout": {"read": self._seconds, "write": self._seconds}},
                    ) as response,
                ):
                    answered = True
                    framing = Framing(response, self._host)
                    taken = 200 <= response.status < 300
                    if taken and not sent.whole:
                        raise HttpError(f"{self._host}: HTTP {response.status} before it could have all of the request")
                    beginning = await _beginning(response, framing, taken)
                    return Answer(response.status, _headers(response), beginning)
        except HttpCut as error:
            if answered or not kept:
                raise
            raise _Stale(str(error)) from None

    async def _opened(self) -> Connections:
        if self._pool is None:
            from mailpoller.wire.http.network import open_pool

            made = await open_pool(self._policy, self._way, self._seconds, connections=self._connections, kept=_KEPT)
            self._pool = self._pool or made  # somebody else may have been faster
        return self._pool


class _Body:
    """What is sent, in pieces. ``whole``: the last one has gone out."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.whole = False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        for start in range(0, len(self._octets), _PIECE):
            yield self._octets[start : start + _PIECE]
        self.whole = True


async def _beginning(response: httpcore.Response, framing: Framing, taken: bool) -> bytes:
    """The beginning of an answer's body. Raises whatever httpcore does where it breaks, if it is to count."""
    import httpcore

    found = bytearray()
    try:
        async with aclosing(_stream(response)) as chunks:
            async for chunk in chunks:
                if framing.came(len(chunk)):
                    await asyncio.sleep(0)
                found += chunk
                if len(found) >= BEGINNING:
                    break
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, HttpError):
        if taken:
            raise
    return bytes(found[:BEGINNING])


async def _stream(response: httpcore.Response) -> AsyncGenerator[bytes, None]:
    async for chunk in response.aiter_stream():
        yield chunk


def _headers(response: httpcore.Response) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in response.headers:
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return found
