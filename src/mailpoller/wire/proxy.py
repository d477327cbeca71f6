"""Proxies: HTTP CONNECT (RFC 9110 section 9.3.6), and SOCKS5 (RFC 1928) on python-socks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, model_validator

from mailpoller.core.component import Block
from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.core.extras import Extra
from mailpoller.core.literals import Secret
from mailpoller.wire.dial import dial
from mailpoller.wire.literals import HostName
from mailpoller.wire.names import resolve
from mailpoller.wire.redaction import spoken
from mailpoller.wire.tunnel import tunnel


class Proxy(Block):
    """A proxy that connections go through. It resolves the names of the hosts, too."""

    type: Literal["http", "socks5"]
    """``http`` (the CONNECT method) or ``socks5``."""
    host: HostName
    """The proxy's name or address."""
    port: int = Field(ge=1, le=65535)
    """Often 3128 or 8080 for ``http``, 1080 for ``socks5``."""
    username: str | None = None
    """Log in at the proxy as this user."""
    password: Secret | None = None
    """The user's password at the proxy. It crosses the network to the proxy in clear: that is what these protocols
    do."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.password is not None and self.username is None:
            raise ValueError("password wants a username")
        return self

    def extras(self) -> Iterable[Extra]:
        """python-socks, for SOCKS5."""
        return [Extra("type", "python_socks", "mailpoller[proxy]")] if self.type == "socks5" else []

    @property
    def place(self) -> str:
        """Kind, host and port, for errors and logs."""
        return f"{self.type} proxy {self.host} port {self.port}"

    async def connect(self, host: str, port: int, *, seconds: float) -> socket.socket:
        """A connected, non-blocking socket to ``host`` by way of the proxy, within ``seconds``. The caller closes it.

        Not one octet of what the host says first is read. Raises :class:`TransientError` in an operator's words;
        :class:`ConfigError` if python-socks is needed and not installed.
        """
        password = "" if self.password is None else await asyncio.to_thread(self.password.reveal)
        way = self._by_connect if self.type == "http" else self._by_socks
        try:
            async with asyncio.timeout(seconds):
                return await way(host, port, password, seconds)
        except TimeoutError:
            raise TransientError(f"{self.place}: no connection to {host} within {seconds:g} s") from None

    async def _by_connect(self, host: str, port: int, password: str, seconds: float) -> socket.socket:
        try:
            sock = await dial(self.host, self.port, seconds=seconds)
        except TransientError as error:
            raise TransientError(f"cannot connect to the {self.place}: {error}") from None
        try:
            await tunnel(sock, host, port, (self.username, password) if self.username else None)
        except OSError as error:
            sock.close()
            raise self._no_way(host, port, str(error), password) from None
        except BaseException:
            sock.close()
            raise
        return sock

    async def _by_socks(self, host: str, port: int, password: str, seconds: float) -> socket.socket:
        try:
            from python_socks import ProxyConnectionError, ProxyError, ProxyTimeoutError, ProxyType
            from python_socks.async_.asyncio import Proxy as Dialler
        except ImportError:
            raise ConfigError("proxy: socks5 needs python-socks: pip install 'mailpoller[proxy]'") from None
        user = self.username
        # Resolved here: by itself python-socks would use threads that are meant for other work.
        address, *_ = await resolve(self.host, self.port, seconds=seconds)
        dialler = Dialler(ProxyType.SOCKS5, str(address[2][0]), self.port, user, password if user else None, rdns=True)
        try:
            found: socket.socket = await dialler.connect(dest_host=host, dest_port=port, timeout=seconds)
            return found
        except ProxyTimeoutError:
            raise TimeoutError from None
        except ProxyConnectionError:
            raise TransientError(f"cannot connect to the {self.place}") from None
        except (ProxyError, OSError) as error:
            raise self._no_way(host, port, str(error), password) from None

    def _no_way(self, host: str, port: int, reason: str, password: str) -> TransientError:
        # A proxy may repeat what it was sent, and CONNECT sends user and password as one word in base64.
        words = spoken(reason, (f"{self.username}:{password}", password) if password else ())
        return TransientError(f"{self.place}: no way to {host} port {port}: {words}")
