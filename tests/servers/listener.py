"""What every asyncio server of the tests does alike: it listens on a free port, and no conversation outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from abc import abstractmethod
from typing import Self


class Listener:
    """An async context manager; listens on :attr:`port` of 127.0.0.1. Each connection is a conversation in a task of
    its own."""

    port = 0
    limit = 1 << 16
    """Octets of a line."""
    tls: ssl.SSLContext | None = None

    @abstractmethod
    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, which is closed when this returns. The other side may hang up at any time."""

    def listening(self) -> socket.socket:
        """The socket to listen on."""
        return socket.create_server(("127.0.0.1", 0))

    async def __aenter__(self) -> Self:
        self._conversations: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server = await asyncio.start_server(self._serve, sock=self.listening(), limit=self.limit, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        left = dict(self._conversations)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for writer in left.values():
            cut(writer.transport)
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations[task] = writer
        try:
            # Only the end cancels, and asyncio would print a traceback of it.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self.converse(reader, writer)
        finally:
            del self._conversations[task]
            writer.close()


def cut(transport: asyncio.WriteTransport) -> None:
    """Abort a connection, also one over TLS that was closed twice: Python 3.11.2, Debian 12's, cannot do that by
    itself."""
    with contextlib.suppress(AttributeError):
        transport.abort()
