"""Where a process spent its time: py-spy's stacks, put into areas of mailpoller."""

from __future__ import annotations

import re
from collections import Counter

from rig.table import percent, table

RATE = 500
"""Samples a second."""

AREAS: tuple[tuple[str, str], ...] = (
    ("log", r"structlog|mailpoller/cli/logs|mailpoller/cli/terminal|logging/__init__"),
    ("spool, hash", r"mailpoller/core/spool|mailpoller/(storage|transport)/disk"),
    ("rules", r"mailpoller/rules/"),
    ("event", r"mailpoller/mail/(event|compose)"),
    ("parser", r"mailpoller/mail/"),
    ("imap settling", r"mailpoller/sources/imap/settling"),
    ("imap reading", r"mailpoller/sources/|aioimaplib"),
    ("ledger", r"mailpoller/ledgers/"),
    ("sink", r"mailpoller/sinks/"),
    ("sqlite", r"mailpoller/(storage|transport)/sqlite"),
    ("dispatcher", r"mailpoller/engine/(dispatcher|queues|pipeline)"),
    ("courier", r"mailpoller/engine/"),
    ("start", r"mailpoller/(cli|app|config)|importlib"),
)
"""(area, pattern): the first that the innermost frame with any of them matches."""

WAITING = re.compile(r"^(_serve|Database\._serve|Pool\._next|_worker|EpollSelector\.select|select) ")
"""Frames that do nothing themselves: if one of them is innermost, its thread waits for work."""
COMMIT = re.compile(r"^(_work|Database\._work) .*(storage|transport)/sqlite")
"""The frame that commits: SQLite and the disk."""

_PLACE = re.compile(r"^(.*) \(([^)]*?)(?::(\d+))?\)$")


def summary(raw: str, messages: int, most: int = 15) -> str:
    """Tables from py-spy's ``raw`` form, all in microseconds a message: by area and thread, by own time, with callees.

    An area is that of the innermost frame that belongs to one; what no area claims is the event loop and the
    interpreter. Threads run side by side, so the time of all of them may exceed the clock's.
    """
    areas: Counter[tuple[str, str]] = Counter()
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [frame for frame in stack.split(";") if _PLACE.match(frame)]
        if not frames:
            continue
        samples = int(count)
        thread = "main" if any("asyncio/runners" in frame or "runpy" in frame for frame in frames) else "others"
        area = _area(frames)
        areas[area, thread] += samples
        if area != "waiting":
            own[_name(frames[-1])] += samples
            for name in {_name(frame) for frame in frames if "mailpoller/" in frame}:
                inclusive[name] += samples
    micro = 1e6 / RATE / messages
    busy = {
        thread: sum(count for (area, of), count in areas.items() if of == thread and area != "waiting")
        for thread in ("main", "others")
    }
    total = sum(busy.values())
    order = sorted(
        {area for area, _ in areas} - {"waiting"}, key=lambda area: -areas[area, "main"] - areas[area, "others"]
    )
    rows = [
        [area, areas[area, "main"] * micro, areas[area, "others"] * micro, _share(areas, area, total)] for area in order
    ]
    rows.append(["all that is busy", busy["main"] * micro, busy["others"] * micro, ""])
    rows.append(["main thread waits", areas["waiting", "main"] * micro, None, ""])
    return "\n\n".join(
        [
            table(["µs a message", "main thread", "other threads", "share"], rows),
            _most(own, "own time, µs a message", most, micro, total),
            _most(inclusive, "with all that it calls, µs a message", 2 * most, micro, total),
        ]
    )


def _share(areas: Counter[tuple[str, str]], area: str, total: int) -> str:
    return percent(areas[area, "main"] + areas[area, "others"], total)


def _most(counts: Counter[str], what: str, most: int, micro: float, total: int) -> str:
    rows = [[name, samples * micro, percent(samples, total)] for name, samples in counts.most_common(most)]
    return table(["where", what, "share"], rows)


def _area(frames: list[str]) -> str:
    if WAITING.match(frames[-1]):
        return "waiting"
    if COMMIT.match(frames[-1]):
        return "commit"
    for frame in reversed(frames):
        for area, pattern in AREAS:
            if re.search(pattern, frame):
                # What runs beneath asyncio and nothing of ours but the command is the loop, not the start.
                return "event loop" if area == "start" and any("asyncio/" in one for one in frames) else area
    return "event loop"


def _name(frame: str) -> str:
    match = _PLACE.match(frame)
    assert match is not None
    path = re.sub(r"^.*?(?:mailpoller/|site-packages/|lib/python[\d.]+/)", "", match[2])
    return f"{path}:{match[1]}"
