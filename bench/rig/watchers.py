"""Bare IMAP clients that wait with IDLE: what they are told is as early as anybody can know of new mail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable


class Watcher(asyncio.Protocol):
    """Logs in, selects INBOX, idles, and calls ``told`` with the instant (time.monotonic) of every EXISTS from then
    on."""

    _STEPS = (b"* OK", b"a ", b"b ", b"+")

    def __init__(self, user: str, told: Callable[[float], None], ready: asyncio.Future[None]) -> None:
        self._told, self._ready = told, ready
        self._commands = iter([f"a LOGIN {user} secret\r\n", "b SELECT INBOX\r\n", "c IDLE\r\n"])
        self._step = 0
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ready.done():
            self._ready.set_exception(error or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        for line in lines:
            if self._step == len(self._STEPS):
                if line.endswith(b" EXISTS"):
                    self._told(now)
            elif line.startswith(self._STEPS[self._step]):
                self._step += 1
                if (command := next(self._commands, None)) is not None:
                    self.transport.write(command.encode())
                else:
                    self._ready.set_result(None)


async def watch(port: int, users: Iterable[str], told: Callable[[str, float], None]) -> list[Watcher]:
    """A watcher for each user, all of them idling when this returns."""
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(20)

    async def one(user: str) -> Watcher:
        ready: asyncio.Future[None] = loop.create_future()
        async with gate:
            _, watcher = await loop.create_connection(
                lambda: Watcher(user, lambda instant: told(user, instant), ready), "127.0.0.1", port
            )
            await asyncio.wait_for(ready, 60)
        return watcher

    return list(await asyncio.gather(*(one(user) for user in users)))
