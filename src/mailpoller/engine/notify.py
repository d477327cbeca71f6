"""Words to systemd (sd_notify(3)): ready, stopping, status, watchdog."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

EXTENDED_BY = timedelta(minutes=1)
"""So much more time a start asks for at once."""
EXTENDED_EVERY = timedelta(seconds=10)
"""And so often while it lasts."""


STARTING = timedelta(hours=2)
"""But no longer than this: a start that hangs is ended by systemd and begun anew."""


class Notifier:
    """Sends to ``$NOTIFY_SOCKET``; outside a unit every call does nothing. Never blocks and never raises."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address if address is not None else os.environ.get("NOTIFY_SOCKET", "")
        self._last_status = ""

    @asynccontextmanager
    async def starting(self) -> AsyncIterator[None]:
        """While the block lasts, systemd is asked for more time: opening a ledger that is migrated takes minutes,
        longer than TimeoutStartSec= and WatchdogSec=. The block must leave the event loop free."""

        async def ask() -> None:
            for _ in range(STARTING // EXTENDED_EVERY):
                self._send(f"EXTEND_TIMEOUT_USEC={EXTENDED_BY // timedelta(microseconds=1)}\nWATCHDOG=1")
                await asyncio.sleep(EXTENDED_EVERY.total_seconds())

        asking = asyncio.create_task(ask(), name="more time to start")
        try:
            yield
        finally:
            asking.cancel()

    def ready(self) -> None:
        """Configuration and ledger are open."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The configuration is read anew; :meth:`ready` follows, whatever comes of it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def status(self, line: str) -> None:
        """The line that ``systemctl status`` shows; sent when it changes."""
        if line != self._last_status:
            self._last_status = line
            self._send(f"STATUS={line}")

    @staticmethod
    def watchdog_interval() -> timedelta | None:
        """How often systemd wants to hear from us (WatchdogSec=), or None."""
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        pid = os.environ.get("WATCHDOG_PID")
        if not microseconds.isdigit() or (pid is not None and pid != str(os.getpid())):
            return None
        return timedelta(microseconds=int(microseconds))

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as wire:
                wire.sendto(text.encode(), address)
        except OSError:
            pass
