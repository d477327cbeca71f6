"""The queue that is another mailbox keeps the promises of the sink's port, against Dovecot."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Receipt, Refusal
from mailpoller.core.errors import TransientError
from mailpoller.core.ports import Durable, Sink
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sinks.imap import ImapQueueConfig
from mailpoller.testing.deliveries import make_delivery
from mailpoller.testing.sink_suite import SinkSuite
from servers.dovecot import Dovecot
from servers.proxy import FaultProxy
from servers.scripted import Conversation, ScriptedImap

_PORT = "MAILPOLLER_TEST_IMAP_PORT"


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    """One server for all tests, also for those of other processes."""
    with Dovecot() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_PORT, str(started.imap_port))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        yield started


def _user(directory: Path) -> str:
    return f"u{sha256(str(directory).encode()).hexdigest()[:16]}@example.com"


def queue(directory: Path, port: int, **more: Any) -> Any:
    block = ImapQueueConfig.model_validate(
        {
            "type": "imap",
            "host": "127.0.0.1",
            "port": port,
            "tls": "none",
            "username": _user(directory),
            "password": "env:MAILPOLLER_TEST_PASSWORD",
            **more,
        }
    )
    return block.build("archive", Runtime(SystemClock(), Spool(directory / "spool"), directory / "state"))


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILPOLLER_TEST_PASSWORD", "secret")


class TestImapQueue(SinkSuite):
    """Each directory is a user of one server. A repeat after a restart is looked for by our field. The server keeps
    messages with line ends of its own."""

    holds_events = False
    holds_octets = False
    fails_with_the_disk = False
    kills = 4
    server: Dovecot

    @pytest.fixture(autouse=True)
    def _server(self, server: Dovecot) -> None:
        self.server = server

    def make_sink(self, directory: Path) -> Sink:
        made: Sink = queue(directory, int(os.environ[_PORT]))
        return made

    def held(self, directory: Path) -> Sequence[str]:
        return _ids(self.server, _user(directory))


def _ids(server: Dovecot, user: str, folder: str = "INBOX") -> list[str]:
    found = (re.match(rb"X-Mailpoller-Delivery: (\S+?);?\s", one) for one in server.octets(user, folder).values())
    return [one[1].decode() for one in found if one is not None]


async def test_octets_are_below_one_field_and_date_and_flags_are_kept(server: Dovecot, tmp_path: Path) -> None:
    octets = b"From: ada@example.com\r\nSubject: \xe4\r\n\r\n.\r\n\xff\r\n" + b"y" * 998 + b"\r\n"
    server.create(_user(tmp_path), "Größe/Alt")
    sink = queue(tmp_path, server.imap_port, folder="Größe/Alt", flags=["\\Seen", "$Done"])
    order = make_delivery(1, octets)
    order = replace(order, raw=replace(order.raw, received=datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)))
    (answer,) = await sink.deliver([order])
    await sink.close()
    assert isinstance(answer, Receipt)
    assert answer.reference == "127.0.0.1 Größe/Alt 1"
    ((uid, held),) = server.octets(_user(tmp_path), "Größe/Alt").items()
    assert held == f"X-Mailpoller-Delivery: {order.delivery_id}\r\n".encode() + octets
    assert server.flags(_user(tmp_path), "Größe/Alt")[uid] == {"\\Seen", "$Done"}
    with server.client(_user(tmp_path)) as client:
        client.select('"Gr&APYA3w-e/Alt"')
        assert b"03-Feb-2020 04:05:06 +0000" in client.fetch("1", "(INTERNALDATE)")[1][0]  # type: ignore[operator]


async def test_what_is_there_is_not_put_there_twice_though_the_answer_was_lost(server: Dovecot, tmp_path: Path) -> None:
    async with FaultProxy(server.imap_port) as proxy:
        sink = queue(tmp_path, proxy.port, command_timeout="2s")
        batch = [make_delivery(number) for number in range(6)]
        await sink.deliver(batch[:1])
        task = asyncio.ensure_future(sink.deliver(batch[1:]))
        await asyncio.sleep(0.02)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await sink.close()
        again = queue(tmp_path, proxy.port)
        answers = await again.deliver(batch)
        await again.close()
    assert all(isinstance(one, Receipt) for one in answers)
    assert answers[0].repeated
    assert sorted(_ids(server, _user(tmp_path))) == sorted(one.delivery_id for one in batch)


async def test_what_a_person_removed_comes_a_second_time(server: Dovecot, tmp_path: Path) -> None:
    order = make_delivery(1)
    for _ in range(2):
        sink = queue(tmp_path, server.imap_port)
        (answer,) = await sink.deliver([order])
        await sink.close()
        assert isinstance(answer, Receipt) and not answer.repeated
        server.expunge(_user(tmp_path), "1:*")


async def test_a_folder_that_is_missing_is_the_queues_trouble_and_is_not_made(server: Dovecot, tmp_path: Path) -> None:
    sink = queue(tmp_path, server.imap_port, folder="Nowhere")
    for call in (sink.check(), sink.deliver([make_delivery(1)])):
        with pytest.raises(TransientError, match="there is no folder Nowhere"):
            await call
    assert "Nowhere" not in server.folders(_user(tmp_path))


async def test_a_check_logs_in_and_leaves_no_trace(server: Dovecot, tmp_path: Path) -> None:
    sink = queue(tmp_path, server.imap_port)
    await sink.check()
    await sink.close()
    assert _ids(server, _user(tmp_path)) == []
    assert not (tmp_path / "state").exists()
    assert isinstance(sink, Durable)
    assert sink.durability is not None and sink.durability.finding == "promised"


async def test_a_login_that_is_refused_is_not_tried_again_at_once(
    server: Dovecot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILPOLLER_TEST_PASSWORD", "wrong")
    sink = queue(tmp_path, server.imap_port)
    with pytest.raises(TransientError) as raised:
        await sink.deliver([make_delivery(1)])
    assert raised.value.retry_after is not None
    assert raised.value.retry_after.total_seconds() >= 600
    assert "wrong" not in str(raised.value)


# --- a server that says what it is told to ------------------------------------------------------------------------


class Answering(ScriptedImap):
    """Answers APPEND and SEARCH as it is told to."""

    def __init__(self, *answers: bytes, search: bytes = b"* SEARCH\r\n%T OK done\r\n") -> None:
        super().__init__({"APPEND": self._append, "SEARCH": self._search})
        self.answers = list(answers)
        self.search = search
        self.appended = 0

    async def _append(self, conversation: Conversation, tag: str, arguments: str) -> bytes | None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == b"cut":
            conversation.hang_up()
            return None
        size = int(re.findall(r"\{(\d+)\}", arguments)[0])
        if b"TRYCREATE" not in answer:
            conversation.say(b"+ go on\r\n")
            await conversation.reader.readexactly(size + 2)
            self.appended += 1
        return answer

    async def _search(self, conversation: Conversation, tag: str, arguments: str) -> bytes:
        return self.search


class Boasting(ScriptedImap):
    """Says that a message is there before it asked for it."""

    async def _append(self, conversation: Conversation, tag: str, arguments: str) -> bytes:
        return b"%T OK [APPENDUID 7 1] done\r\n"

    def __init__(self) -> None:
        super().__init__({"APPEND": self._append})


async def kinds(sink: Any, *orders: Any) -> str:
    """What becomes of each: + receipt, r refused for good, m and q put off, D the queue is down."""
    try:
        answers = await sink.deliver(orders)
    except TransientError:
        return "D"
    return "".join(
        "+" if isinstance(one, Receipt) else "r" if one.permanent else one.blame[0]
        for one in answers
        if isinstance(one, Receipt | Refusal)
    )


OK = b"%T OK done\r\n"


@pytest.mark.parametrize(
    ("answers", "first", "second"),
    [
        ((OK,), "++", "++"),
        ((b"%T NO [OVERQUOTA] full\r\n",), "D", "D"),
        ((b"%T NO [TRYCREATE] no such folder\r\n",), "D", "D"),
        ((b"%T NO [TOOBIG] too big\r\n", OK), "r+", "rr"),
        ((b"%T NO I do not like it\r\n", OK), "q+", "++"),
        ((b"%T NO I do not like it\r\n", OK, b"%T NO still not\r\n"), "q+", "m+"),
        ((b"cut", OK), "D", "++"),
    ],
    ids=["ok", "quota", "missing", "too-big", "passing", "always", "hangs-up"],
)
async def test_what_an_answer_means(answers: tuple[bytes, ...], first: str, second: str, tmp_path: Path) -> None:
    async with Answering(*answers) as server:
        sink = queue(tmp_path, server.port)
        batch = [make_delivery(1), make_delivery(2)]
        assert await kinds(sink, *batch) == first
        if second != "rr":
            assert await kinds(sink, *batch) == second
        await sink.close()


async def test_a_search_that_finds_what_cannot_be_there_is_not_believed(tmp_path: Path) -> None:
    batch = [make_delivery(1)]
    async with Answering(OK, search=b"* SEARCH 1 2 3\r\n%T OK done\r\n") as server:
        for _ in range(2):
            sink = queue(tmp_path, server.port)
            assert await kinds(sink, *batch) == "+"
            await sink.close()
        assert server.appended == 2


async def test_too_large_is_said_before_anybody_is_asked(tmp_path: Path) -> None:
    async with Answering(OK) as server:
        sink = queue(tmp_path, server.port, max_size=1000)
        (answer,) = await sink.deliver([make_delivery(1, b"x" * 2000)])
        assert isinstance(answer, Refusal)
        assert (answer.permanent, answer.unasked) == (True, True)
        assert "2,000" in answer.reason and "1,000" in answer.reason
        assert not server.conversations
        await sink.close()


async def test_a_server_that_freezes_is_the_queues_trouble_in_bounded_time(server: Dovecot, tmp_path: Path) -> None:
    async with FaultProxy(server.imap_port) as proxy:
        sink = queue(tmp_path, proxy.port, command_timeout="1s", connect_timeout="1s")
        await sink.deliver([make_delivery(1)])
        proxy.stall()
        async with asyncio.timeout(20):
            assert await kinds(sink, make_delivery(2)) == "D"
        await sink.close()


async def test_a_large_message_over_a_thin_line_is_not_given_up(tmp_path: Path) -> None:
    class Slow(Answering):
        async def _append(self, conversation: Conversation, tag: str, arguments: str) -> bytes:
            left = int(re.findall(r"\{(\d+)\}", arguments)[0]) + 2
            conversation.say(b"+ go on\r\n")
            while left:
                piece = await conversation.reader.read(min(left, 1 << 20))
                left -= len(piece)
                await asyncio.sleep(0.01)
            return OK

    async with Slow(OK) as server:
        sink = queue(tmp_path, server.port, command_timeout="2s")
        assert await kinds(sink, make_delivery(1, b"Subject: x\r\n\r\n" + b"y" * 40_000_000)) == "+"
        await sink.close()


async def test_an_ok_of_a_server_that_never_took_the_octets_is_no_receipt(tmp_path: Path) -> None:
    async with Boasting() as server:
        sink = queue(tmp_path, server.port)
        assert await kinds(sink, make_delivery(1)) == "D"
        await sink.close()
