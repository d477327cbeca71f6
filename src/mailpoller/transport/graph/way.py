"""The way to Graph, step by step, as a live probe walks it: name, connection, TLS, token."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mailpoller.core.errors import ConfigError, MailpollerError
from mailpoller.core.ports import Stage
from mailpoller.transport.dial import resolve
from mailpoller.transport.http import Bearer
from mailpoller.transport.proxy import Proxy
from mailpoller.transport.tls import TlsPolicy

if TYPE_CHECKING:
    import httpcore

Step = tuple[str, Callable[[], Awaitable[str]]]
"""A stage's name, and what returns what there is to say about it."""


class Way:
    """A connection of its own for the first steps; nothing is sent on it but a TLS handshake."""

    def __init__(
        self, url: str, policy: TlsPolicy, proxy: Proxy | None, timeout: timedelta, tokens: Bearer
    ) -> None:  # fmt: skip
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._policy = policy
        self._proxy = proxy
        self._seconds = timeout.total_seconds()
        self._tokens = tokens
        self._stream: httpcore.AsyncNetworkStream | None = None

    def steps(self) -> list[Step]:
        """In their order; a proxy resolves names itself."""
        steps: list[Step] = [] if self._proxy is not None else [("dns", self._dns)]
        steps.append(("tcp", self._tcp))
        if self._secure:
            steps.append(("tls", self._tls))
        return [*steps, ("login", self._login)]

    async def close(self) -> None:
        """Cut what is open."""
        if self._stream is not None:
            await self._stream.aclose()
            self._stream = None

    async def _dns(self) -> str:
        found = await resolve(self._host, self._port, seconds=self._seconds)
        return ", ".join(dict.fromkeys(str(address[0]) for _, _, address in found))

    async def _tcp(self) -> str:
        from mailpoller.transport.wire import Backend

        backend = Backend(self._policy, self._proxy, self._seconds)
        self._stream = await backend.connect_tcp(self._host, self._port, self._seconds)
        return f"port {self._port}" + (f" by way of the {self._proxy.place}" if self._proxy is not None else "")

    async def _tls(self) -> str:
        assert self._stream is not None
        unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._stream = await self._stream.start_tls(unused, self._host, self._seconds)
        cipher = self._stream.get_extra_info("cipher")
        return f"{cipher[1]} {cipher[0]}" if cipher else ""

    async def _login(self) -> str:
        await self.close()
        await self._tokens.token()
        return "there is a token"

    def advice(self, stage: str, error: MailpollerError) -> str:
        """What a sysadmin can do about a step of the way; empty for other stages, and where the error says it."""
        if isinstance(error, ConfigError):
            return "Correct the configuration; the file or variable must be readable by the service's user."
        match stage:
            case "dns":
                return f"Check cloud or url, and whether this machine resolves names: getent hosts {self._host}"
            case "tcp":
                return f"Check firewall and proxy: nc -vz {self._host} {self._port}"
            case "tls":
                return (
                    "If something on the way opens TLS (a proxy of your own), name its CA with ca_file: "
                    f"openssl s_client -connect {self._host}:{self._port}"
                )
            case "login":
                advice = getattr(error, "advice", "")
                return advice or "Check tenant, client_id, the secret and its expiry: Entra, App registrations."
            case _:
                return ""


async def stages(
    steps: Sequence[Step],
    advice: Callable[[str, MailpollerError], str],
    ends: Sequence[Callable[[], Awaitable[None]]],
) -> AsyncIterator[Stage]:
    """Take the steps, each with its time, up to the first that fails; do all of ``ends`` in the end."""
    try:
        for name, step in steps:
            began = time.monotonic()
            try:
                detail = await step()
            except MailpollerError as error:
                elapsed = timedelta(seconds=time.monotonic() - began)
                yield Stage(name, False, elapsed, str(error), advice(name, error))
                return
            yield Stage(name, True, timedelta(seconds=time.monotonic() - began), detail)
    finally:
        for end in ends:
            await end()
