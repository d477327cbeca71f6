"""The network as httpcore sees it: our own way of dialling, our own TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from mailpoller.wire.dial import Way, adopt, dial
from mailpoller.wire.http.connections import Connections
from mailpoller.wire.http.framing import Told
from mailpoller.wire.tls import TlsPolicy, secure

_BUFFERED = 128 << 10
"""Octets that wait to be read at most; beyond that the peer is made to wait."""

_LONGEST_HEADER = 128 << 10
"""Octets of a response's header, and of all interim responses before it."""


class Backend(httpcore.AsyncNetworkBackend):
    """Connects by :func:`~mailpoller.wire.dial.dial`, or by the way round if there is one, such as a
    proxy."""

    def __init__(self, policy: TlsPolicy, proxy: Way | None, seconds: float) -> None:
        self._policy = policy
        self._proxy = proxy
        self._seconds = seconds

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises :class:`~mailpoller.core.errors.TransientError`, which httpcore passes on."""
        sock = await dial(host, port, seconds=timeout or self._seconds, proxy=self._proxy)
        protocol = _Wire()
        await adopt(protocol, sock)
        return _Stream(protocol, self._policy, self._seconds)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.UnsupportedProtocol("no local sockets here")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def open_pool(
    policy: TlsPolicy, proxy: Way | None, seconds: float, *, connections: int, kept: float
) -> Connections:
    """At most so many connections, each made by us within ``seconds``, and kept so many seconds while it is idle.

    Raises :class:`~mailpoller.core.errors.ConfigError` for a CA file, or a certificate, of no use.
    """
    await asyncio.to_thread(policy.context)  # 40 ms the first time
    backend = Backend(policy, proxy, seconds)

    async def connect(origin: httpcore.Origin) -> httpcore.AsyncNetworkStream:
        host = origin.host.decode("ascii")
        stream = await backend.connect_tcp(host, origin.port, seconds)
        if origin.scheme != b"https":
            return stream
        # Our own context is used; httpcore would write its ALPN names into it.
        return await stream.start_tls(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), host, seconds)

    return Connections(connect, most=connections, kept=kept)


class _Wire(asyncio.Protocol):
    """What has come and was not read yet, and whether more may be sent."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.buffer = bytearray()
        self.ended = False
        self.reason = ""
        self.changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) > _BUFFERED and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        self.changed.set()

    def eof_received(self) -> None:
        self.ended = True
        self.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.reason = "" if exc is None else getattr(exc, "strerror", None) or type(exc).__name__
        self.changed.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def drained(self) -> None:
        await self._writable.wait()

    def take(self, most: int) -> bytes:
        taken = bytes(self.buffer[:most])
        del self.buffer[:most]
        if self._paused and len(self.buffer) < _BUFFERED // 2:
            self._paused = False
            if not self.ended:
                self.transport.resume_reading()
        return taken


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, wire: _Wire, policy: TlsPolicy, seconds: float) -> None:
        self._wire = wire
        self._policy = policy
        self._seconds = seconds
        self.told = Told()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        wire, told = self._wire, self.told
        now = asyncio.get_running_loop().time()
        if told.since and not told.answered and timeout is not None:
            timeout = max(0.0, told.since + timeout - now)  # a header that has begun comes to its end
        try:
            async with asyncio.timeout(timeout):
                await asyncio.sleep(0)  # whatever is there already: others have their turn
                while not wire.buffer and not wire.ended:
                    wire.changed.clear()
                    await wire.changed.wait()
        except TimeoutError:
            raise httpcore.ReadTimeout from None
        if not wire.buffer and wire.reason:
            raise httpcore.ReadError(wire.reason)
        taken = wire.take(max_bytes)
        told.octets += len(taken)
        if not told.answered:
            told.head += len(taken)
            told.since = told.since or asyncio.get_running_loop().time()
            if told.head > _LONGEST_HEADER + max_bytes:
                raise httpcore.RemoteProtocolError("its header has no end")
        return taken

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        wire = self._wire
        self.told.asked()
        wire.transport.write(buffer)
        try:
            async with asyncio.timeout(timeout):
                await wire.drained()
        except TimeoutError:
            raise httpcore.WriteTimeout from None
        if wire.ended and wire.transport.is_closing():
            raise httpcore.WriteError(wire.reason or "the service closed it")

    async def aclose(self) -> None:
        self._wire.transport.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """TLS by our policy; the context that httpcore brings along is left alone.

        Raises :class:`~mailpoller.core.errors.TransientError` before anything was sent, also for a pin that does not
        match.
        """
        wire = self._wire
        wire.transport = await secure(
            wire.transport, wire, self._policy, server_hostname or "", timeout or self._seconds
        )
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # a kept connection on which something comes unasked is over
            return bool(self._wire.buffer) or self._wire.ended
        return self._wire.transport.get_extra_info(info)
