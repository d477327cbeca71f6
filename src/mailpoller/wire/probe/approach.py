"""The first steps of every probe: towards a server, or a web service."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from urllib.parse import urlsplit

from mailpoller.core.errors import MailpollerError
from mailpoller.core.ports import Stage
from mailpoller.wire.dial import adopt, connect
from mailpoller.wire.names import Address, resolve, written
from mailpoller.wire.probe.causes import distrust, handshake
from mailpoller.wire.probe.steps import Step, stages
from mailpoller.wire.proxy import Proxy
from mailpoller.wire.tls import TlsPolicy, agreed, secure


class Approach:
    """The first steps towards a server: its name, and a connection, by way of the proxy if there is one.

    ``named`` is what the configuration calls the server; ``usual`` says, for who cannot connect, where such servers
    usually are.
    """

    def __init__(
        self,
        host: str,
        port: int,
        proxy: Proxy | None,
        timeout: timedelta,
        *,
        named: str = "the spelling of host",
        usual: str = "",
    ) -> None:
        self._host = host
        self._port = port
        self._seconds = timeout.total_seconds()
        self._proxy = proxy
        self._named = named
        self._usual = usual
        self._addresses: list[Address] = []

    def steps(self, take: Callable[[socket.socket], Awaitable[None]]) -> list[Step]:
        """``dns`` and ``tcp``. ``take`` gets the connected socket, and closes it."""

        async def tcp() -> str:
            await take(await self._connect())
            return f"port {self._port}" + (f" by way of the {self._proxy.place}" if self._proxy is not None else "")

        return [("dns", self._resolve), ("tcp", tcp)]

    async def _resolve(self) -> str:
        if self._proxy is not None:
            return "asked at the proxy"
        self._addresses = await resolve(self._host, self._port, seconds=self._seconds)
        return written(self._addresses)

    async def _connect(self) -> socket.socket:
        if self._proxy is not None:
            return await self._proxy.connect(self._host, self._port, seconds=self._seconds)
        return await connect(self._addresses, f"{self._host} port {self._port}", seconds=self._seconds)

    def advice(self, stage: str, error: MailpollerError) -> str:
        """What a sysadmin can do about these steps, and about TLS in general; empty for all others."""
        host, port, said = self._host, self._port, str(error)
        match stage:
            case "dns":
                return f"Check {self._named}, and whether this machine resolves names: getent hosts {host}"
            case "tcp" if self._proxy is not None:
                return "Check the proxy's host, port and login, and whether it lets us through to this port."
            case "tcp":
                return f"Check host, port and firewall: nc -vz {host} {port}. {self._usual}".rstrip()
            case "tls" if "not trusted" in said:
                return distrust(said, f"{host}:{port}")
            case "tls" if "pinned" in said:
                return "If the certificate was renewed on purpose, put the new fingerprint into pin."
            case "tls":
                return handshake(said, f"{host}:{port}")
            case _:
                return ""


class WebApproach:
    """The first steps towards a web service, TLS among them, on a connection of its own: nothing is said on it, and
    it is closed.

    ``named`` and ``usual`` as :class:`Approach` has them.
    """

    def __init__(
        self,
        url: str,
        policy: TlsPolicy,
        proxy: Proxy | None,
        timeout: timedelta,
        *,
        named: str,
        usual: str = "Where only a proxy leads out, name it with proxy.",
    ) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        port = parts.port or (443 if self._secure else 80)
        self._approach = Approach(self._host, port, proxy, timeout, named=named, usual=usual)
        self._policy = policy
        self._seconds = timeout.total_seconds()
        self._protocol = asyncio.Protocol()
        self._transport: asyncio.Transport | None = None

    def probe(
        self,
        steps: Sequence[Step],
        advice: Callable[[str, MailpollerError], str],
        close: Callable[[], Awaitable[None]],
    ) -> AsyncIterator[Stage]:
        """See :func:`stages`: these first steps, then ``steps``, for which there is ``advice`` unless the error has
        its own."""

        def remedy(stage: str, error: MailpollerError) -> str:
            return self.advice(stage, error) or getattr(error, "advice", "") or advice(stage, error)

        return stages([*self.steps(), *steps], remedy, self.close, close)

    def steps(self) -> list[Step]:
        """``dns``, ``tcp``, and ``tls`` if the URL is one of https."""
        return [*self._approach.steps(self._take), *([("tls", self._tls)] if self._secure else [])]

    def advice(self, stage: str, error: MailpollerError) -> str:
        """As :meth:`Approach.advice`."""
        return self._approach.advice(stage, error)

    async def close(self) -> None:
        """Cut the connection, if there is one."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    async def _take(self, sock: socket.socket) -> None:
        self._transport = await adopt(self._protocol, sock)
        if not self._secure:
            await self.close()

    async def _tls(self) -> str:
        assert self._transport is not None
        self._transport = await secure(self._transport, self._protocol, self._policy, self._host, self._seconds)
        told = agreed(self._transport)
        await self.close()
        return told
