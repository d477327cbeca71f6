"""Reaching a host: each address has its share of the time, and all of them together no more than was given."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic

import pytest

from mailpoller.core.errors import TransientError
from mailpoller.wire.dial import NoConnection, confidential, connect, dial
from mailpoller.wire.names import resolve
from servers.mailboxes import imap_source
from servers.pop3_mailboxes import pop3_source


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that does not answer at all: somebody listens, and its queue is full, so that the kernel drops whoever
    comes."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as server:
        port = int(server.getsockname()[1])
        with closing(socket.create_connection(("127.0.0.1", port))):
            yield port


async def test_an_address_that_refuses_does_not_hide_the_next_and_refuses_at_once() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server, closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        dead = await resolve("127.0.0.1", closed.getsockname()[1], seconds=1)
        alive = await resolve("127.0.0.1", server.getsockname()[1], seconds=1)
        (await connect([*dead, *alive], "example", seconds=1)).close()
        with pytest.raises(NoConnection, match="cannot connect to example: Connection refused") as caught:
            await connect(dead, "example", seconds=1)
        assert caught.value.at_once
        with pytest.raises(NoConnection, match="no address") as caught:
            await connect([], "example", seconds=1)
        assert not caught.value.at_once


async def test_an_address_that_is_silent_leaves_the_next_its_share_of_the_time() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server, silent_port() as silent:
        dead = await resolve("127.0.0.1", silent, seconds=1)
        alive = await resolve("127.0.0.1", server.getsockname()[1], seconds=1)
        began = monotonic()
        (await connect([*dead, *alive], "example", seconds=2)).close()
        assert monotonic() - began > 0.9


async def test_silence_is_waited_for_as_long_as_was_given_and_told_in_round_figures() -> None:
    with silent_port() as silent:
        with pytest.raises(
            NoConnection, match=r"^cannot connect to 127\.0\.0\.1 port \d+: no answer within 0\.\d s$"
        ) as caught:
            await dial("127.0.0.1", silent, seconds=0.3)
        assert not caught.value.at_once


@pytest.mark.parametrize("source", [imap_source, pop3_source])
async def test_a_server_that_is_silent_is_named_with_its_port(source, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with silent_port() as silent:
        words = rf"^cannot connect to 127\.0\.0\.1 port {silent}: no answer within 0\.\d s$"
        with pytest.raises(TransientError, match=words):
            await source(tmp_path, silent, "joe", host="127.0.0.1", connect_timeout="300ms").connect()


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example.com/token?tenant=1",
        "http://127.0.0.1:8080/",
        "http://localhost",
        "https://[2001:db8::1]:8443/v1.0",
    ],
)
def test_a_secret_may_go_where_nobody_listens(url: str) -> None:
    assert (parts := confidential(url)) is not None
    assert parts.geturl() == url


@pytest.mark.parametrize(
    "url",
    ["", "login.example.com", "http://login.example.com/", "ftp://127.0.0.1/", "https:///token",
    "https://user@example.com/", "https://@example.com/",
     "https://example.com/#token", "https://example.com/a "
                                   "b", "https://example.com/\r\nHost: "
                                        "x", "https://exämple.com/", "https://example.com:port/",
     "https://[::1/"],
)  # fmt: skip
def test_a_secret_goes_nowhere_else(url: str) -> None:
    assert confidential(url) is None
