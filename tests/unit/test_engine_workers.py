"""A body that kills or hangs its reader costs its own message the body, and nobody anything else."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from mailpoller.core.message import Body, RawMessage
from mailpoller.engine import judge as judging
from mailpoller.mail.parser import Reading, read
from mailpoller.workers.pool import NoWorker, Unread
from unit.engine_rig import Rig
from waiting import until


class FakeWorkers:
    """Reads at once, but for what it is told to fail at."""

    def __init__(self) -> None:
        self.trouble: dict[bytes, Exception] = {}
        self.asked: list[str] = []

    async def read(self, raw: RawMessage, reading: Reading) -> Body:
        octets = bytes(raw.octets.view())
        self.asked.append(raw.claim.ref.uid)
        for word, error in self.trouble.items():
            if word in octets:
                raise error
        return read(octets, reading)


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(judging, "LARGE", 5_000)
    found = Rig()
    found.judge._workers = FakeWorkers()  # type: ignore[assignment]
    found.queues["support"].payload = "parsed"
    return found


def workers_of(rig: Rig) -> FakeWorkers:
    found = rig.judge._workers
    assert isinstance(found, FakeWorkers)
    return found


def events(rig: Rig) -> dict[str, Any]:
    told = [json.loads(held.event)["data"] for held in rig.sinks["support"].held.values()]
    return {data["subject"]: data for data in told}


async def test_a_body_that_cannot_be_read_is_left_out_and_said(rig: Rig) -> None:
    expected = rig.fill(3) + rig.fill(1, "bad", text="hangs " * 2000) + rig.fill(1, "large", text="fine " * 2000)
    workers_of(rig).trouble[b"hangs"] = Unread("timed-out")
    async with rig.running():
        await until(lambda: rig.subjects() == expected)
    told = events(rig)
    assert told["bad 0"]["undone"] == [{"what": "body", "why": "timed-out"}]
    assert told["bad 0"]["text"] == ""
    assert told["large 0"]["undone"] == []
    assert told["large 0"]["text"].startswith("fine")
    assert told["message 0"]["text"]


async def test_small_mail_never_goes_to_a_worker(rig: Rig) -> None:
    expected = rig.fill(20)
    async with rig.running():
        await until(lambda: rig.subjects() == expected)
    assert not workers_of(rig).asked


async def test_a_worker_that_cannot_be_begun_is_not_counted_against_the_message(rig: Rig) -> None:
    expected = rig.fill(3)
    rig.fill(1, "waits", text="fine " * 2000)
    workers_of(rig).trouble[b"fine"] = NoWorker("no process can be begun")
    async with rig.running():
        await until(lambda: rig.subjects() == expected and len(workers_of(rig).asked) >= 1)
        rows = rig.ledger.store.connection.execute(
            "SELECT attempts, reason FROM message WHERE state = 'deferred'"
        ).fetchall()
        assert rows == [(0, "no process can be begun")]
        workers_of(rig).trouble.clear()
        rig.clock.ahead = timedelta(minutes=1)
        await until(lambda: rig.subjects() == expected + Counter({"waits 0": 1}))
