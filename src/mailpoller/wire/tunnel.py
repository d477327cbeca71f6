"""The CONNECT method of HTTP: a connection through a proxy (RFC 9110 section 9.3.6)."""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode

_LONGEST_REPLY = 16 * 1024
"""Octets of header a proxy may answer with."""


async def tunnel(sock: socket.socket, host: str, port: int, login: tuple[str, str] | None) -> None:
    """Ask the proxy at the other end of ``sock`` for a tunnel to ``host``; ``login`` is a user and a password.

    The reply is read octet by octet, for the tunnel begins right behind its blank line: in SMTP, IMAP and POP3 the
    server speaks first, and its greeting may lie in the same segment. Whoever reads further takes it away from the
    client.

    Raises :class:`OSError` in an operator's words if the proxy says anything but 2xx, or nothing that is HTTP. The
    caller sets the deadline and closes the socket.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, _request(host, port, login))
    reply = bytearray()
    while not reply.endswith((b"\r\n\r\n", b"\n\n")):
        octet = await loop.sock_recv(sock, 1)
        if not octet:
            raise OSError("it closed the connection without an answer")
        reply += octet
        if len(reply) > _LONGEST_REPLY:
            raise OSError(f"its answer is longer than {_LONGEST_REPLY} octets")
    status = bytes(reply).split(b"\n", 1)[0].decode("ascii", "replace").split(None, 2)
    if len(status) < 2 or not status[0].startswith("HTTP/1.") or not status[1].isdigit():
        raise OSError("its answer is not HTTP")
    if not 200 <= int(status[1]) < 300:
        raise OSError(" ".join(status[1:]))


def _request(host: str, port: int, login: tuple[str, str] | None) -> bytes:
    # A name in another script goes out as the DNS has it; an IPv6 address stands in brackets (RFC 3986 section 3.2.2).
    try:
        name = f"[{host}]" if ":" in host else host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        raise OSError("not a host name") from None
    if any(character <= " " for character in name):
        raise OSError("not a host name")
    lines = [f"CONNECT {name}:{port} HTTP/1.1", f"Host: {name}:{port}"]
    if login is not None:
        lines.append("Proxy-Authorization: Basic " + b64encode(":".join(login).encode()).decode())
    return "\r\n".join([*lines, "", ""]).encode("ascii")
