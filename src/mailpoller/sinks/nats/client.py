"""A connection to a NATS server, and its errors in words.

The library's own way of connecting again is not used: it would go on in the background with what was not answered,
where it is the engine that tries again. It is asked for one server at a time, by an address that we looked up, for it
would look names up in threads that others need.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.errors import AuthorizationError, ConnectionClosedError, Error, NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext
from nats.js.api import StreamInfo
from nats.js.errors import APIError, NotFoundError

from mailpoller.core.errors import TransientError
from mailpoller.sinks.nats.config import NatsQueueSettings
from mailpoller.sinks.nats.credentials import login_of
from mailpoller.wire.dial import left_until
from mailpoller.wire.names import resolve

_T = TypeVar("_T")

PENDING = 8 << 20
"""Octets that wait to be written; a message may be more."""
_PING = 30
"""Seconds between signs of life; two that are missing end the connection."""
_CLOSING = 1.0
"""Seconds that a goodbye may take; a server that does not answer is not waited for."""


class NoStream(TransientError):
    """The server has no stream of that name."""


class Connection:
    """What is connected: kept until it breaks or is closed. ``greet`` is called with each new one before anything is
    published over it."""

    def __init__(self, config: NatsQueueSettings, greet: Callable[[JetStreamContext], Awaitable[None]]) -> None:
        self._config = config
        self._greet = greet
        self._client: Client | None = None
        self._lost: asyncio.Future[None] | None = None
        self._connecting = asyncio.Lock()
        self._seconds = config.timeout.total_seconds()
        self.place = place_of(config)

    async def stream(self) -> tuple[JetStreamContext, StreamInfo]:
        """The way to the server, and what the stream is now. A connection that was lost since is no trouble yet: it is
        made anew once.

        Raises :class:`TransientError`; :class:`NoStream`.
        """
        for attempt in (1, 2):
            fresh = self._client is None
            context = await self.context()
            try:
                return context, await self.ask(context.stream_info(self._config.stream))
            except TransientError:
                if fresh or attempt == 2 or self.alive or self._client is None:
                    raise
        raise AssertionError("the second attempt returns or raises")

    async def context(self) -> JetStreamContext:
        """The way to the server, connected. Raises :class:`TransientError`."""
        async with self._connecting:
            if not self.alive:
                await self.close()
                self._client = await self._connect()
            assert self._client is not None
            return self._client.jetstream(timeout=self._seconds)

    @property
    def alive(self) -> bool:
        """Nobody has said yet that it is lost."""
        return self._client is not None and self._client.is_connected

    @property
    def server(self) -> str:
        """What the server calls itself."""
        return str(_told(self._client).get("server_name") or self.place)

    @property
    def max_payload(self) -> int:
        """Octets of headers and payload that it takes in one message. It ends the connection of who sends more, and
        the library counts the payload alone."""
        return self._client.max_payload if self._client is not None else 0

    async def ask(self, work: Coroutine[Any, Any, _T], more: float = 0) -> _T:
        """What ``work`` asks, within the block's ``timeout`` and ``more`` seconds.

        Raises :class:`TransientError` with the reason. A connection that does not answer in time is given up.
        """
        seconds = self._seconds + more
        try:
            async with asyncio.timeout(seconds):
                return await self.answered(work)
        except (Error, OSError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                await self.close()
            kind = NoStream if isinstance(error, NotFoundError) else TransientError
            raise kind(f"{self.place}: {words(error, self._config, seconds)}") from None

    async def answered(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What ``work`` returns, unless the connection is lost before: the library leaves a question that was under
        way unanswered then. Raises :class:`nats.errors.ConnectionClosedError`."""
        lost, task = self._lost, asyncio.ensure_future(work)
        try:
            both: list[asyncio.Future[Any]] = [task] if lost is None else [task, lost]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
        if task.done():
            return task.result()
        await asyncio.wait([task])
        raise ConnectionClosedError

    async def close(self) -> None:
        """Close it. Harmless when repeated."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Error, OSError, TimeoutError):
                async with asyncio.timeout(_CLOSING):
                    await client.close()

    # --- connecting ----------------------------------------------------------------------------------------------
    async def _connect(self) -> Client:
        hosts = self._config.hosts
        last: TransientError | None = None
        for host in random.sample(hosts, len(hosts)):
            try:
                return await self._connect_to(host)
            except TransientError as error:
                last = error
        assert last is not None
        raise last

    async def _connect_to(self, host: str) -> Client:
        config = self._config
        place = f"nats {host}:{config.port}"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        family_address = (await resolve(host, config.port, seconds=self._seconds))[0][2]
        address = str(family_address[0])
        address = f"[{address}]" if ":" in address else address
        client, lost = Client(), loop.create_future()

        async def ended() -> None:
            if not lost.done():
                lost.set_result(None)

        options = {**self._options(client, host), "disconnected_cb": ended, "closed_cb": ended}
        try:
            async with asyncio.timeout(left_until(deadline)):
                await client.connect(f"nats://{address}:{config.port}", **options)
                self._require_tls(client)
                await self._greet(client.jetstream(timeout=self._seconds))
        except (Error, OSError, TimeoutError) as error:
            await _drop(client)
            raise TransientError(f"{place}: {words(error, config, self._seconds)}") from None
        except BaseException:
            await _drop(client)
            raise
        self._lost = lost
        return client

    def _options(self, client: Client, host: str) -> dict[str, Any]:
        config = self._config

        def guarded(reveal: Callable[[], str]) -> Callable[[], str]:
            """Asked when it is about to be sent."""

            def told() -> str:
                self._require_tls(client)
                return reveal()

            return told

        found: dict[str, Any] = {
            "name": "mailpoller",
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0,
            "connect_timeout": self._seconds,
            "pending_size": PENDING,
            "ping_interval": _PING,
            "no_echo": True,
            "error_cb": _unheard,  # whoever asked is told
        }
        if config.tls == "tls":
            found |= {"tls": config.policy.context(), "tls_hostname": host}
            found["tls_handshake_first"] = config.handshake_first
        if config.token is not None:
            found["token"] = guarded(config.token.reveal)
        found |= login_of(config.credentials, config.nkey, lambda: self._require_tls(client))
        if config.password is not None and config.username is not None:
            username = config.username
            found |= {"user": guarded(lambda: username), "password": guarded(config.password.reveal)}
        return found

    def _require_tls(self, client: Client) -> None:
        """Raise if the line is in clear and must not be: the library begins TLS only if the server's greeting, which
        anybody in between can change, asks for it."""
        secure = self._config.tls == "none" or self._config.handshake_first or _told(client).get("tls_required")
        if not secure:
            raise _Clear


class _Clear(Error):
    def __str__(self) -> str:
        return "it offers no TLS: if that is right, say tls: none"


def _told(client: Client | None) -> dict[str, Any]:
    """What the server said of itself when it was connected to; the library has no word for all of it."""
    return getattr(client, "_server_info", None) or {}


async def _unheard(error: Exception) -> None:
    pass


async def _drop(client: Client) -> None:
    with suppress(Error, OSError, TimeoutError):
        async with asyncio.timeout(_CLOSING):
            await client.close()


def words(error: Exception, config: NatsQueueSettings, seconds: float) -> str:
    """What went wrong, for an operator."""
    if isinstance(error, NotFoundError):
        return f"there is no stream {config.stream}"
    if isinstance(error, NatsTimeout | TimeoutError):
        return f"no answer within {seconds:.0f} s"
    if isinstance(error, NoRespondersError):
        return "it has no JetStream for this account, or the rights on $JS.API are missing"
    if isinstance(error, AuthorizationError):
        return "it refuses us"
    if isinstance(error, ConnectionClosedError):
        return "the connection was lost"
    if isinstance(error, APIError):
        return " ".join(str(error.description or f"error {error.err_code}").split())[:300]
    said = " ".join(str(error).removeprefix("nats:").split())[:300] or type(error).__name__
    if "authorization violation" in said.lower() or "authentication" in said.lower():
        return f"it refuses us: {said}"
    return said


def place_of(config: NatsQueueSettings) -> str:
    """Where the server is, for errors and logs."""
    return f"nats {config.host}:{config.port}"
