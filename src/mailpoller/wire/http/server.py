"""HTTP as a small server speaks it, to programs on this machine that ask for figures: one request a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import h11

from mailpoller.core.record import record

REQUEST_DEADLINE = timedelta(seconds=5)
"""For whoever has connected, to say what he wants."""
ANSWER_DEADLINE = timedelta(seconds=30)
"""For the whole answer, until it is taken."""
LONGEST_HEAD = 16 << 10
"""Octets of a request line with its header fields."""
CONNECTIONS = 16
"""Open at once; who comes then is turned away."""
_CHUNK = 4096


@record
class Page:
    """An answer: its status, and the body, a piece at a time."""

    status: int
    type: str
    body: AsyncIterator[bytes]


Pages = Callable[[str], Awaitable[Page | None]]
"""What is at a path; None if nothing is."""


async def plain(text: str) -> AsyncIterator[bytes]:
    """The body of a short text."""
    yield text.encode()


class HttpService:
    """Answers GET and HEAD with ``pages``. A request that is anything else, too long or too slow costs nobody but who
    sent it. Its body is not read."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._open: set[asyncio.StreamWriter] = set()

    def close(self) -> None:
        """Cut off whoever is still connected."""
        for writer in self._open:
            writer.transport.abort()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: for :func:`asyncio.start_server`. Never raises but to be cancelled."""
        if len(self._open) >= CONNECTIONS:
            writer.close()
            return
        self._open.add(writer)
        try:
            await self._served(reader, writer)
        except (OSError, TimeoutError, h11.ProtocolError):
            writer.transport.abort()  # else what nobody takes is kept
        finally:
            self._open.discard(writer)
            writer.close()

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodiless = False
        protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
        try:
            async with asyncio.timeout(REQUEST_DEADLINE.total_seconds()):
                request = await _request(protocol, reader)
        except h11.RemoteProtocolError as error:
            page: Page | None = Page(error.error_status_hint, "text/plain", plain("not a request\n"))
        else:
            if request is None:
                return
            page, bodiless = await self._page(request), request.method == b"HEAD"
        async with asyncio.timeout(ANSWER_DEADLINE.total_seconds()):
            await _answer(protocol, writer, page or Page(404, "text/plain", plain("not found\n")), bodiless=bodiless)
            with suppress(OSError):
                writer.write_eof()

    async def _page(self, request: h11.Request) -> Page | None:
        if request.method not in (b"GET", b"HEAD"):
            return Page(405, "text/plain", plain("GET and HEAD only\n"))
        path = request.target.partition(b"?")[0].decode("latin-1")
        async with asyncio.timeout(ANSWER_DEADLINE.total_seconds()):
            return await self._pages(path)


async def _request(protocol: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """None if the other side closes without one. Raises :class:`h11.RemoteProtocolError`."""
    while (event := protocol.next_event()) is h11.NEED_DATA:
        protocol.receive_data(await reader.read(_CHUNK))
    return event if isinstance(event, h11.Request) else None


async def _answer(protocol: h11.Connection, writer: asyncio.StreamWriter, page: Page, *, bodiless: bool) -> None:
    fields = [
        ("Content-Type", page.type), ("Connection", "close"), ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"), *([("Allow", "GET, HEAD")] if page.status == 405 else []),
    ]  # fmt: skip
    if protocol.our_state is h11.ERROR:
        return
    writer.write(protocol.send(h11.Response(status_code=page.status, headers=fields)) or b"")
    async for piece in page.body:
        if piece and not bodiless:
            writer.write(protocol.send(h11.Data(data=piece)) or b"")
            await writer.drain()
    writer.write(protocol.send(h11.EndOfMessage()) or b"")
    await writer.drain()
