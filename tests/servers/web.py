"""A scripted web service: says what it is told to, octet by octet, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from servers.listener import Listener


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    @property
    def bearer(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass(slots=True)
class Reply:
    """One answer. ``raw`` replaces everything; ``cut`` ends the connection after so many octets; ``pause`` is waited
    first."""

    status: int = 200
    body: object = b""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: int | None = None
    pause: float = 0.0

    def octets(self) -> bytes:
        if self.raw is not None:
            return self.raw
        body, headers = self.body, {name.lower(): value for name, value in self.headers.items()}
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
            headers.setdefault("content-type", "application/json; charset=utf-8")
        assert isinstance(body, bytes)
        headers.setdefault("content-length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} Said\r\n{head}\r\n".encode() + body


Answering = Callable[[Asked], "Reply | Awaitable[Reply]"]


class Web(Listener):
    """A server; ``answering`` may be replaced at any time."""

    def __init__(self, answering: Answering, *, tls: ssl.SSLContext | None = None) -> None:
        self.answering = answering
        self.asked: list[Asked] = []
        self.connections = 0
        self.tls = tls

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
            asked = Asked(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))
            self.asked.append(asked)
            found = self.answering(asked)
            reply = found if isinstance(found, Reply) else await found
            await asyncio.sleep(reply.pause)
            writer.write(reply.octets()[: reply.cut])
            await writer.drain()
            if reply.cut is not None:
                return


def script(*replies: Reply) -> Answering:
    """Answer with these, in this order; the last one again and again."""
    left = list(replies)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]
