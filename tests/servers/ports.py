"""Ports of 127.0.0.1 that are kept for this process: for servers that start late, or again, and for nobody at all."""

from __future__ import annotations

import socket
import time

_kept: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens, and which nobody else is given before this process ends.

    A socket that is bound and does not listen holds each: the system gives such a port to nobody who asks for any,
    neither for a server nor for the near end of a connection. Who asks for it by number, with SO_REUSEADDR as servers
    do, gets it.
    """
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
    _kept.extend(sockets)
    return [one.getsockname()[1] for one in sockets]


def free_port() -> int:
    """One of them."""
    (port,) = free_ports(1)
    return port


def await_silence(port: int, seconds: float = 60) -> None:
    """Return when nobody listens any more: a server's processes may outlive the first of them a little."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                pass
        except ConnectionRefusedError:
            return
        except OSError:
            pass
        time.sleep(0.005)
    raise RuntimeError(f"somebody still listens on port {port}")
