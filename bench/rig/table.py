"""Markdown tables of figures, and the line that says where they were measured."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from rig.server import programs

Cell = str | float | int | None


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A markdown table whose columns are as wide as they need to be; numbers stand on the right.

    A column is one of numbers if every cell in it is a number or nothing. Raises ValueError for a row of another
    length.
    """
    cells = [list(row) for row in rows]
    if any(len(row) != len(columns) for row in cells):
        raise ValueError(f"a row has not {len(columns)} cells")
    numeric = [bool(cells) and all(not isinstance(row[at], str) for row in cells) for at in range(len(columns))]
    texts = [list(columns), *([_text(cell) for cell in row] for row in cells)]
    widths = [max(3, *(len(row[at]) for row in texts)) for at in range(len(columns))]
    lines = [_line(row, widths, numeric) for row in texts]
    rule = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, numeric, strict=True)]
    return "\n".join([lines[0], "| " + " | ".join(rule) + " |", *lines[1:]])


def _line(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    aligned = [
        text.rjust(width) if right else text.ljust(width)
        for text, width, right in zip(row, widths, numeric, strict=True)
    ]
    return "| " + " | ".join(aligned) + " |"


def _text(cell: Cell) -> str:
    """Three digits that mean something, and no more than three after the point."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell.replace("|", "\\|").replace("\n", " ")
    if isinstance(cell, int) or abs(cell) >= 100:
        return f"{cell:,.0f}"
    if abs(cell) >= 10:
        return f"{cell:.1f}"
    return f"{cell:.2f}" if abs(cell) >= 1 else f"{cell:.3f}"


def percent(part: float, whole: float) -> str:
    """``part`` of ``whole``, such as ``63 %``."""
    return f"{100 * part / whole:.0f} %" if whole else "-"


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of the values lie, by nearest rank; NaN without values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def spread(values: Sequence[float]) -> str:
    """Least and greatest, such as ``2,931 to 3,105``; nothing for a single value."""
    return f"{_text(min(values))} to {_text(max(values))}" if len(values) > 1 else ""


def median(values: Iterable[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def surroundings(*tools: str) -> str:
    """One line: the versions of what was measured and the machine. ``tools``: ``dovecot``, ``mbsync``, ``mpop``."""
    parts = [f"mailpoller {version('mailpoller')}", f"Python {platform.python_version()}"]
    parts += [f"SQLite {sqlite3.sqlite_version}"]
    parts += [f"{tool.replace('dovecot', 'Dovecot')} {found}" for tool in tools if (found := _version(tool))]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts += [f"Linux {platform.release().split('-')[0]}", f"{os.cpu_count()} x {_processor()}", f"{memory:.0f} GiB"]
    load = os.getloadavg()[0]
    return "; ".join(parts) + f"; load {load:.1f} before"


def _version(program: str) -> str | None:
    binary = programs.found(program)
    if binary is None:
        return None
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(?:\.\d+)+", said)
    return found[0] if found else None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.split(":", 1)[1].split())
    return platform.machine()
