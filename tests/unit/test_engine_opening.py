"""What takes a reader of its own is opened by a worker, and that costs nobody else a moment or a mail."""

from __future__ import annotations

import asyncio
import gzip
import json
from base64 import encodebytes
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailpoller.core.body import Body, Contents
from mailpoller.core.message import RawMessage
from mailpoller.engine import opening
from mailpoller.mail.contents import reader
from mailpoller.mail.contents.reader import read_contents
from mailpoller.mail.parser import parse
from mailpoller.workers.pool import NoWorker, Unread
from unit.engine_rig import Rig
from waiting import until

REPORT = gzip.compress(
    b"<feedback><report_metadata><org_name>Example</org_name></report_metadata></feedback>"
)  # fmt: skip


def report(subject: str) -> bytes:
    return (
        f"From: a@example.net\r\nSubject: {subject}\r\nMessage-ID: <{subject}>\r\n"
        'Content-Type: application/gzip; name="a!b!1772323200!1772409600.xml.gz"\r\n'
        "Content-Transfer-Encoding: base64\r\n\r\n"
    ).encode() + encodebytes(REPORT)


class FakeWorkers:
    """Opens at once, but for what it is told to fail at."""

    def __init__(self) -> None:
        self.trouble: dict[str, Exception] = {}
        self.opened: list[tuple[str, Sequence[str]]] = []
        self.gate: asyncio.Event | None = None

    async def open(self, raw: RawMessage, closed: Sequence[str]) -> Contents:
        message = parse(raw)
        self.opened.append((message.subject, closed))
        if self.gate is not None:
            await self.gate.wait()
        if message.subject in self.trouble:
            raise self.trouble[message.subject]
        return read_contents(message, closed)

    async def read(self, raw: RawMessage, *, header: bool = False) -> Body:
        return parse(raw).body


def rig(*reports: str) -> tuple[Rig, FakeWorkers]:
    made = Rig()
    made.queues["support"].payload = "parsed"
    made.fill(1)
    for subject in reports:
        made.mailbox.deliver(report(subject))
    made.fill(1, "last")
    workers = FakeWorkers()
    made.judge._workers = workers  # type: ignore[assignment]
    made.judge._bodies_wanted = True
    return made, workers


def events(made: Rig) -> dict[str, Any]:
    told = [json.loads(held.event)["data"] for held in made.sinks["support"].held.values()]
    return {data["subject"]: data for data in told}


async def test_only_what_is_closed_goes_to_a_worker_and_the_order_stays() -> None:
    made, workers = rig("r0", "r1")
    await made.carry()
    told = events(made)
    assert workers.opened == [("r0", ("report",)), ("r1", ("report",))]
    assert list(told) == ["message 0", "r0", "r1", "last 0"]
    assert told["r0"]["report"]["organization"] == "Example"
    assert told["message 0"]["report"] is None


@pytest.mark.parametrize("why", ["timed-out", "died", "out-of-memory", "too-deep"])
async def test_what_a_worker_does_not_survive_is_delivered_without_it(why: str) -> None:
    made, workers = rig("r0", "r1")
    workers.trouble["r0"] = Unread(why)
    await made.carry()
    told = events(made)
    assert told["r0"]["undone"] == [{"what": "report", "why": why}]
    assert (told["r0"]["report"], told["r0"]["attachments"][0]["name"]) == (None, "a!b!1772323200!1772409600.xml.gz")
    assert told["r0"]["classification"]["class"] == "report"
    assert told["r1"]["report"]
    assert not made.sinks["quarantine"].held


async def test_mail_waits_for_a_worker_that_cannot_be_begun_and_nothing_is_counted() -> None:
    made, workers = rig("r0", "r1")
    workers.trouble["r0"] = NoWorker("no process can be begun")
    await made.carry()
    assert set(events(made)) == {"message 0", "r1", "last 0"}
    waiting = "SELECT attempts, reason, strikes FROM message WHERE state <> 'settled' AND due_at IS NOT NULL"
    assert made.ledger.store.connection.execute(waiting).fetchall() == [(0, "no process can be begun", 0)]
    workers.trouble.clear()
    made.clock.ahead = timedelta(minutes=2)
    await made.carry()
    assert events(made)["r0"]["report"]


async def test_mails_behind_those_that_take_too_long_wait_and_are_not_called_harmful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, _ = rig("r0")
    monkeypatch.setattr(opening, "OPENING", timedelta(seconds=-1))
    await made.carry()
    assert set(events(made)) == {"message 0", "last 0"}
    monkeypatch.setattr(opening, "OPENING", timedelta(seconds=30))
    made.clock.ahead = timedelta(minutes=2)
    await made.carry()
    assert events(made)["r0"]["undone"] == []


async def test_no_other_mailbox_waits_for_its_turn_while_one_has_its_mail_opened() -> None:
    made, workers = rig("r0")
    workers.gate = asyncio.Event()
    turns = made.fleet.shares.judging
    async with made.running():
        await until(lambda: workers.opened)
        async with asyncio.timeout(0.2), turns.alone("other"):
            pass
        workers.gate.set()
        await until(lambda: made.subjects() == Counter(["message 0", "r0", "last 0"]))


async def test_without_workers_it_is_opened_here() -> None:
    made, _ = rig("r0")
    made.judge._workers = None
    await made.carry()
    assert events(made)["r0"]["report"]["organization"] == "Example"


async def test_nothing_is_opened_where_no_body_is_wanted() -> None:
    made, workers = rig("r0")
    made.judge._bodies_wanted = False
    await made.carry()
    assert workers.opened == []


async def test_bug_of_a_reader_costs_its_own_part_alone_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a piece of the mail")

    monkeypatch.setattr(reader, "read_report", broken)
    made, _ = rig("r0")
    with capture_logs() as logs:
        await made.carry()
    assert events(made)["r0"]["undone"] == [{"what": "report", "why": "failed"}]
    (told,) = [line for line in logs if line["event"] == "message.unopenable"]
    assert told["what"] == "report"
    assert "a piece" not in str(told)
