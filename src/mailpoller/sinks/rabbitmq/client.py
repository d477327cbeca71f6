"""A connection to RabbitMQ, and its errors in words.

Of aio-pika this is what lies below, aiormq: what aio-pika puts on top is for consumers and for connecting again in the
background, and it makes the connections itself, where ours look names up in threads of their own and trust whom the
block says.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from aiormq.abc import AbstractChannel
from aiormq.connection import Connection as Amqp
from aiormq.connection import TransportFactory
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelClosed,
    ChannelInvalidStateError,
    DeliveryError,
    ProbableAuthenticationError,
    PublishError,
)
from yarl import URL

from mailpoller.core.errors import TransientError
from mailpoller.sinks.rabbitmq.config import RabbitmqQueueSettings
from mailpoller.wire.dial import dial
from mailpoller.wire.tls import describe

_T = TypeVar("_T")

TROUBLES = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError, RuntimeError)
"""What the library raises; a closed connection or channel is a RuntimeError."""
_CLOSING = 1.0
"""Seconds that a goodbye may take; a server that does not answer is not waited for."""
_HEARTBEAT = 30
"""Seconds; three that are missing end the connection."""

logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # whoever asked is told; the log is the service's


class _Transport(TransportFactory):
    """Connections as for every other protocol."""

    def __init__(self, host: str, config: RabbitmqQueueSettings) -> None:
        self._host = host
        self._config = config

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        config, seconds = self._config, self._config.timeout.total_seconds()
        connected = await dial(self._host, config.effective_port, seconds=seconds)
        try:
            if config.tls == "none":
                return await asyncio.open_connection(sock=connected)
            return await asyncio.open_connection(
                sock=connected, ssl=config.policy.context(), server_hostname=self._host, ssl_handshake_timeout=seconds
            )
        except (OSError, TimeoutError, UnicodeError) as error:
            raise TransientError(describe(error, self._host, seconds)) from None
        except BaseException:
            connected.close()
            raise


async def _itself(channel: AbstractChannel) -> AbstractChannel:
    return channel


class Client:
    """What is connected, and the channel that publishes: both kept until they break. ``greet`` is called with each new
    connection before anything is published over it."""

    def __init__(self, config: RabbitmqQueueSettings, greet: Callable[[], Awaitable[None]]) -> None:
        self._config = config
        self._greet = greet
        self._amqp: Amqp | None = None
        self._channel: AbstractChannel | None = None
        self._entrance = asyncio.Lock()
        self._connecting = asyncio.Lock()
        self.place = place_of(config)
        self.seconds = config.timeout.total_seconds()

    async def publishing(self) -> tuple[AbstractChannel, bool]:
        """The channel to publish with, in confirm mode, and whether it is a new one; that it is well is known of a new
        one alone. Raises :class:`TransientError`."""
        async with self._entrance:
            if self._channel is not None and not self._channel.is_closed and self.connected:
                return self._channel, False
            await self._connect()
            await self._greet()
            self._channel = await self._on_a_channel(_itself, publisher_confirms=True, on_return_raises=True)
            return self._channel, True

    @property
    def connected(self) -> bool:
        """Nobody has said yet that the connection is lost."""
        return self._amqp is not None and self._amqp.is_opened

    async def aside(self, work: Callable[[AbstractChannel], Awaitable[_T]]) -> _T:
        """What ``work`` finds out with a channel of its own, which a refusal closes. Connects if need be.

        Raises :class:`TransientError`, and :class:`ChannelClosed` for a refusal.
        """

        async def then_close(channel: AbstractChannel) -> _T:
            found = await self.ask(work(channel), refusals=True)
            await self.ask(channel.close())
            return found

        return await self._on_a_channel(then_close, publisher_confirms=False)

    async def _on_a_channel(self, work: Callable[[AbstractChannel], Awaitable[_T]], **words: bool) -> _T:
        """With a new channel. A connection that was lost since it was used last is no trouble yet: it is made anew
        once."""
        for attempt in (1, 2):
            known = self.connected
            await self._connect()
            try:
                async with self._whole():
                    assert self._amqp is not None
                    return await work(await self.ask(self._amqp.channel(**words)))
            except TransientError:
                if not known or attempt == 2:
                    raise
        raise AssertionError("the second attempt returns or raises")

    @asynccontextmanager
    async def _whole(self) -> AsyncIterator[None]:
        """For the life of a channel. One that is given up in the middle of being opened or closed leaves the server
        with another idea of it than the library's, and it takes the next one amiss: so the connection ends as well."""
        try:
            yield
        except ChannelClosed:
            raise  # by the server, and whole
        except BaseException:
            await self.close()
            raise

    async def ask(self, asked: Awaitable[_T], more: float = 0, *, refusals: bool = False) -> _T:
        """The answer, within the block's ``timeout`` and ``more`` seconds; a connection that does not answer in time
        is given up. ``refusals``: raise :class:`ChannelClosed` as it is.

        Raises :class:`TransientError` with the reason.
        """
        try:
            async with asyncio.timeout(self.seconds + more):
                return await asked
        except TROUBLES as error:
            if refusals and isinstance(error, ChannelClosed):
                raise
            if isinstance(error, TimeoutError):
                await self.close()
            raise TransientError(f"{self.place}: {words(error, self.seconds + more)}") from None

    async def close(self) -> None:
        """Close it. Harmless when repeated."""
        amqp, self._amqp, self._channel = self._amqp, None, None
        if amqp is not None:
            await _drop(amqp)

    async def _connect(self) -> None:
        async with self._connecting:
            if not self.connected:
                await self.close()
                await self._connect_to_any()

    async def _connect_to_any(self) -> None:
        hosts = self._config.hosts
        last: TransientError | None = None
        for host in random.sample(hosts, len(hosts)):
            amqp = Amqp(self._url(), transport_factory=_Transport(host, self._config))
            try:
                async with asyncio.timeout(self.seconds):
                    await amqp.connect(client_properties={"product": "mailpoller"})
            except TransientError as error:
                last = TransientError(f"{self.place}: {error}")
            except TROUBLES as error:
                last = TransientError(f"{self.place}: {words(error, self.seconds)}")
            else:
                self._amqp = amqp
                return
            finally:
                if self._amqp is not amqp:
                    await _drop(amqp)
        assert last is not None
        raise last

    def _url(self) -> URL:
        """What the library wants to know: who we are, and where to. It is never shown."""
        config = self._config
        query = {"heartbeat": str(_HEARTBEAT), "name": "mailpoller"}
        if config.password is None:
            query["auth"] = "external"
        password = config.password.reveal() if config.password is not None else None
        return URL.build(
            scheme="amqp", host="rabbitmq", port=1, user=config.username, password=password,
            path="/" + config.vhost.replace("/", "%2F"), query=query, encoded=False,
        )  # fmt: skip


async def _drop(amqp: Amqp) -> None:
    with suppress(*TROUBLES):
        async with asyncio.timeout(_CLOSING):
            await amqp.close()


def words(error: BaseException, seconds: float) -> str:
    """What went wrong, for an operator; nothing of what we sent."""
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:.0f} s (it blocks publishers while its memory or its disk is short)"
    if isinstance(error, AuthenticationError | ProbableAuthenticationError):
        return "it refuses us"
    if isinstance(error, PublishError):
        return "no queue takes it"
    if isinstance(error, DeliveryError):
        return "it did not take it (a full queue, or a node that is not well)"
    said = " ".join(" ".join(map(str, error.args)).split())[:300] or type(error).__name__
    if "OpenOk" in said:  # all that the library says of a server that closes the connection then
        return "it refuses us: there is no such vhost, or no right to it"
    return f"it refuses us: {said}" if "ACCESS_REFUSED" in said else said


def place_of(config: RabbitmqQueueSettings) -> str:
    """Where the server is, for errors and logs."""
    return f"rabbitmq {config.host}:{config.effective_port}"
