"""Is it well? What a report of ``status`` comes to, for monitors: what nobody knows is never well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from mailpoller.core.record import record

_CRITICAL_ALARMS = frozenset({"ledger-unwritable", "queue-vanished", "mailbox-overdue"})
_NAMED = 3
"""Findings that the line names; of the others it says how many they are."""
_WORDS = 100
"""Characters of a reason in the line."""


class Level(IntEnum):
    """How well it is, worse ones last; the numbers are the exit codes of a monitoring plug-in."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@record
class Finding:
    """One thing that is not as it should be: of what (``mailbox support``), and what, in words."""

    level: Level
    subject: str
    what: str


@record
class Assessment:
    """What a report comes to: its worst level, one line in words, and everything that is not well, worst first."""

    level: Level
    line: str
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """True if nothing at all is found."""
        return self.level is Level.OK


def assess(report: Mapping[str, Any], now: datetime | None = None) -> Assessment:
    """What a daemon's answer to ``status`` comes to. ``report`` is that answer, or what is known where none answers:
    without a ``pid`` nothing runs."""
    findings = tuple(sorted(_findings(report), key=lambda one: -one.level))
    if not findings:
        return Assessment(Level.OK, _well(report, now or datetime.now(UTC)))
    named = [f"{one.subject}: {_short(one.what)}" for one in findings[:_NAMED]]
    more = [f"and {len(findings) - _NAMED} more"] if len(findings) > _NAMED else []
    return Assessment(findings[0].level, "; ".join([*named, *more]), findings)


def _findings(report: Mapping[str, Any]) -> Iterator[Finding]:
    if "pid" not in report:
        yield Finding(Level.CRITICAL, "service", report.get("line") or "no daemon answers")
        return
    if "ledger_error" in report:
        yield Finding(Level.CRITICAL, "ledger", report["ledger_error"])
    reloaded = report.get("configuration") or {}
    if reloaded.get("outcome") in ("bad", "refused", "partly"):
        yield Finding(Level.WARNING, "configuration", f"the last reload was {reloaded['outcome']}: status says more")
    boxes = report.get("mailboxes", ())
    if all(box["condition"] == "not polled" for box in boxes):
        yield Finding(Level.CRITICAL, "service", "no mailbox is polled")
    for box in boxes:
        if (found := _mailbox(box)) is not None:
            yield Finding(found[0], f"mailbox {box['mailbox']}", found[1])
    for queue in report.get("queues", ()):
        if queue["state"] == "down":
            yield Finding(Level.CRITICAL, f"queue {queue['queue']}", f"down: {queue['reason']}")
        elif queue["state"] == "paused":
            yield Finding(Level.WARNING, f"queue {queue['queue']}", queue["reason"])
        elif queue["state"] != "up" or queue.get("concerns"):
            yield Finding(Level.WARNING, f"queue {queue['queue']}", queue["reason"] or queue["state"])
    reload = report.get("configuration") or {"outcome": "same"}
    if reload["outcome"] not in ("same", "applied"):
        why = next((one["text"] for one in reload["problems"] if one["severity"] == "error"), "see status")
        yield Finding(Level.WARNING, "configuration", f"the last reload was {reload['outcome']}: {why}")
    for alarm in report.get("alarms", ()):
        level = Level.CRITICAL if alarm["key"].partition(":")[0] in _CRITICAL_ALARMS else Level.WARNING
        yield Finding(level, f"alarm {alarm['key']}", alarm["summary"])
    for mailbox, count in Counter(one["mailbox"] for one in report.get("stuck", ())).items():
        yield Finding(Level.WARNING, f"mailbox {mailbox}", f"{count} stuck, see status {mailbox}")


def _mailbox(box: Mapping[str, Any]) -> tuple[Level, str] | None:
    condition, reason = box["condition"], box.get("reason") or ""
    if condition == "not polled":
        return None
    if condition in ("refused", "held"):
        return Level.CRITICAL, f"{condition}: {reason}"
    if box["behind"]:
        return Level.CRITICAL, f"behind, {condition}" + (f": {reason}" if reason else "")
    if condition == "paused":
        return Level.WARNING, reason
    if condition == "retrying":
        return Level.WARNING, f"retrying: {reason}"
    if box["last_poll_at"] is None:
        return Level.WARNING, "no poll was completed yet"
    return None


def _well(report: Mapping[str, Any], now: datetime) -> str:
    polled = [box for box in report["mailboxes"] if box["condition"] != "not polled"]
    oldest = max(now - datetime.fromisoformat(box["last_poll_at"]) for box in polled)
    mailboxes = "1 mailbox" if len(polled) == 1 else f"{len(polled)} mailboxes"
    queues = "1 queue" if len(report["queues"]) == 1 else f"{len(report['queues'])} queues"
    return f"{mailboxes} up, {queues}; the oldest poll was {max(0, round(oldest.total_seconds()))} s ago"


def _short(words: str) -> str:
    words = " ".join(words.split())
    return words if len(words) <= _WORDS else words[: _WORDS - 1] + "…"
