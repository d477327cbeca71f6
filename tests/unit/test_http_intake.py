"""An intake to which programs post: each has its answer, and nobody's request costs another one his."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from test_outbox import ENTRY, SENDERS, Site

from mailpoller.assembly.outbox import intake_source
from mailpoller.config import ConfigErrors, load
from mailpoller.core.component import Runtime
from mailpoller.core.errors import TransientError
from mailpoller.core.extras import Extra
from mailpoller.core.spool import Spool
from mailpoller.engine.alarm import Kind
from mailpoller.engine.intake_reader import IntakeReader
from mailpoller.engine.senders import Intake
from mailpoller.intakes.http import HttpIntakeConfig
from mailpoller.intakes.http import listener as listening
from mailpoller.intakes.http import request as requesting
from mailpoller.intakes.http.listener import CONNECTIONS_EACH, HttpIntake
from mailpoller.storage.local_socket import Peer

LARGEST = 200_000
LOCAL = Intake("local", ("root",), by_socket=False)


class Answer:
    def __init__(self, octets: bytes) -> None:
        head, _, self.body = octets.partition(b"\r\n\r\n")
        first, *fields = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.fields = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Desk(Site):
    """A site with an intake ``local`` that listens."""

    def __init__(self, path: Path, ledger: Any = None, **bounds: Any) -> None:
        super().__init__(path, ledger, **bounds)
        self.use(replace(SENDERS, intakes={**SENDERS.intakes, "local": LOCAL}))
        self.socket = path / "send.sock"
        self.source: Any = HttpIntake(self.socket, frozenset(), frozenset())
        self.reader = IntakeReader(self.acceptance, {"local": self.source}, self.alarm, largest=LARGEST)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Desk]:
        stop = asyncio.Event()
        task = asyncio.create_task(self.reader.run(stop))
        try:
            await until(self.socket.exists)
            yield self
        finally:
            stop.set()
            await asyncio.wait_for(task, 30)

    async def say(self, octets: bytes, *, half: bool = False) -> Answer | None:
        reader, writer = await asyncio.open_unix_connection(str(self.socket), limit=1 << 20)
        try:
            writer.write(octets)
            if half:
                writer.write_eof()
            found = await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()
        return Answer(found) if found else None

    async def post(self, entry: object = None, path: str = "/entries", method: str = "POST", **fields: str) -> Answer:
        body = entry if isinstance(entry, bytes) else json.dumps(ENTRY if entry is None else entry).encode()
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        head = f"{method} {path} HTTP/1.1\r\nHost: mailpoller\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        found = await self.say(head.encode() + body)
        assert found is not None
        return found

    async def waiting(self) -> int:
        return len(await self.ledger.outbox_list(limit=99))


async def until(true: Callable[[], object]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Desk(tmp_path).open() as made:
        yield made


async def test_an_entry_is_answered_with_its_mail_once_that_is_on_the_disk(desk: Desk) -> None:
    answer = await desk.post()
    assert answer.status == 202
    assert answer.json["repeated"] is False
    mail = await desk.mail(answer.json["id"])
    assert (mail.intake, mail.message_id, mail.open) == ("local", answer.json["message_id"], ("ada@x.example",))
    assert desk.kept == 1


@pytest.mark.parametrize("again", ["order-17", '"order-17"'])
async def test_under_one_key_it_is_accepted_once(desk: Desk, again: str) -> None:
    first, second = await desk.post(Idempotency_Key="order-17"), await desk.post(Idempotency_Key=again)
    assert (first.status, second.status) == (202, 202)
    assert second.json == first.json | {"repeated": True}
    other = await desk.post({**ENTRY, "text": "another"}, Idempotency_Key="order-17")
    assert (other.status, other.fields["content-type"]) == (409, "application/problem+json")
    assert await desk.waiting() == 1


async def test_the_key_of_the_header_is_the_key_of_the_entry(desk: Desk) -> None:
    first = await desk.post({**ENTRY, "key": "k"}, Idempotency_Key="k")
    second = await desk.post({**ENTRY, "key": "k"})
    assert second.json["id"] == first.json["id"]
    assert (await desk.post({**ENTRY, "key": "k"}, Idempotency_Key="other")).status == 400


@pytest.mark.parametrize("key", ["", '""', '"', "a b", 'a"b', "é", "x" * 201, '"a\\b"', "a\tb"])
async def test_a_key_that_is_none_is_refused(desk: Desk, key: str) -> None:
    assert (await desk.post(Idempotency_Key=key)).status == 400
    assert await desk.waiting() == 0


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"[" * 50_000, 400),
        ({**ENTRY, "unknown": 1}, 400),
        ({**ENTRY, "to": "a\nb"}, 400),
        ({**ENTRY, "reply_to": "nobody-knows-it"}, 400),
        ({**ENTRY, "identity": "sales"}, 403),
        ({**ENTRY, "department": "sales"}, 403),
        ({**ENTRY, "mailbox": "deals"}, 403),
        ({**ENTRY, "text": "x" * LARGEST}, 413),
    ],
)
async def test_what_cannot_be_sent_is_answered_with_the_reason_and_stops_nothing(
    desk: Desk, entry: object, status: int
) -> None:
    answer = await desk.post(entry)
    assert (answer.status, answer.json["status"]) == (status, status)
    assert answer.json["detail"]
    assert (await desk.post()).status == 202
    assert await desk.waiting() == 1


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100, 400),
        (b"POST /entries HTTP/1.1\r\n\r\n", 400),
        (b"POST /entries HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /entries HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST /entries HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999999999\r\n\r\n", 413),
        (b"POST /entries HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /entries HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /entries HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
         + b"ffff\r\n" + b"x" * 65535 + b"\r\n" + b"ffff\r\n" + b"x" * 65535 + b"\r\n"
         + b"ffff\r\n" + b"x" * 65535 + b"\r\n" + b"ffff\r\n" + b"x" * 65535 + b"\r\n", 413),
        (b"POST /entries HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"POST /entries HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n", 415),
        (b"POST /entries HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", 415),
        (b"GET /entries HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 404),
    ],
)  # fmt: skip
async def test_what_is_no_request_of_ours_is_refused_and_stops_nothing(desk: Desk, octets: bytes, status: int) -> None:
    answer = await desk.say(octets)
    assert answer is not None
    assert answer.status == status
    assert (await desk.post()).status == 202


async def test_a_request_in_chunks_and_one_with_the_whole_address_are_taken(desk: Desk) -> None:
    body = json.dumps(ENTRY).encode()
    chunks = b"".join(b"1\r\n" + body[at : at + 1] + b"\r\n" for at in range(len(body))) + b"0\r\n\r\n"
    head = b"POST http://localhost/entries?x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await desk.say(head + chunks)
    assert answer is not None
    assert answer.status == 202


async def test_an_entry_that_is_cut_is_not_accepted(desk: Desk) -> None:
    body = json.dumps(ENTRY).encode()
    head = f"POST /entries HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body) + 1}\r\n\r\n".encode()
    answer = await desk.say(head + body, half=True)
    assert answer is not None
    assert answer.status == 400
    assert await desk.waiting() == 0


async def test_who_waits_to_be_told_to_go_on_is_told_or_refused_before_he_sends(desk: Desk) -> None:
    body = json.dumps(ENTRY).encode()
    for length, first in ((len(body), b"HTTP/1.1 100"), (LARGEST + 1, b"HTTP/1.1 413")):
        reader, writer = await asyncio.open_unix_connection(str(desk.socket))
        expect = f"POST /entries HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        writer.write(expect.encode())
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(first)
        if length == len(body):
            writer.write(body)
            assert b"HTTP/1.1 202" in await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_whoever_sends_too_much_comes_to_the_answer_all_the_same(desk: Desk) -> None:
    import http.client

    class Local(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(desk.socket))

    def ask() -> int:
        asking = Local("localhost", timeout=20)
        asking.request("POST", "/entries", b"x" * 5_000_000, {"Content-Type": "application/json"})
        return asking.getresponse().status

    assert await asyncio.to_thread(ask) == 413


async def test_who_says_nothing_or_stops_in_the_middle_is_cut_off_and_keeps_nobody_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requesting, "HEAD_DEADLINE", timedelta(seconds=0.3))
    monkeypatch.setattr(requesting, "BODY_STALLS", timedelta(seconds=0.3))
    silent = [
        asyncio.create_task(desk.say(octets))
        for octets in (b"", b"POST /ent", b"POST /entries HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{") * 5
    ]
    assert (await desk.post()).status == 202
    answers = await asyncio.wait_for(asyncio.gather(*silent), 10)
    assert {one.status for one in answers if one is not None} == {408}


async def test_large_entries_of_one_user_come_one_after_the_other_and_small_ones_pass(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requesting, "BODY_STALLS", timedelta(seconds=1))
    large = asyncio.create_task(
        desk.say(b"POST /entries HTTP/1.1\r\nHost: a\r\nContent-Length: 150000\r\n\r\n" + b"x" * 1000)
    )
    await asyncio.sleep(0.1)
    waits = asyncio.create_task(desk.post({**ENTRY, "text": "word " * 20_000}))
    assert (await desk.post()).status == 202
    assert not waits.done()
    cut = await large
    assert cut is not None
    assert cut.status == 408
    assert (await waits).status == 202


async def test_a_user_with_too_many_connections_is_told_to_come_again(desk: Desk) -> None:
    silent = [await asyncio.open_unix_connection(str(desk.socket)) for _ in range(CONNECTIONS_EACH)]
    await asyncio.sleep(0.1)
    answer = await desk.post()
    assert (answer.status, answer.fields["retry-after"]) == (503, "1")
    for _, writer in silent:
        writer.close()
    await asyncio.sleep(0.1)
    assert (await desk.post()).status == 202


async def test_what_may_be_accepted_later_says_so(tmp_path: Path) -> None:
    async with Desk(tmp_path, max_size=3000).open() as desk:
        desk.ledger.fail("outbox_accept", times=1)
        down = await desk.post()
        assert (down.status, "retry-after" in down.fields) == (503, True)
        while (answer := await desk.post()).status == 202:
            pass
        assert (answer.status, "retry-after" in answer.fields) == (507, True)
        assert "outbox.max_size" in answer.json["detail"]
        assert (await desk.post({**ENTRY, "text": "word " * 1500})).status == 413


async def test_a_bug_is_told_without_its_words_and_stops_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    with monkeypatch.context() as patched:
        patched.setattr(desk.acceptance, "accept", broken)
        answer = await desk.post()
        assert (answer.status, "secret" in answer.json["detail"]) == (500, False)
    assert (await desk.post()).status == 202


async def test_an_answer_that_takes_too_long_says_to_repeat_under_the_key(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "TAKE_DEADLINE", timedelta(seconds=0.2))
    real = desk.ledger.outbox_accept

    async def slow(mail: Any) -> Any:
        kept = await real(mail)
        await asyncio.sleep(3)
        return kept

    with monkeypatch.context() as patched:
        patched.setattr(desk.ledger, "outbox_accept", slow)
        answer = await desk.post(Idempotency_Key="k")
        assert (answer.status, "same key" in answer.json["detail"]) == (503, True)
    assert (await desk.post(Idempotency_Key="k")).json["repeated"] is True
    assert await desk.waiting() == 1


async def test_what_was_asked_before_the_end_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path)
    real = desk.ledger.outbox_accept

    async def slow(mail: Any) -> Any:
        await asyncio.sleep(0.5)
        return await real(mail)

    monkeypatch.setattr(desk.ledger, "outbox_accept", slow)
    async with desk.open():
        asked = asyncio.create_task(desk.post())
        await asyncio.sleep(0.2)
    assert (await asked).status == 202
    assert not desk.socket.exists()


async def test_a_socket_that_somebody_removes_is_made_anew_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "STILL_THERE", timedelta(seconds=0.05))
    monkeypatch.setattr("mailpoller.engine.intake_reader.TROUBLE_S", 0.1)
    async with Desk(tmp_path).open() as desk:
        desk.socket.unlink()
        await until(desk.socket.exists)
        assert (await desk.post()).status == 202
    await desk.alarm.step()
    assert (await desk.ledger.faults("local"))[0].event == "intake.waiting"


async def test_a_place_that_cannot_be_had_is_told_and_holds_up_no_other_intake(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    (tmp_path / "taken").write_text("a file")
    other = HttpIntake(tmp_path / "taken", frozenset(), frozenset())
    desk.reader.sources = {"broken": other, "local": desk.source}
    with pytest.raises(TransientError, match="no socket"):
        await other.check()
    async with desk.open():
        assert (await desk.post()).status == 202
        await desk.alarm.step()
        assert await desk.alarm.standing(Kind.INTAKE_FAILING) == ["broken"]
    assert (tmp_path / "taken").read_text() == "a file"


ASKING = """
import os, pwd, socket, sys
nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)
wire = socket.socket(socket.AF_UNIX)
wire.connect(sys.argv[1])
body = b'{"to": "ada@x.example", "text": "Hello"}'
wire.sendall(b"POST /entries HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
print(wire.makefile("rb").readline().split()[1].decode())
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(
    ("users", "groups", "status"),
    [
        ({"nobody"}, set(), 202),
        ({"daemon"}, set(), 403),
        (set(), {"nogroup", "nobody"}, 202),
        (set(), {"daemon"}, 403),
        (set(), {"no-such-group"}, 403),
    ],
)
async def test_who_may_send_is_told_by_the_kernel(
    open_directory: Path, users: set[str], groups: set[str], status: int
) -> None:
    desk = Desk(open_directory)
    desk.source = HttpIntake(desk.socket, frozenset(users), frozenset(groups))
    desk.reader.sources = {"local": desk.source}
    async with desk.open():
        command = [sys.executable, "-c", ASKING, str(desk.socket)]
        asked = await asyncio.to_thread(
            lambda: subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        )
        assert asked.stdout.strip() == str(status), asked.stderr
        assert (await desk.post()).status == 202  # root always may


async def test_without_users_and_groups_the_socket_is_for_the_services_group(desk: Desk) -> None:
    assert desk.socket.stat().st_mode & 0o777 == 0o660
    assert desk.source._admitted(Peer(12345, 12345))


async def test_a_stranger_is_answered_before_he_is_heard(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk.source, "_users", frozenset({"nobody"}))
    monkeypatch.setattr(listening, "peer_of", lambda _: Peer(12345, 12345))
    answer = await desk.say(b"")
    assert answer is not None
    assert answer.status == 403


async def test_groups_that_cannot_be_looked_up_refuse_nobody_for_good(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setattr(listening, "LOOK_UP_DEADLINE", timedelta(seconds=0.1))
    monkeypatch.setattr(desk.source, "_admitted", lambda _: time.sleep(2))
    assert (await desk.post()).status == 503


def block(**keys: Any) -> HttpIntakeConfig:
    return HttpIntakeConfig.model_validate({"type": "http", "departments": ["root"], **keys})


def test_a_path_that_no_socket_can_have_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "intakes: {local: {type: http, departments: [root], socket: /" + "x" * 120 + "}}\n"
        "queues: {q: {type: jsonl, path: /tmp/q}}\n"
    )
    with pytest.raises(ConfigErrors, match="107 octets"):
        load(config)


async def test_who_may_send_and_is_unknown_here_is_told_by_check(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="no user ghost"):
        await HttpIntake(tmp_path / "s", frozenset({"ghost"}), frozenset()).check()
    with pytest.raises(TransientError, match="no group ghosts"):
        await HttpIntake(tmp_path / "s", frozenset(), frozenset({"ghosts"})).check()


async def test_an_intake_that_lacks_a_package_listens_once_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacks = True

    class Block(HttpIntakeConfig):
        def extras(self) -> Any:
            yield Extra("type", "no_such_module" if lacks else "json", "mailpoller[none]")

    monkeypatch.setattr("mailpoller.engine.intake_reader.TROUBLE_S", 0.05)
    monkeypatch.setattr("mailpoller.engine.intake_reader.LOOK_S", 0.05)
    desk = Desk(tmp_path)
    runtime = Runtime(desk.clock, Spool(tmp_path / "spool"), tmp_path)
    made = intake_source(
        Block.model_validate({"type": "http", "departments": ["root"], "socket": str(desk.socket)}), "local", runtime
    )
    assert made is not None
    with pytest.raises(TransientError, match="none"):
        await made.check()
    desk.reader.sources = {"local": made}
    stop = asyncio.Event()
    task = asyncio.create_task(desk.reader.run(stop))
    await asyncio.sleep(0.2)
    assert not desk.socket.exists()
    lacks = False
    await until(desk.socket.exists)
    assert (await desk.post()).status == 202
    stop.set()
    await asyncio.wait_for(task, 10)
