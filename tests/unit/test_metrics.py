"""Figures for monitoring: what they say, that the page about them is true, and that asking costs nobody anything."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_rig import Rig, log  # noqa: F401
from pydantic import ValidationError

from mailpoller.config.model import MetricsConfig
from mailpoller.core.errors import LedgerUnavailable, TransientError
from mailpoller.core.ports import Depth
from mailpoller.engine import metrics as engine_metrics
from mailpoller.engine.connections import Connections
from mailpoller.engine.health import Condition
from mailpoller.engine.histogram import Histogram
from mailpoller.engine.metrics import FAMILIES, PIECE, Metrics
from mailpoller.engine.operations import Operations
from mailpoller.monitoring import pages
from mailpoller.wire.http import server

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
SAMPLE = re.compile(r'([a-z_]+)(?:\{([a-z_]+="(?:[^"\\\n]|\\.)*"(?:,[a-z_]+="(?:[^"\\\n]|\\.)*")*)\})? (\S+)')


def metrics_of(rig: Rig, **more: Any) -> Metrics:
    return Metrics(
        rig.health,
        lambda: list(rig.queues.values()),
        {rig.name: rig.watcher},
        rig.ledger,
        rig.clock,
        budget=rig.fleet.shares.budget,
        memory=1000,
        connections=Connections(rig.clock),
        alarms=rig.alarm.count,
        **more,
    )


async def text_of(metrics: Metrics) -> str:
    return "".join([piece.decode() async for piece in metrics.text()])


def samples(text: str) -> dict[str, float]:
    """``name{labels}`` -> value; each line is one that a scraper understands."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            found[line.rpartition(" ")[0]] = float(match[3])
    return found


async def test_figures_say_what_became_of_mail() -> None:
    rig = Rig()
    rig.fill(3)
    await rig.carry()
    rig.health.polled(rig.name)
    rig.queues["support"].upkeep.depth = Depth(2, 1, rig.clock.now() - timedelta(minutes=2))
    said = samples(await text_of(metrics_of(rig)))
    assert said['mailpoller_mailbox_messages_total{mailbox="support",kind="delivered"}'] == 3
    assert said['mailpoller_mailbox_bytes_total{mailbox="support"}'] > 0
    assert said['mailpoller_queue_receipts_total{queue="support"}'] == 3
    assert said['mailpoller_queue_latency_seconds_count{queue="support"}'] == 3
    assert said['mailpoller_queue_latency_seconds_bucket{queue="support",le="+Inf"}'] == 3
    assert said['mailpoller_queue_depth_messages{queue="support",kind="ready"}'] == 2
    assert said['mailpoller_queue_oldest_seconds{queue="support"}'] == pytest.approx(120, abs=5)
    assert said['mailpoller_mailbox_backlog_messages{mailbox="support"}'] == 0
    assert said["mailpoller_ledger_up"] == 1
    (up,) = [value for name, value in said.items() if name.startswith("mailpoller_mailbox_up{")]
    assert up == 1


async def test_what_waits_is_counted_and_its_age_told() -> None:
    rig = Rig()
    rig.fill(2)
    rig.sinks["support"].faults.fail("deliver", TransientError("down"), times=1000)
    await rig.watcher.drain()
    rig.later(hours=2)
    said = samples(await text_of(metrics_of(rig)))
    assert said['mailpoller_mailbox_backlog_messages{mailbox="support"}'] == 2
    assert said['mailpoller_mailbox_open_messages{mailbox="support",kind="deferred"}'] == 2
    assert said['mailpoller_mailbox_oldest_waiting_seconds{mailbox="support"}'] >= 7200
    assert said['mailpoller_queue_up{queue="support"}'] == 0
    assert said['mailpoller_queue_failures_total{queue="support"}'] >= 1
    assert said['mailpoller_alarms{kind="queue-failing"}'] == 1


@pytest.mark.parametrize("condition", [Condition.REFUSED, Condition.HELD, Condition.CONNECTING])
async def test_a_mailbox_is_up_only_once_it_was_polled_and_nobody_has_to_look(condition: Condition) -> None:
    rig = Rig()
    rig.health.enter(rig.name, condition)
    if condition is not Condition.CONNECTING:
        rig.health.polled(rig.name)
    said = samples(await text_of(metrics_of(rig)))
    (up,) = [value for name, value in said.items() if name.startswith("mailpoller_mailbox_up{")]
    assert up == 0


async def test_ledger_that_cannot_be_read_is_said_and_leaves_no_figure_that_looks_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_metrics, "LEAST_REST_S", 0.01)
    monkeypatch.setattr(engine_metrics, "REST", 0)
    rig = Rig()
    rig.ledger.fail("standings", LedgerUnavailable("disk I/O error"))
    metrics = metrics_of(rig)
    said = samples(await text_of(metrics))
    assert said["mailpoller_ledger_up"] == 0
    assert not any("backlog" in name for name in said)
    await asyncio.sleep(0.05)
    assert samples(await text_of(metrics))["mailpoller_ledger_up"] == 1


async def test_ledger_is_asked_seldom_however_often_somebody_scrapes() -> None:
    rig = Rig()
    metrics = metrics_of(rig)
    asked = 0
    ask = metrics._told

    async def counted() -> Any:
        nonlocal asked
        asked += 1
        return await ask()

    metrics._told = counted  # type: ignore[method-assign]
    await asyncio.gather(*(text_of(metrics) for _ in range(20)))
    assert asked == 1
    metrics._ask_again_at -= engine_metrics.LEAST_REST_S + engine_metrics.REST * 5
    await text_of(metrics)
    assert asked == 2


async def test_thousand_mailboxes_are_written_in_pieces_between_which_mail_goes_on() -> None:
    rig = Rig()
    for number in range(1000):
        rig.health.register(f"box-{number}", timedelta(minutes=1))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    metrics = metrics_of(rig)
    await text_of(metrics)
    task = asyncio.create_task(others())
    pieces = [piece async for piece in metrics.text()]
    task.cancel()
    assert max(piece.count(b"\n") for piece in pieces) <= PIECE + 2
    assert turns >= len(pieces) - 1 > 20


async def test_names_with_quotes_and_lines_do_not_break_the_format() -> None:
    rig = Rig()
    rig.health.register('a"b\\c\nd', timedelta(minutes=1))
    said = samples(await text_of(metrics_of(rig)))
    assert 'mailpoller_mailbox_polls_total{mailbox="a\\"b\\\\c\\nd"}' in said


def test_histogram_counts_each_duration_at_every_bound_above_it() -> None:
    histogram = Histogram((1.0, 10.0))
    for seconds in (-5.0, 1.0, 1.5, 100.0):
        histogram.add(seconds)
    assert list(histogram.cumulated()) == [(1.0, 2), (10.0, 3), (float("inf"), 4)]
    assert (histogram.count, histogram.total) == (4, 102.5)


async def test_page_about_metrics_is_true() -> None:
    rows = re.findall(r"^\| `(mailpoller_\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [(name, kind, what) for name, kind, _, what in rows] == [
        (family.name, family.type, family.help) for family in FAMILIES
    ]
    labels = {name: set(re.findall(r"`(\w+)`", told)) for name, _, told, _ in rows}
    assert set().union(*labels.values()) == {"mailbox", "queue", "host", "kind", "le"}
    rig = Rig()
    rig.fill(1)
    await rig.carry()
    rig.health.mailboxes[rig.name].failures["mailbox-down"] += 1
    rig.queues["support"].upkeep.depth = Depth(1, 0, rig.clock.now())
    for name in await_names(await text_of(metrics_of(rig))):
        family = re.sub(r"_(bucket|sum|count)$", "", name[0]) if name[0] not in labels else name[0]
        assert name[1] <= labels[family], name
    for family in FAMILIES:
        assert family.name.endswith("_total") == (family.type == "counter")


def await_names(text: str) -> list[tuple[str, set[str]]]:
    """Name and labels of each sample."""
    return [
        (match[1], set(re.findall(r'([a-z_]+)="', match[2] or "")))
        for line in text.splitlines()
        if (match := SAMPLE.fullmatch(line))
    ]


# --- over HTTP -----------------------------------------------------------------------------------------------------
@asynccontextmanager
async def served(tmp_path: Path, rig: Rig, report: Callable[[], Awaitable[Any]] | None = None) -> AsyncIterator[Path]:
    config = MetricsConfig(socket=tmp_path / "metrics.sock")
    operations = Operations(rig.ledger, rig.health, rig.queues, {}, alarm=rig.alarm)
    ended = asyncio.Event()
    asking = report or (lambda: operations.status({"counts": False}))
    serving = asyncio.create_task(pages.serve(config, metrics_of(rig), asking, ended))
    while not (tmp_path / "metrics.sock").exists():
        await asyncio.sleep(0.01)
    yield tmp_path / "metrics.sock"
    ended.set()
    await serving
    assert not (tmp_path / "metrics.sock").exists()


async def said_to(path: Path, request: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request)
    try:
        answer = await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        answer = b""
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def test_pages_tell_health_and_figures(tmp_path: Path) -> None:
    rig = Rig()
    async with served(tmp_path, rig) as path:
        assert path.stat().st_mode & 0o777 == 0o660
        status, body = await said_to(path, get("/metrics"))
        assert status == 200
        assert b"mailpoller_ledger_up 1\n" in body
        assert (await said_to(path, get("/healthz")))[0] == 200
        assert (await said_to(path, get("/readyz")))[0] == 503, "nothing was polled yet"
        rig.health.polled(rig.name)
        rig.health.enter(rig.name, Condition.WAITING)
        assert (await said_to(path, get("/readyz?verbose")))[0] == 200
        rig.health.enter(rig.name, Condition.REFUSED, "wrong password")
        status, body = await said_to(path, get("/readyz"))
        assert status == 503
        assert b"CRITICAL: mailbox support: refused: wrong password" in body
        rig.ledger.fail("alarms", times=2)
        assert (await said_to(path, get("/healthz")))[0] == 503
        assert (await said_to(path, get("/else")))[0] == 404
        assert (await said_to(path, get("/metrics", "POST")))[0] == 405
        status, body = await said_to(path, get("/metrics", "HEAD"))
        assert (status, body) == (200, b"")


async def test_requests_are_bounded_and_cost_nobody_else_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    monkeypatch.setattr(server, "REQUEST_DEADLINE", timedelta(seconds=0.3))
    async with served(tmp_path, rig) as path:
        assert (await said_to(path, b"nonsense\r\n\r\n"))[0] == 400
        assert (await said_to(path, b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n"))[0] in (0, 400, 431)
        silent = [await asyncio.open_unix_connection(str(path)) for _ in range(server.CONNECTIONS)]
        assert await said_to(path, get("/healthz")) == (0, b"")
        began = time.monotonic()
        for reader, writer in silent:
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        assert time.monotonic() - began < 3
        assert (await said_to(path, get("/healthz")))[0] == 200


async def test_who_does_not_take_the_figures_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    for number in range(3000):
        rig.health.register(f"box-{number}", timedelta(minutes=1))
    monkeypatch.setattr(server, "ANSWER_DEADLINE", timedelta(seconds=0.5))
    async with served(tmp_path, rig) as path:
        with socket.socket(socket.AF_UNIX) as wire:
            wire.connect(str(path))
            wire.sendall(get("/metrics"))
            await asyncio.sleep(1)
            wire.settimeout(5)
            taken = b""
            try:
                while chunk := await asyncio.to_thread(wire.recv, 1 << 16):
                    taken += chunk
            except ConnectionError:
                pass
        assert not taken.endswith(b"0\r\n\r\n")


async def test_address_that_is_taken_costs_the_figures_alone(tmp_path: Path, log: Any) -> None:  # noqa: F811
    (tmp_path / "file").write_text("")
    ended = asyncio.Event()
    config = MetricsConfig(socket=tmp_path / "file")
    serving = asyncio.create_task(pages.serve(config, metrics_of(Rig()), dict, ended))  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    assert not serving.done()
    assert [line["event"] for line in log if line["event"].startswith("metrics")] == ["metrics.unavailable"]
    ended.set()
    await asyncio.wait_for(serving, 1)
    assert (tmp_path / "file").exists()


def test_metrics_want_an_address() -> None:
    with pytest.raises(ValidationError, match="socket or port has to be there"):
        MetricsConfig()
