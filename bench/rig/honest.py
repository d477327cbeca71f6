"""The honest mailbox: an IMAP server in a thread that tells of each letter the instant it comes."""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType
from typing import Self

from rig.arrivals import id_of
from rig.server import programs as programs  # puts the servers of the tests on the path
from servers.scripted import ScriptedImap


class Honest:
    """A context manager. ``told``: Message-ID -> time.monotonic of the notice (EXISTS) about it."""

    port = 0

    def __init__(self) -> None:
        self.told: dict[str, float] = {}
        self._loop = asyncio.new_event_loop()
        self._server = ScriptedImap()
        self._thread = threading.Thread(target=self._loop.run_forever, name="honest", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.__aenter__(), self._loop).result(10)
        self.port = self._server.port
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._server.__aexit__(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def deliver(self, octets: bytes) -> None:
        """A letter comes, with lone line feeds, and every client that is there is told of it."""
        self._loop.call_soon_threadsafe(self._deliver, octets)

    def _deliver(self, octets: bytes) -> None:
        messages = self._server.messages
        messages[max(messages, default=0) + 1] = octets.replace(b"\n", b"\r\n")
        self.told[id_of(octets)] = time.monotonic()
        for conversation in self._server.conversations:
            if not conversation.writer.is_closing():
                conversation.say(b"* %d EXISTS\r\n" % len(messages))
