"""A TCP proxy that breaks things: cuts, stalls, delays and refuses, on command, at a count of octets, or at seeded
random.

async with FaultProxy(server_port) as proxy:
    proxy.plan = [Fault("cut", after=5000)]      # the first connection is cut; later ones are left alone
    ...                                          # connect to proxy.port
    proxy.stall()                                # from now on every connection is silent, and stays open
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from servers.ports import free_port

Direction = Literal["down", "up", "both"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one connection once ``after`` octets have passed in ``direction`` (down: from the server).

    ``cut``: both sides are reset. ``close``: both sides see an orderly end. ``stall``: nothing passes any more and the
    connection stays open. ``none``: nothing.
    """

    kind: Literal["cut", "close", "stall", "none"]
    after: int = 0
    direction: Direction = "down"


NO_FAULT = Fault("none")


def random_faults(
    seed: int, *, octets: int = 200_000, kinds: tuple[str, ...] = ("cut", "close", "stall"), spare: float = 0.2
) -> Iterator[Fault]:
    """An endless plan: each connection fails somewhere in its first ``octets``; one in 1/``spare`` is left alone."""
    dice = random.Random(seed)
    while True:
        if dice.random() < spare:
            yield NO_FAULT
        else:
            # Most of a conversation's steps lie in its first few hundred octets, so half of the faults do.
            reach = octets if dice.random() < 0.5 else min(octets, 2000)
            yield Fault(dice.choice(kinds), dice.randrange(reach), dice.choice(("down", "up")))  # type: ignore[arg-type]


class FaultProxy:
    """An async context manager; listens on :attr:`port` of 127.0.0.1 and passes everything on to ``to``.

    ``plan`` is taken from one fault per connection; when it is used up connections are left alone. ``delay`` (seconds,
    one way) may be changed at any time. ``connections``, ``up`` and ``down`` count connections and octets.
    """

    host = "127.0.0.1"

    def __init__(self, to: int, *, plan: Iterable[Fault] = (), delay: float = 0.0, port: int = 0) -> None:
        self.to = to
        self.delay = delay
        self.port = port or free_port()
        self.connections = 0
        self.up = 0
        self.down = 0
        self._plan = iter(plan)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def plan(self) -> Iterator[Fault]:
        """The faults of the connections to come."""
        return self._plan

    @plan.setter
    def plan(self, faults: Iterable[Fault]) -> None:
        self._plan = iter(faults)

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._links)

    async def __aenter__(self) -> FaultProxy:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def accept(self) -> None:
        """Listen (again), on the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=1 << 18)

    async def refuse(self) -> None:
        """Refuse new connections; those that are open go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    def cut(self) -> None:
        """Reset every open connection."""
        for link in list(self._links):
            link.reset()

    def stall(self) -> None:
        """Let nothing pass on any connection, old or new, until :meth:`flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        """End a stall that :meth:`stall` began."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        fault = next(self._plan, NO_FAULT)
        link = _Link(fault, [writer])
        self._links.add(link)
        try:
            if fault.kind == "cut" and fault.after == 0:
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to, limit=1 << 18)
            link.writers.append(far_writer)
            pumps = (self._pump(link, far_reader, writer, "down"), self._pump(link, reader, far_writer, "up"))
            await asyncio.gather(*pumps)
        except (OSError, asyncio.CancelledError):  # only __aexit__ cancels, and asyncio would print a traceback of it
            pass
        finally:
            link.reset()
            self._links.discard(link)
            self._tasks.discard(task)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Literal["down", "up"]
    ) -> None:
        passed = 0
        fault = link.fault
        due = fault.kind != "none" and fault.direction in (direction, "both")
        while True:
            data = await reader.read(1 << 16)
            await self._flowing.wait()
            if not data:
                with contextlib.suppress(OSError, RuntimeError):
                    writer.write_eof()
                return
            if due and passed + len(data) >= fault.after:
                data = data[: fault.after - passed]
            if self.delay:
                # Data is delayed in order; what is read meanwhile waits in the kernel, so a window larger than the
                # socket buffers is not modelled.
                await asyncio.sleep(self.delay)
            writer.write(data)
            passed += len(data)
            if direction == "down":
                self.down += len(data)
            else:
                self.up += len(data)
            with contextlib.suppress(OSError):
                await writer.drain()
            if due and passed >= fault.after:
                await self._strike(link)

    async def _strike(self, link: _Link) -> None:
        if link.fault.kind == "stall":
            await asyncio.Event().wait()
        if link.fault.kind == "close":
            link.close()
        else:
            link.reset()
        raise ConnectionResetError("fault")


class _Link:
    """The two sides of one connection."""

    def __init__(self, fault: Fault, writers: list[asyncio.StreamWriter]) -> None:
        self.fault = fault
        self.writers = writers

    def close(self) -> None:
        for writer in self.writers:
            writer.close()

    def reset(self) -> None:
        for writer in self.writers:
            transport = writer.transport
            if not transport.is_closing():
                sock = transport.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            transport.abort()
