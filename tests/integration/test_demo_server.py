"""The demonstration's stage: a real mail server on a free port, its messages, and the way to drop more."""

from __future__ import annotations

import asyncio
import imaplib
import json
import time
from pathlib import Path

import pytest
import yaml

from mailpoller.config import load
from mailpoller.core.errors import ConfigError, TransientError
from mailpoller.demo.messages import further, messages
from mailpoller.demo.server import DemoServer
from mailpoller.demo.stage import drop, prepare

SOON_S = 20.0
"""A second, on a machine that does other things too."""


def _log_in(server: DemoServer) -> imaplib.IMAP4:
    client = imaplib.IMAP4(server.host, server.port, timeout=60)
    client.login(server.user, server.password)
    return client


def _fetch_all(server: DemoServer) -> list[bytes]:
    with _log_in(server) as client:
        client.select("INBOX", readonly=True)
        _, parts = client.uid("FETCH", "1:*", "(BODY.PEEK[])")
        return [part[1] for part in parts if isinstance(part, tuple)]


async def test_server_gives_back_every_message_bit_for_bit() -> None:
    odd = [b"\x00\xff no header at all", b"Subject: bare\n\nlf\r\r\n.", *(letter.octets for letter in messages())]
    async with DemoServer() as server:
        assert len(set(await server.add(odd))) == len(odd)
        assert await asyncio.to_thread(_fetch_all, server) == odd


async def test_server_offers_what_a_disposition_and_a_quick_arrival_need() -> None:
    def capabilities() -> set[str]:
        with _log_in(server) as client:
            _, lines = client.capability()
            return set(lines[-1].decode().split())

    async with DemoServer() as server:
        assert {"IDLE", "MOVE", "UIDPLUS"} <= await asyncio.to_thread(capabilities)


async def test_server_moves_a_message_into_a_folder_that_was_just_created() -> None:
    def move() -> None:
        with _log_in(server) as client:
            client.create("Processed")
            client.select("INBOX")
            _, (uids,) = client.uid("SEARCH", "ALL")
            client.uid("MOVE", uids.decode(), "Processed")

    async with DemoServer() as server:
        await server.add([b"Subject: one\r\n\r\n"])
        await asyncio.to_thread(move)
        async with asyncio.timeout(60):
            while await server.held("Processed") != 1:
                await asyncio.sleep(0.01)
        assert await server.held() == 0


async def test_idle_client_hears_of_a_dropped_message_within_a_second(tmp_path: Path) -> None:
    async with await prepare(tmp_path / "demo") as setup:
        reader, writer = await asyncio.open_connection(setup.server.host, setup.server.port)
        async with asyncio.timeout(60):
            writer.write(b'a LOGIN "demo" "demo"\r\nb SELECT INBOX\r\nc IDLE\r\n')
            await reader.readuntil(b"+ Idling.\r\n")
            started = time.monotonic()
            await asyncio.to_thread(drop, b"Hello from another terminal\n", setup.directory)
            await reader.readuntil(b"6 EXISTS")
            assert time.monotonic() - started < SOON_S
            assert (await asyncio.to_thread(_fetch_all, setup.server))[-1].endswith(b"Hello from another terminal\r\n")
        writer.close()


async def test_server_stops_at_once_though_clients_idle_and_others_were_killed() -> None:
    async with DemoServer() as server:
        _, idler = await asyncio.open_connection(server.host, server.port)
        idler.write(b'a LOGIN "demo" "demo"\r\nb SELECT INBOX\r\nc IDLE\r\n')
        _, victim = await asyncio.open_connection(server.host, server.port)
        victim.transport.abort()
        await asyncio.sleep(0.2)
        started = time.monotonic()
    assert time.monotonic() - started < SOON_S
    idler.close()


async def test_second_run_starts_afresh_in_the_same_directory(tmp_path: Path) -> None:
    async with await prepare(tmp_path / "demo") as setup:
        (setup.directory / "state").mkdir()
        (setup.directory / "state" / "ledger.db").write_bytes(b"old")
    async with await prepare(tmp_path / "demo") as setup:
        assert not (setup.directory / "state").exists()
        assert await setup.server.held() == len(setup.messages)


async def test_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("twenty years of work")
    with pytest.raises(ConfigError, match="holds other files"):
        await prepare(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


async def test_two_demonstrations_do_not_share_a_directory(tmp_path: Path) -> None:
    async with await prepare(tmp_path / "demo"):
        with pytest.raises(ConfigError, match="is running"):
            await prepare(tmp_path / "demo")


async def test_drop_says_so_when_no_demonstration_runs(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="no demonstration is running"):
        drop(b"x", tmp_path)
    async with await prepare(tmp_path / "demo"):
        pass
    with pytest.raises(TransientError, match="no demonstration is running"):
        drop(b"x", tmp_path / "demo")


async def test_drop_says_so_when_the_demonstration_was_killed(tmp_path: Path) -> None:
    async with DemoServer() as server:
        port = server.port
    (tmp_path / "demo.json").write_text(json.dumps({"port": port}))
    with pytest.raises(TransientError, match="does not answer"):
        drop(b"x", tmp_path)


async def test_configuration_names_the_server_and_survives_an_awkward_directory(tmp_path: Path) -> None:
    async with await prepare(tmp_path / 'it\'s: a "demo" # ü') as setup:
        written = yaml.safe_load(setup.config.read_text("utf-8"))
        assert written["mailboxes"]["demo"]["port"] == setup.server.port
        assert written["queues"]["support"]["path"] == str(setup.queues["support"])
        assert Path(written["ledger"]["path"]).is_relative_to(setup.directory)


async def test_configuration_is_one_that_the_daemon_takes_without_a_warning(tmp_path: Path) -> None:
    async with await prepare(tmp_path / "demo") as setup:
        config = load(setup.config)
        assert config.missing_secrets() == []
        assert {path.name for path in setup.queues.values()} == {"support.db", "billing.db", "oddities"}
        assert config.warnings == ()


def test_messages_end_in_two_queues_and_in_quarantine() -> None:
    assert {letter.goes_to for letter in messages()} == {"support", "billing", "quarantine"}
    assert len({letter.name for letter in messages()}) == len(messages())


def test_typed_text_becomes_a_message_and_a_message_stays_one() -> None:
    assert further(b"just text\n").endswith(b"\r\n\r\njust text\r\n")
    assert further(b"Subject: mine\n\nbody\r\n") == b"Subject: mine\r\n\r\nbody\r\n"
