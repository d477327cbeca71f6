"""Names of hosts and their addresses: asked for in threads of their own, which a resolver that hangs cannot fill."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Lock

from mailpoller.core.errors import MachineTrouble, TransientError, machine_trouble
from mailpoller.storage.thread import Pool

Address = tuple[socket.AddressFamily, int, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]
"""Family, protocol number, and what ``connect`` wants."""

MOST = 256
"""Names that are asked for at the same time; each of them may hang for minutes."""


class _Names:
    """The look-ups under way: one for each host, however many wait for it."""

    def __init__(self) -> None:
        self._pool = Pool("names", MOST)
        self._entrance = Lock()
        self._asked: dict[str, Future[list[Address]]] = {}

    def ask(self, host: str) -> Future[list[Address]]:
        """The addresses, with port 0. Raises :class:`RuntimeError` if there is no thread to be had."""
        with self._entrance:
            found = self._asked.get(host)
            if found is None:
                found = self._asked[host] = self._pool.submit(_look_up, host)
                found.add_done_callback(lambda _: self._answered(host))
            return found

    def _answered(self, host: str) -> None:
        # Without the lock: it may be called by who holds it, if the answer was quick.
        self._asked.pop(host, None)


_names = _Names()


async def resolve(host: str, port: int, *, seconds: float) -> list[Address]:
    """The addresses of the host, in the resolver's order; a literal address is its own. Raises
    :class:`TransientError`; :class:`MachineTrouble` if no thread can ask."""
    try:
        found = _literal(host)
        if found is None:
            # Not cancelled with us: others may wait for the same name, and a thread cannot be interrupted.
            asked = asyncio.wrap_future(_names.ask(host))
            asked.add_done_callback(_heed)
            async with asyncio.timeout(seconds):
                found = await asyncio.shield(asked)
    except TimeoutError:
        raise TransientError(f"DNS: no answer about {host} within {seconds:g} s") from None
    except (socket.gaierror, UnicodeError) as error:
        if (lack := machine_trouble(error)) is not None:
            raise MachineTrouble(f"DNS: {host} cannot be asked for now: {lack}") from None
        raise TransientError(f"DNS: {host} is not found: {getattr(error, 'strerror', error)}") from None
    except RuntimeError as error:
        raise MachineTrouble(f"DNS: {host} cannot be asked for now: {error}") from None
    return [(family, number, _with_port(address, port)) for family, number, address in found]


def written(addresses: Sequence[Address]) -> str:
    """The addresses as a human reads them, each once."""
    return ", ".join(dict.fromkeys(str(address[0]) for _, _, address in addresses))


def _look_up(host: str, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    return [(family, number, address) for family, _, number, _, address in found]


def _literal(host: str) -> list[Address] | None:
    """What a literal address stands for, which no resolver is asked about; None for a name."""
    if not host or not (":" in host or host[-1].isdigit()):
        return None
    try:
        return _look_up(host, socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        return None


def _with_port(
    address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes], port: int
) -> tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]:
    if len(address) == 4:
        return (address[0], port, address[2], address[3])
    return (address[0], port) if isinstance(address[0], str) else address


def _heed(future: asyncio.Future[list[Address]]) -> None:
    """Whoever asked may be gone; a failure is nobody's then."""
    if not future.cancelled():
        future.exception()
