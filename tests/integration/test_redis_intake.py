"""Entries in a stream of Redis: each is accepted once, and acknowledged when its answer can be read and not before."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.errors import LedgerUnavailable, TransientError
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.engine.intake_reader import IntakeReader
from mailpoller.engine.senders import Intake
from mailpoller.intakes.redis import RedisIntakeConfig
from servers.redis import RedisServer, missing
from unit.test_outbox import ENTRY, SENDERS, Site

redis = pytest.importorskip("redis", reason="the extra redis is not installed")
pytestmark = pytest.mark.skipif(bool(missing), reason=missing)

STREAM = "{mailpoller:shop}"


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with RedisServer() as started:
        yield started


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    running.ask("FLUSHALL")
    return running


class Stream(Site):
    """A site with an intake ``shop`` that is a stream."""

    def __init__(self, path: Path, server: RedisServer, ledger: Any = None, **more: Any) -> None:
        super().__init__(path, ledger)
        self.use(replace(SENDERS, intakes={**SENDERS.intakes, "shop": Intake("shop", ("root",), by_socket=False)}))
        self.server = server
        block = RedisIntakeConfig(
            type="redis", departments=["root"], host="127.0.0.1", port=server.port, tls="none", **more
        )
        self.source: Any = block.build(
            "shop", Runtime(SystemClock(), Spool(Path("/nonexistent")), Path("/nonexistent"))
        )
        self.reader = IntakeReader(self.acceptance, {"shop": self.source}, self.alarm, largest=10_000)
        self.client = redis.Redis(port=server.port)
        self.ids: list[str] = []

    async def step(self) -> bool:
        return await self.reader.step("shop", self.source)

    async def through(self) -> None:
        while await self.step():
            pass

    def add(self, *bodies: object, field: str = "body", id: str = "*") -> None:
        for one in bodies:
            value = one if isinstance(one, str | bytes) else json.dumps(one)
            self.ids.append(self.client.xadd(STREAM, {field: value}, id=id).decode())

    def answers(self) -> list[dict[str, str]]:
        found = [self.client.hgetall(f"{STREAM}:answer:{id}") for id in self.ids]
        return [{key.decode(): value.decode() for key, value in one.items()} for one in found]

    def states(self) -> list[str]:
        return [one.get("state", "") for one in self.answers()]

    def left(self) -> tuple[int, int]:
        """Entries in the stream, and those of them that somebody has in hand."""
        return self.client.xlen(STREAM), self.client.xpending(STREAM, "mailpoller")["pending"]

    async def mails(self) -> int:
        return len(await self.ledger.outbox_list(limit=1000))

    async def close(self) -> None:
        await self.source.close()
        self.client.close()


@pytest.fixture
async def stream(server: RedisServer, tmp_path: Path) -> AsyncIterator[Stream]:
    made = Stream(tmp_path, server)
    yield made
    await made.close()


async def test_entries_are_answered_beside_the_stream_and_what_is_malformed_stops_nothing(stream: Stream) -> None:
    await stream.source.check()
    assert stream.client.keys("*") == []
    stream.add("{", "[]", "x" * 20_000, b"\xff", "", {**ENTRY, "to": "a\nb"}, {**ENTRY, "identity": "sales"})
    stream.add(ENTRY, field="other")
    stream.add(ENTRY, ENTRY)
    await stream.through()
    assert stream.states() == ["refused"] * 8 + ["accepted"] * 2
    assert all(one["reason"] for one in stream.answers()[:8])
    assert "outbox.max_mail" in stream.answers()[2]["reason"]
    assert (await stream.mail(stream.answers()[8]["mail"])).open == ("ada@x.example",)
    assert stream.left() == (0, 0)
    assert 0 < stream.client.ttl(f"{STREAM}:answer:{stream.ids[8]}") <= 7 * 86400


async def test_killed_between_acceptance_and_acknowledgement_an_entry_is_sent_once(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.add(ENTRY, {**ENTRY, "key": "k"})

    async def lost(answers: object) -> None:
        raise TransientError("killed")

    monkeypatch.setattr(stream.source, "answer", lost)
    with pytest.raises(TransientError):
        await stream.step()
    assert stream.left() == (2, 2)
    again = Stream(stream.path, stream.server, stream.ledger.restarted())
    await again.through()
    await again.close()
    assert stream.states() == ["accepted"] * 2
    assert await again.mails() == 2
    assert stream.left() == (0, 0)


async def test_nothing_is_acknowledged_that_the_ledger_did_not_commit(stream: Stream) -> None:
    stream.add(ENTRY)
    stream.ledger.fail("outbox_accept", times=1)
    with pytest.raises(LedgerUnavailable):
        await stream.step()
    assert stream.left() == (1, 1)
    assert stream.states() == [""]
    await stream.through()
    assert stream.states() == ["accepted"]


async def test_what_a_dead_consumer_had_in_hand_is_taken_over(stream: Stream, server: RedisServer) -> None:
    stream.add(ENTRY, ENTRY, ENTRY)
    stream.client.xgroup_create(STREAM, "mailpoller", id="0")
    stream.client.xreadgroup("mailpoller", "another-host", {STREAM: ">"}, count=2)
    await stream.through()
    assert stream.states() == ["", "", "accepted"], "it may live"
    after = Stream(stream.path, server, stream.ledger, reclaim=timedelta(milliseconds=1))
    await after.through()
    await after.close()
    assert stream.states() == ["accepted"] * 3


async def test_what_waits_for_itself_is_passed_over_and_comes_again(stream: Stream) -> None:
    stream.add(*[ENTRY] * 5)
    first = await stream.source.waiting(limit=2, largest=10_000)
    but = [one.number for one in first]
    assert [one.number for one in await stream.source.waiting(limit=2, largest=10_000)] == but
    others = await stream.source.waiting(limit=9, largest=10_000, but=but)
    assert len(others) == 3
    assert not {one.number for one in others} & set(but)


async def test_many_large_entries_are_never_read_together(stream: Stream) -> None:
    stream.add(*[{**ENTRY, "text": "x" * 1_500_000}] * 6)
    read = [len(one.octets or b"") for one in await stream.source.waiting(limit=50, largest=2_000_000)]
    assert 1_500_000 < sum(read) < 5_000_000
    reader = IntakeReader(stream.acceptance, {}, stream.alarm, largest=2_000_000)
    while await reader.step("shop", stream.source):
        pass
    assert stream.states() == ["accepted"] * 6


async def test_a_stream_that_was_begun_anew_has_entries_of_its_own(stream: Stream, server: RedisServer) -> None:
    stream.add(ENTRY, id="7-1")
    await stream.through()
    server.ask("FLUSHALL")
    stream.add({**ENTRY, "text": "another"}, id="7-1")
    await stream.through()
    assert stream.states()[1] == "accepted"
    assert await stream.mails() == 2


async def test_an_entry_that_its_program_took_back_is_nobodys(stream: Stream) -> None:
    stream.add(ENTRY, ENTRY)
    await stream.source.waiting(limit=9, largest=10_000)
    stream.client.xdel(STREAM, stream.ids[0])
    await stream.through()
    assert stream.states() == ["", "accepted"]
    assert stream.left() == (0, 0)


async def test_a_key_that_is_something_else_is_told(stream: Stream) -> None:
    stream.client.set(STREAM, "x")
    with pytest.raises(TransientError, match="no stream"):
        await stream.source.check()
    with pytest.raises(TransientError, match="WRONGTYPE"):
        await stream.step()


async def test_a_server_killed_and_back_costs_time_and_no_entry(tmp_path: Path) -> None:
    with RedisServer() as own:
        stream = Stream(tmp_path, own, timeout=timedelta(seconds=2))
        stream.add(*[ENTRY] * 60)
        assert await stream.step()
        own.kill()
        for call in (stream.step(), stream.source.check()):
            with pytest.raises(TransientError, match=r"redis 127\.0\.0\.1"):
                await call
        own.start()
        await stream.through()
        assert set(stream.states()) == {"accepted"}
        assert await stream.mails() == 60
        await stream.close()


async def test_rights_that_are_lacking_are_told_and_those_of_the_docs_are_enough(
    stream: Stream, server: RedisServer
) -> None:
    said = Path("docs/outgoing.md").read_text("utf-8")
    (line,) = [one for one in said.splitlines() if one.startswith("ACL SETUSER mailpoller")]
    server.ask(*line.replace("hunter2", "secret-of-a-test").split())
    allowed = Stream(stream.path, server, stream.ledger, username="mailpoller", password="secret-of-a-test")
    stream.add(ENTRY)
    await allowed.source.check()
    await allowed.through()
    assert stream.states() == ["accepted"]
    server.ask("ACL", "SETUSER", "mailpoller", "-xack")
    stream.add(ENTRY)
    with pytest.raises(TransientError, match="refuses us"):
        await allowed.step()
    await allowed.close()
    assert stream.left() == (1, 1)
    await stream.through()
    assert await stream.mails() == 2
