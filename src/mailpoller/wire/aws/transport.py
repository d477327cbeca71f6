"""The HTTP beneath the library for AWS: our own client, so that names, TLS, proxies, deadlines and the bounds of an
answer are what they are everywhere.

The library's own would look names up in threads that others need, trust certificates that it brings along, and read an
answer however long it is.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, Self
from urllib.parse import urlsplit

from aiobotocore.awsrequest import AioAWSResponse

from mailpoller.wire.aws.settings import AwsSettings
from mailpoller.wire.http import HttpClient
from mailpoller.wire.http.client import ANSWER_LIMIT

CONNECTIONS = 4
_KEPT = 10.0
"""Seconds that an idle connection is kept: less than any service does, for what is sent over one that is just being
closed is answered by nobody."""
_ANSWERS = range(300, 600)
"""The library reads errors."""
_NO_BODY = 1 << 62
"""The answer to HEAD has the length of what is not sent."""
_ORIGINS = 8
"""Services that connections are kept to: there is one, and another one where it says that it has moved."""


def transport(settings: AwsSettings, service: str) -> Callable[..., Transport]:
    """What the library calls to have its HTTP."""
    return lambda **_: Transport(settings, service)


class Transport:
    """What aiobotocore asks of its ``http_session_cls``."""

    def __init__(self, settings: AwsSettings, service: str) -> None:
        self._settings = settings
        self._doing = f"ask {service}"
        self._limit = max(ANSWER_LIMIT, int(getattr(settings, "max_size", 0)))
        self._clients: dict[str, HttpClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. Harmless when repeated."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def send(self, request: Any) -> Any:
        """Send a signed request, and read its whole answer. Raises :class:`TransientError`."""
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        headers.pop("expect", None)  # the answer to it is not waited for
        answer = await self._client(request.url).request(
            request.method,
            request.url,
            doing=self._doing,
            headers=headers,
            content=_octets(request.body),
            limit=_NO_BODY if request.method == "HEAD" else self._limit,
            takes=_ANSWERS,
        )
        response = AioAWSResponse(request.url, answer.status, dict(answer.headers), _Body(answer.body))
        if not request.stream_output:
            await response.content
        return response

    def _client(self, url: str) -> HttpClient:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._clients:
            if len(self._clients) >= _ORIGINS:
                raise ValueError("a service that moves again and again")
            one = self._settings
            connections = getattr(one, "connections", CONNECTIONS)
            self._clients[origin] = HttpClient(
                origin, policy=one.policy, timeout=one.timeout, connections=connections, proxy=one.proxy, kept=_KEPT
            )
        return self._clients[origin]


class _Body:
    """The octets of an answer, as the library reads them: also of one that it hands out as a stream, ``content``."""

    def __init__(self, octets: bytes) -> None:
        self._file = BytesIO(octets)

    @property
    def content(self) -> Self:
        return self

    async def read(self, most: int = -1) -> bytes:
        return self._file.read(most)


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _octets(body: object) -> bytes:
    """A request's body; octets that are to be an object come as a file in memory. Raises TypeError for any other: what
    is not understood must not go out as nothing."""
    if body is None:
        return b""
    if isinstance(body, BytesIO):
        return body.getvalue()
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    if isinstance(body, str):
        return body.encode()
    raise TypeError(f"a body of type {type(body).__name__}")
