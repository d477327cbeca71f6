"""A private Redis on a free port of 127.0.0.1, or Valkey, with whatever settings a test wants; it syncs each write."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from servers import programs
from servers.children import die_with_parent
from servers.ports import await_silence, free_port

missing = "" if programs.found("redis-server") else f"there is no redis-server: {programs.lacking('redis-server')}"
"""Why the tests of it are skipped; else empty."""


class RedisServer:
    """A context manager. ``settings`` are lines of redis.conf, which overrule those here. One that is started
    again has the same port and directory, and so what it wrote before."""

    def __init__(self, *settings: str, sentinel: bool = False) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self.settings = settings
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it has read what it wrote before."""
        usual = ["appendonly yes", "appendfsync always", 'save ""'] if not self._sentinel else []
        place = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.directory}", f"logfile {self.directory}/log"]
        file = self.directory / "redis.conf"
        file.write_text("\n".join([*place, *usual, *self.settings]) + "\n", "utf-8")
        command = [programs.find("redis-server"), str(file), *(["--sentinel"] if self._sentinel else [])]
        self._process = subprocess.Popen(command, preexec_fn=die_with_parent, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while b"+PONG" not in self.ask("PING") and b"NOAUTH" not in self.ask("PING"):
            assert time.monotonic() < deadline, (self.directory / "log").read_text("utf-8")
            time.sleep(0.01)

    def ask(self, *words: str) -> bytes:
        """What it answers to one command, as it is on the line (the first 64 KB); nothing if it does not listen."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as line:
                sent = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in _octets(words))
                line.sendall(b"*%d\r\n%s" % (len(words), sent))
                return line.recv(65536)
        except OSError:
            return b""

    def freeze(self) -> None:
        """It answers nothing any more, and its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would, and a child of its that rewrites its file with it."""
        if self._process is not None:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("utf-8").split()
            self._process.send_signal(signal.SIGSTOP)  # so that it begins no other
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), signal.SIGKILL)
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(30)
            self._process = None
            await_silence(self.port)


def _octets(words: tuple[str, ...]) -> list[bytes]:
    return [word.encode() for word in words]
