"""Real forward proxies on free ports of 127.0.0.1: tinyproxy (HTTP CONNECT) and microsocks (SOCKS5), both with a
login."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers import programs
from servers.children import die_with_parent
from servers.ports import free_port

USER, PASSWORD = "through", "proxy-password-that-nobody-may-see"


@contextmanager
def forward_proxy(kind: str) -> Iterator[dict[str, Any]]:
    """Start one; the ``proxy`` block that leads through it. ``kind``: ``http`` or ``socks5``."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="proxy-") as directory:
        if kind == "http":
            file = Path(directory, "tinyproxy.conf")
            file.write_text(f"Port {port}\nListen 127.0.0.1\nTimeout 60\nBasicAuth {USER} {PASSWORD}\nLogLevel Error\n")
            command = [programs.find("tinyproxy"), "-d", "-c", str(file)]
        else:
            command = [programs.find("microsocks"), "-i", "127.0.0.1", "-p", str(port), "-u", USER, "-P", PASSWORD]
        quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        process = subprocess.Popen(command, preexec_fn=die_with_parent, **quiet)
        try:
            _await(port, process)
            yield {"type": kind, "host": "127.0.0.1", "port": port, "username": USER, "password": PASSWORD}
        finally:
            process.kill()
            process.wait(60)


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        time.sleep(0.01)
    raise RuntimeError("the proxy does not start")
