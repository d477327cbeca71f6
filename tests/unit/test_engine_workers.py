"""A suspect's body is read in a worker: one that kills or hangs it costs its own message the body, and nobody anything
else."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import timedelta
from typing import Any

from mailpoller.core.body import Body
from mailpoller.core.message import RawMessage
from mailpoller.mail.parser import parse
from mailpoller.workers.pool import NoWorker, Unread
from unit.engine_rig import Rig
from waiting import until


class FakeWorkers:
    """Reads at once, but for what it is told to fail at."""

    def __init__(self) -> None:
        self.trouble: dict[bytes, Exception] = {}
        self.of_headers: dict[bytes, Exception] = {}
        self.asked: list[str] = []

    async def read(self, raw: RawMessage, *, header: bool = False) -> Body:
        if not header:
            self.asked.append(raw.claim.ref.uid)
        for word, error in (self.of_headers if header else self.trouble).items():
            if word in bytes(raw.octets.view()):
                raise error
        return parse(raw).body


async def died_with(count: int) -> tuple[Rig, FakeWorkers, Counter[str]]:
    """The successor of a process that died with so many messages in hand, the last of which is called ``bad 0``."""
    rig = Rig()
    expected = rig.fill(count - 1) + rig.fill(1, "bad", text="harm")
    rig.sinks["support"].faults.hang("deliver")
    carrying = asyncio.create_task(rig.carry())
    await until(lambda: rig.sinks["support"].batches)
    again = Rig(ledger=rig.ledger.restarted())
    again.ledger._clock = again.clock
    again.mailbox = again.source.mailbox = rig.mailbox
    carrying.cancel()
    await asyncio.wait([carrying])
    again.queues["support"].payload = "parsed"
    workers = FakeWorkers()
    again.judge._workers = workers  # type: ignore[assignment]
    return again, workers, expected


def events(rig: Rig) -> dict[str, Any]:
    told = [json.loads(held.event)["data"] for held in rig.sinks["support"].held.values()]
    return {data["subject"]: data for data in told}


async def test_a_body_that_cannot_be_read_is_left_out_and_said() -> None:
    rig, workers, expected = await died_with(4)
    workers.trouble[b"harm"] = Unread("timed-out")
    expected += rig.fill(2, "later")
    async with rig.running():
        await until(lambda: rig.subjects() == expected)
    told = events(rig)
    assert told["bad 0"]["undone"] == [{"what": "body", "why": "timed-out"}]
    assert told["bad 0"]["text"] == ""
    assert told["message 0"]["text"]
    assert told["message 0"]["undone"] == []
    assert sorted(workers.asked) == ["1", "2", "3", "4"]  # and nobody else: what is no suspect is read here
    assert not rig.sinks["quarantine"].held


async def test_a_worker_that_cannot_be_begun_is_not_counted_against_the_message() -> None:
    rig, workers, expected = await died_with(3)
    workers.trouble[b"harm"] = NoWorker("no process can be begun")
    async with rig.running():
        await until(lambda: rig.subjects() == expected - Counter({"bad 0": 1}))
        waiting = "SELECT attempts, reason, strikes FROM message WHERE state <> 'settled' AND due_at IS NOT NULL"
        found = rig.ledger.store.connection.execute
        await until(lambda: found(waiting).fetchall() == [(0, "no process can be begun", 0)])
        workers.trouble.clear()
        rig.clock.ahead = timedelta(minutes=2)
        await until(lambda: rig.subjects() == expected)


async def test_a_header_that_nobody_can_parse_is_parsed_by_nobody_else() -> None:
    rig, workers, expected = await died_with(3)
    workers.trouble[b"harm"] = workers.of_headers[b"harm"] = Unread("died")
    async with rig.running():
        await until(lambda: rig.sinks["quarantine"].held and rig.subjects() == expected - Counter({"bad 0": 1}))
    (held,) = rig.sinks["quarantine"].held.values()
    assert (held.reason, held.detail) == ("poison", "whatever parses it dies of it; it was not parsed here")
    assert json.loads(held.event)["data"]["defects"] == ["unparsed"]


async def test_a_suspect_that_hangs_its_worker_delays_no_other_mailbox() -> None:
    rig, workers, expected = await died_with(2)
    hanging, turns = asyncio.Event(), rig.fleet.shares.judging

    async def read(raw: RawMessage, *, header: bool = False) -> Body:
        hanging.set()
        await asyncio.sleep(0.2)
        return parse(raw).body

    workers.read = read  # type: ignore[method-assign]
    async with rig.running():
        await hanging.wait()
        async with asyncio.timeout(0.1), turns.turn("other"):
            pass
        await until(lambda: rig.subjects() == expected)
