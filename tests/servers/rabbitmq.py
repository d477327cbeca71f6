"""A private RabbitMQ node on free ports of 127.0.0.1, with an epmd of its own. It takes some ten seconds to start."""

from __future__ import annotations

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

missing = "" if programs.found("rabbitmq-server") else f"there is no RabbitMQ: {programs.lacking('rabbitmq-server')}"
"""Why the tests of it are skipped; else empty."""

USER, PASSWORD = "guest", "guest"


class RabbitServer:
    """A context manager. ``settings`` are lines of rabbitmq.conf. One that is started again has the same ports and
    directory, and so what it wrote before."""

    def __init__(self, *settings: str) -> None:
        self.port, self._distribution, self._epmd_port = free_port(), free_port(), free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
        self.settings = settings
        self._node = f"mailpoller{self.port}@localhost"
        self._server: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(30)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The Erlang machine's."""
        return int((self.directory / "pid").read_text())

    def _environment(self) -> dict[str, str]:
        inside = {
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "db"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none",
            "ERL_CRASH_DUMP": str(self.directory / "crash"),
            "HOME": str(self.directory),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        return {**os.environ, **inside}

    def start(self) -> None:
        """Start it, and return when it takes messages again."""
        (self.directory / "rabbitmq.conf").write_text("\n".join(self.settings) + "\n", "utf-8")
        (self.directory / "plugins").write_text("[].\n")
        (self.directory / "pid").unlink(missing_ok=True)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "preexec_fn": die_with_parent}
        if self._epmd is None:
            command = [programs.find("epmd"), "-address", "127.0.0.1", "-port", str(self._epmd_port)]
            self._epmd = subprocess.Popen(command, **quiet)  # type: ignore[call-overload]
        command = [programs.find("rabbitmq-server")]
        self._server = subprocess.Popen(command, env=self._environment(), start_new_session=True, **quiet)  # type: ignore[call-overload]
        deadline = time.monotonic() + 90
        while not self._answers():
            assert time.monotonic() < deadline, self._log()
            assert self._server.poll() is None, self._log()
            time.sleep(0.1)

    def _answers(self) -> bool:
        """It greets: a server that still starts closes the connection."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as line:
                line.settimeout(5)
                line.sendall(b"AMQP\0\0\x09\x01")
                return line.recv(8)[:1] == b"\x01"
        except OSError:
            return False

    def _log(self) -> str:
        return "\n".join(path.read_text("utf-8", "replace")[-3000:] for path in (self.directory / "log").glob("*.log"))

    def freeze(self) -> None:
        """It answers nothing any more, and its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash would, with the processes that it started."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait(30)
            self._server = None
            await_silence(self.port)
            await_silence(self._distribution)
