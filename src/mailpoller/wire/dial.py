"""Reaching a host: from a name and a port to a connected socket, directly or through a proxy."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from mailpoller.core.errors import TransientError
from mailpoller.wire.names import Address, resolve

_ADDRESSES = 4
"""Addresses of one host that are tried, in the resolver's order; each gets its share of the time."""


class NoConnection(TransientError):
    """No address of a host could be connected to. ``reason`` is what became of the last one; ``at_once``: it said so,
    and was not waited for."""

    def __init__(self, place: str, reason: str, *, at_once: bool) -> None:
        super().__init__(f"cannot connect to {place}: {reason}")
        self.reason = reason
        self.at_once = at_once


class Way(Protocol):
    """A way round: what leads to a host when we do not go there ourselves, such as a proxy."""

    async def connect(self, host: str, port: int, *, seconds: float) -> socket.socket:
        """As :func:`dial` promises."""


async def dial(host: str, port: int, *, seconds: float, proxy: Way | None = None) -> socket.socket:
    """A connected, non-blocking socket to ``host``, within ``seconds`` in all. The caller closes it.

    With a proxy the name is resolved there and not here. Raises :class:`TransientError` in an operator's words.
    """
    if proxy is not None:
        return await proxy.connect(host, port, seconds=seconds)
    deadline = asyncio.get_running_loop().time() + seconds
    found = await resolve(host, port, seconds=seconds)
    return await connect(found, f"{host} port {port}", seconds=left_until(deadline))


def left_until(deadline: float) -> float:
    """Seconds until ``deadline``, on the running loop's clock: a tenth at least, and in tenths, since errors quote
    it."""
    return max(0.1, round(deadline - asyncio.get_running_loop().time(), 1))


async def connect(addresses: Sequence[Address], place: str, *, seconds: float) -> socket.socket:
    """Connect to the first address that answers; each gets its share of the time, so that one dead route spoils
    nothing.

    Raises :class:`NoConnection`.
    """
    loop = asyncio.get_running_loop()
    tried = addresses[:_ADDRESSES]
    failure = NoConnection(place, "no address", at_once=False)
    for family, number, address in tried:
        # The protocol's number must be named: without it asyncio leaves Nagle's algorithm on.
        candidate = socket.socket(family, socket.SOCK_STREAM, number)
        try:
            candidate.setblocking(False)
            async with asyncio.timeout(seconds / len(tried)):
                await loop.sock_connect(candidate, address)
            return candidate
        except TimeoutError:
            failure = NoConnection(place, f"no answer within {seconds:g} s", at_once=False)
            candidate.close()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            failure = NoConnection(place, reason, at_once=True)
            candidate.close()
        except BaseException:
            candidate.close()
            raise
    raise failure


async def adopt(protocol: asyncio.Protocol, sock: socket.socket) -> asyncio.Transport:
    """Let ``protocol`` speak over a connected socket, which the transport closes. Raises :class:`TransientError`."""
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=sock)
    except OSError as error:
        sock.close()
        raise TransientError(f"the connection broke at once: {error.strerror or error}") from None
    except BaseException:
        sock.close()
        raise
    return transport


def is_loopback(host: str) -> bool:
    """True for this machine itself, to which nothing crosses a network."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def confidential(url: str) -> SplitResult | None:
    """The parts of a URL to which a secret may be sent: https, or http to this machine, with no user or fragment.
    None for all others."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return None
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    plain = parts.username is None and not parts.fragment and all("!" <= one <= "~" for one in url)
    return parts if host and safe and plain else None


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """TCP keepalive: a half-open connection is noticed after two minutes (60 s, then 3 probes 20 s apart)."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
