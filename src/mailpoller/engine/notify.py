"""Words to systemd (sd_notify(3)): ready, stopping, status, watchdog."""

from __future__ import annotations

import os
import socket
from datetime import timedelta


class Notifier:
    """Sends to ``$NOTIFY_SOCKET``; outside a unit every call does nothing. Never blocks and never raises."""

    def __init__(self, address: str | None = None) -> None:
        self._address = address if address is not None else os.environ.get("NOTIFY_SOCKET", "")
        self._last_status = ""

    def ready(self) -> None:
        """Configuration and ledger are open."""
        self._send("READY=1")

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
