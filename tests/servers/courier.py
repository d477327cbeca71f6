"""Courier's POP3 server on a free port of 127.0.0.1, if it is at hand.

Its Debian package excludes Dovecot's, so it is not installed but unpacked; COURIER_ROOT says where. ``scripts/test``
does both.

Only the login is ours, because Courier's own wants a daemon: whoever logs in is handed to the real ``courierpop3d``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

from servers import programs
from servers.listener import Listener

ROOT = Path(os.environ.get("COURIER_ROOT", "/"))
_LIBRARIES = [ROOT / "usr/lib", ROOT / "usr/lib/x86_64-linux-gnu", ROOT / "usr/lib/courier-authlib"]

installed = programs.found("courierpop3d") is not None


class Courier(Listener):
    """A server; every user has a Maildir below ``directory``. ``utf8``: it offers UTF8 (RFC 6856)."""

    def __init__(self, directory: Path, *, utf8: bool = True) -> None:
        self.directory = directory
        self.offers = b"UTF8 USER\r\n" if utf8 else b""
        self._leaving: set[asyncio.Future[None]] = set()

    async def ended(self) -> None:
        """Return when nobody deletes any more: Courier answers QUIT first, and deletes then."""
        await asyncio.gather(*self._leaving)

    def maildir(self, user: str) -> Path:
        """The user's Maildir."""
        return self.directory / user

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK Hello there.\r\n")
        user, utf8 = "", False
        while line := (await reader.readline()).decode():
            verb, _, argument = line.strip().partition(" ")
            if verb == "CAPA":
                writer.write(
                    b"+OK Here's what I can do:\r\nTOP\r\nUSER\r\nPIPELINING\r\nUIDL\r\n" + self.offers + b".\r\n"
                )
            elif verb == "UTF8" and self.offers:
                utf8 = True
                writer.write(b"+OK UTF8 enabled\r\n")
            elif verb == "USER":
                user = argument
                writer.write(b"+OK Password required.\r\n")
            elif verb == "PASS" and argument == "secret" and user:
                return await self._hand_over(user, utf8, reader, writer)
            elif verb == "QUIT":
                writer.write(b"+OK Better luck next time.\r\n")
                return None
            else:
                writer.write(b"-ERR Login failed.\r\n")
        return None

    async def _hand_over(
        self, user: str, utf8: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        environment = {
            "AUTHENTICATED": user, "MAILDIR": user, "LD_LIBRARY_PATH": ":".join(map(str, _LIBRARIES)),
            "UTF8": str(int(utf8)),
        }  # fmt: skip
        # A socket, as Courier has it in earnest: with pipes asyncio's wait() does not return before all of them are
        # read out.
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                programs.find("courierpop3d"), user, cwd=self.directory, env=environment,
                stdin=theirs, stdout=theirs, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            from_courier, to_courier = await asyncio.open_connection(sock=ours)
            down = asyncio.create_task(_pass(from_courier, writer))
            try:
                await _pass(reader, to_courier, lambda data: self._leaving.add(gone) if b"QUIT" in data else None)
                async with asyncio.timeout(60):
                    await process.wait()
            finally:
                down.cancel()
                to_courier.transport.abort()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            self._leaving.discard(gone)
            gone.set_result(None)


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, look: Callable[[bytes], None] = lambda data: None
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            look(data)
            writer.write(data)
            await writer.drain()
        writer.close()
