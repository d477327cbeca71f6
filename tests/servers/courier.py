"""Courier's POP3 server on a free port of 127.0.0.1, if it is at hand.

Its Debian package excludes Dovecot's, so it is not installed but unpacked, anywhere; COURIER_ROOT says where:

    apt-get download courier-pop courier-authlib libcourier-unicode4 libidn12
    for package in *.deb; do dpkg -x $package /var/tmp/courier; done

Only the login is ours, because Courier's own wants a daemon: whoever logs in is handed to the real ``courierpop3d``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

ROOT = Path(os.environ.get("COURIER_ROOT", "/"))
BINARY = ROOT / "usr/lib/courier/courier/courierpop3d"
_LIBRARIES = [ROOT / "usr/lib", ROOT / "usr/lib/x86_64-linux-gnu", ROOT / "usr/lib/courier-authlib"]

installed = BINARY.exists()


class Courier:
    """An async context manager; listens on :attr:`port`. Every user has a Maildir below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.subprocess.Process] = set()

    async def ended(self) -> None:
        """Return when nobody deletes any more: Courier answers QUIT first, and deletes then."""
        await asyncio.sleep(0.05)
        await asyncio.gather(*(process.wait() for process in self._ending))

    async def __aenter__(self) -> Courier:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def maildir(self, user: str) -> Path:
        """The user's Maildir."""
        return self.directory / user

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._converse(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK Hello there.\r\n")
        user = ""
        while line := (await reader.readline()).decode():
            verb, _, argument = line.strip().partition(" ")
            if verb == "CAPA":
                writer.write(b"+OK Here's what I can do:\r\nTOP\r\nUSER\r\nPIPELINING\r\nUIDL\r\n.\r\n")
            elif verb == "USER":
                user = argument
                writer.write(b"+OK Password required.\r\n")
            elif verb == "PASS" and argument == "secret" and user:
                return await self._hand_over(user, reader, writer)
            elif verb == "QUIT":
                writer.write(b"+OK Better luck next time.\r\n")
                return None
            else:
                writer.write(b"-ERR Login failed.\r\n")
        return None

    async def _hand_over(self, user: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        environment = {"AUTHENTICATED": user, "MAILDIR": user, "LD_LIBRARY_PATH": ":".join(map(str, _LIBRARIES))}
        # A socket, as Courier has it in earnest: with pipes asyncio's wait() does not return before all of them are read out.
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                str(BINARY), user, cwd=self.directory, env=environment,
                stdin=theirs, stdout=theirs, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        from_courier, to_courier = await asyncio.open_connection(sock=ours)
        down = asyncio.create_task(_pass(from_courier, writer))
        try:
            await _pass(reader, to_courier)
            self._ending.add(process)
            async with asyncio.timeout(5):
                await process.wait()
        finally:
            self._ending.discard(process)
            down.cancel()
            to_courier.transport.abort()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()
