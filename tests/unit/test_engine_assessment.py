"""What a report of `status` comes to for a monitor."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mailpoller.engine.assessment import Level, assess

NOW = datetime(2026, 11, 4, 12, 0, tzinfo=UTC)


def box(name: str = "support", **changes: Any) -> dict[str, Any]:
    known = {"mailbox": name, "condition": "waiting", "reason": "", "behind": False}
    return known | {"last_poll_at": "2026-11-04T11:59:18+00:00"} | changes


def report(*boxes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    queue = {"queue": "support", "state": "up", "reason": "", "concerns": {}}
    return {"pid": 1, "line": "", "mailboxes": list(boxes), "queues": [queue], "alarms": [], "stuck": []} | changes


def test_all_is_well_only_with_a_daemon_that_polls() -> None:
    well = assess(report(box(), box("off", condition="not polled")), NOW)
    assert (well.level, well.ok) == (Level.OK, True)
    assert well.line == "1 mailbox up, 1 queue; the oldest poll was 42 s ago"


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"line": "no daemon answers on /run/x: no such file"},
        {"line": "", "mailboxes": [], "queues": [], "alarms": [], "stuck": []},
        report(),
        report(box(condition="not polled")),
    ],
)
def test_no_daemon_and_no_mailbox_is_never_health(said: dict[str, Any]) -> None:
    found = assess(said, NOW)
    assert found.level is Level.CRITICAL
    assert not found.ok


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"condition": "refused", "reason": "wrong password"}, Level.CRITICAL),
        ({"condition": "held", "reason": "renumbered"}, Level.CRITICAL),
        ({"behind": True}, Level.CRITICAL),
        ({"condition": "retrying", "reason": "connection refused"}, Level.WARNING),
        ({"condition": "starting", "last_poll_at": None}, Level.WARNING),
    ],
)
def test_one_mailbox_that_is_not_polled_as_it_should_be_is_found_among_many(
    changes: dict[str, Any], level: Level
) -> None:
    found = assess(report(*(box(f"box{number}") for number in range(50)), box("sick", **changes)), NOW)
    assert found.level is level
    assert [one.subject for one in found.findings] == ["mailbox sick"]


def test_what_befell_ledger_queues_and_messages_is_told_worst_first() -> None:
    queues = [
        {"queue": "new", "state": "probing", "reason": "", "concerns": {}},
        {"queue": "gone", "state": "down", "reason": "no such directory", "concerns": {}},
    ]
    alarm = {"key": "mailbox-down:support", "summary": "connection refused", "raised_at": ""}
    found = assess(report(box(), queues=queues, alarms=[alarm], stuck=[{"mailbox": "support"}] * 2), NOW)
    assert found.level is Level.CRITICAL
    assert [one.level for one in found.findings] == sorted((one.level for one in found.findings), reverse=True)
    assert found.line.startswith("queue gone: down: no such directory; queue new: probing; ")
    assert found.line.endswith("; and 1 more")
    assert assess(report(box(), ledger_error="disk I/O error"), NOW).level is Level.CRITICAL
    unwritable = {"key": "ledger-unwritable:ledger", "summary": "disk full", "raised_at": ""}
    assert assess(report(box(), alarms=[unwritable]), NOW).level is Level.CRITICAL
