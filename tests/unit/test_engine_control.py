"""The control socket, and who comes to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailpoller.core.errors import MailpollerError, TransientError
from mailpoller.engine.control import CONNECTIONS, LONGEST_REQUEST, SMALL_BODY, ControlServer, ask


async def hello(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"hello": request.get("to", "world")}


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[ControlServer]:
    server, ended = ControlServer(path, {"hello": hello}), asyncio.Event()
    task = asyncio.create_task(server.serve(ended))
    async with asyncio.timeout(30):
        while not path.exists() and not task.done():
            await asyncio.sleep(0.01)
    yield server
    ended.set()
    await task


async def said(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(30):
        return await asyncio.to_thread(ask, path, request)


async def raw(path: Path, octets: bytes) -> bytes:
    """What is answered to these octets; nothing if the connection ends without."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(octets)
            await writer.drain()
            async with asyncio.timeout(30):
                return await reader.readline()
        return b""
    finally:
        writer.close()


async def test_a_request_is_answered_and_the_socket_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "run" / "control.sock"
    async with serving(path):
        assert await said(path, {"do": "hello", "to": "you"}) == {"hello": "you"}
    assert not path.exists()


@pytest.mark.parametrize("umask", [0o000, 0o077])
async def test_the_socket_is_for_the_group_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "run" / "control.sock"
    before = os.umask(umask)
    try:
        async with serving(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    finally:
        os.umask(before)


async def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("data")
    with capture_logs() as logs:
        await ControlServer(path, {}).serve(asyncio.Event())
    assert path.read_text() == "data"
    assert [entry["event"] for entry in logs] == ["control.unavailable"]
    assert "no socket" in logs[0]["reason"]


async def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    async with serving(path):
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(TransientError):
                    assert await said(path, {"do": "hello"}) == {"hello": "world"}
                    break


async def test_the_end_of_one_server_leaves_the_next_ones_socket(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        path.unlink()
        second = ControlServer(path, {"hello": hello})
        ended = asyncio.Event()
        task = asyncio.create_task(second.serve(ended))
        async with asyncio.timeout(30):
            while not path.exists():
                await asyncio.sleep(0.01)
    assert await said(path, {"do": "hello"}) == {"hello": "world"}
    ended.set()
    await task


@pytest.mark.parametrize(
    "octets",
    [b"\n", b"{}\n", b"[]\n", b"null\n", b'{"do": []}\n', b'{"do": "fly"}\n', b"[" * 60_000 + b"\n", b"\xff\xfe\n"],
    ids=["empty", "no verb", "list", "null", "odd verb", "unknown", "deep", "no text"],
)
async def test_what_is_no_request_is_refused_and_harms_nobody(tmp_path: Path, octets: bytes) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        assert json.loads(await raw(path, octets))["ok"] is False
        assert await said(path, {"do": "hello"}) == {"hello": "world"}


async def test_a_request_that_is_too_long_ends_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        assert await raw(path, b"x" * (2 * LONGEST_REQUEST)) == b""
        assert await said(path, {"do": "hello"}) == {"hello": "world"}


async def test_clients_that_say_nothing_keep_nobody_from_asking(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with serving(path):
        idle = [await asyncio.open_unix_connection(path) for _ in range(CONNECTIONS // 2)]
        async with asyncio.timeout(4):  # before the first of them is turned out
            assert await said(path, {"do": "hello"}) == {"hello": "world"}
        for _, writer in idle:
            writer.close()


async def test_more_clients_than_there_is_room_for_are_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.engine.control.CONNECTIONS", 3)
    path = tmp_path / "control.sock"
    async with serving(path):
        idle = [await asyncio.open_unix_connection(path) for _ in range(3)]
        assert await raw(path, b'{"do": "hello"}\n') == b""
        for _, writer in idle:
            writer.close()
        async with asyncio.timeout(30):
            while not await raw(path, b'{"do": "hello"}\n'):
                await asyncio.sleep(0.01)


def test_a_daemon_that_is_still_at_it_is_not_said_to_be_away(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(tmp_path / "control"))
        busy.listen()
        with pytest.raises(TransientError, match="may be at it still"):
            ask(tmp_path / "control", {"do": "hello"}, deadline=timedelta(seconds=0.1))


async def test_clients_that_send_no_body_keep_nobody_from_sending(tmp_path: Path) -> None:
    async def take(request: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"took": len(request["octets"])}

    path = tmp_path / "control.sock"
    server, ended = ControlServer(path, {"send": take}, {"send": 10 << 20}), asyncio.Event()
    task = asyncio.create_task(server.serve(ended))
    while not path.exists():
        await asyncio.sleep(0.01)
    mute = []
    for size in (100, 100, 100, 1 << 20, 1 << 20, 1 << 20):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(
            json.dumps({"do": "send", "body": size}).encode() + b"\n" + b"x" * (size // 2 if size < 200 else 9)
        )
        mute.append((reader, writer))
    await asyncio.sleep(0.1)
    try:
        for size in (0, 500, SMALL_BODY, SMALL_BODY + 1, 5 << 20):
            async with asyncio.timeout(3):
                answer = await asyncio.to_thread(ask, path, {"do": "send"}, body=b"x" * size)
            assert answer == {"took": size}
        with pytest.raises(MailpollerError, match="more than"):
            await asyncio.to_thread(ask, path, {"do": "send"}, body=b"x" * ((10 << 20) + 1))
    finally:
        for _, writer in mute:
            writer.close()
        ended.set()
        await task
