"""HTTP CONNECT against a proxy that answers as awkwardly as the protocol allows."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from mailpoller.core.errors import TransientError
from mailpoller.wire.proxy import Proxy


@asynccontextmanager
async def proxy_that_answers(parts: Sequence[bytes], asked: list[bytes] | None = None) -> AsyncIterator[Proxy]:
    """A proxy that reads a request, sends the parts a moment apart, and closes only if there is none."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(request)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)
        if parts:
            await ended.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Proxy.model_validate(
            {"type": "http", "host": "127.0.0.1", "port": port, "username": "u", "password": "p"}
        )
    finally:
        ended.set()
        server.close()


GREETING = b"220 mail.example ESMTP\r\n"
OK = b"HTTP/1.0 200 Connection established\r\nProxy-agent: x\r\n\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([OK + GREETING], id="in the same segment"),
        pytest.param([OK[:12], OK[12:], GREETING], id="in pieces"),
        pytest.param([b"HTTP/1.1 204 Fine\n\n" + GREETING], id="bare line ends"),
    ],
)
async def test_a_servers_greeting_is_never_taken_for_the_proxys_reply(parts: list[bytes]) -> None:
    asked: list[bytes] = []
    async with proxy_that_answers(parts, asked) as proxy:
        sock = await proxy.connect("mail.example", 25, seconds=5)
        with sock:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(60):
                assert await loop.sock_recv(sock, 1000) == GREETING
    assert asked == [
        b"CONNECT mail.example:25 HTTP/1.1\r\nHost: mail.example:25\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
    ]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"], "407 Proxy Authentication Required"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], "not HTTP"),
        ([b"HTTP/1.1\r\n\r\n"], "not HTTP"),
        ([b"HTTP/1.1 200 OK\r\nX: " + 20_000 * b"x"], "longer than"),
        ([], "closed the connection"),
    ],
)
async def test_a_proxy_that_gives_no_tunnel_is_a_passing_error_in_its_own_words(parts: list[bytes], words: str) -> None:
    async with proxy_that_answers(parts) as proxy:
        with pytest.raises(TransientError, match=words):
            await proxy.connect("mail.example", 25, seconds=5)


@pytest.mark.parametrize(
    ("host", "line"),
    [("2001:db8::1", b"CONNECT [2001:db8::1]:25 "), ("b\u00fccher.example", b"CONNECT xn--bcher-kva.example:25 ")],
)
async def test_a_host_is_named_to_the_proxy_as_the_protocol_wants_it(host: str, line: bytes) -> None:
    asked: list[bytes] = []
    async with proxy_that_answers([OK], asked) as proxy:
        (await proxy.connect(host, 25, seconds=5)).close()
    assert asked[0].startswith(line)


async def test_a_host_cannot_add_a_line_to_the_request() -> None:
    async with proxy_that_answers([OK]) as proxy:
        with pytest.raises(TransientError, match="not a host name"):
            await proxy.connect("mail.example:25 HTTP/1.1\r\nX: y", 25, seconds=5)


async def test_a_proxy_that_repeats_our_login_in_its_answer_shows_it_to_nobody() -> None:
    login = b64encode(b"through:hunter2-secret").decode()
    said = f"HTTP/1.1 400 Bad field: Basic {login} of through:hunter2-secret \x1b[2J\r\n\r\n".encode()
    async with proxy_that_answers([said]) as proxy:
        ours = {"username": "through", "password": "hunter2-secret"}
        block = Proxy.model_validate({"type": "http", "host": "127.0.0.1", "port": proxy.port, **ours})
        with pytest.raises(TransientError, match="400 Bad field") as caught:
            await block.connect("mail.example", 25, seconds=5)
    shown = str(caught.value)
    assert login not in shown
    assert "hunter2" not in shown
    assert "\x1b" not in shown
