"""A child process and what it costs: wall clock, processor, memory."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_S = 0.02
"""How often memory is looked at; more often at first."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process from its start to its exit. Memory is the highest seen, in octets."""

    wall_s: float
    cpu_s: float
    peak_rss: int
    peak_anonymous: int


class Failed(SystemExit):
    """The process did not do what it was started for: no figure is better than a wrong one, so this ends the command.

    The text has the process's last words.
    """


def measure(
    argv: Sequence[str], log: Path, *, timeout: float = 900, environment: Mapping[str, str] | None = None
) -> Cost:
    """Run a command to its end, both its outputs in ``log``. ``environment``: what it gets beside ours. Raises
    :class:`Failed` unless it exits with 0 in time."""
    with log.open("wb") as out:
        began = time.perf_counter()
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    rss = anonymous = 0
    ended, patience = False, SAMPLE_S / 16
    descriptor = os.pidfd_open(child.pid)
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        while not ended and time.perf_counter() - began < timeout:
            ended = bool(waiting.poll(patience * 1000))
            patience = min(2 * patience, SAMPLE_S)
            wall = time.perf_counter() - began
            now = memory(child.pid)
            rss, anonymous = max(rss, now.get("VmHWM", 0)), max(anonymous, now.get("RssAnon", 0))
    finally:
        os.close(descriptor)
        if not ended:
            child.kill()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        words = log.read_text("utf-8", "replace")[-1500:]
        raise Failed(f"{' '.join(argv)} exited with {child.returncode} after {wall:.1f} s:\n{words}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, rss, anonymous)


def memory(process: int) -> dict[str, int]:
    """``VmRSS``, ``VmHWM``, ``RssAnon`` and the like, in octets; empty if the process is gone."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return {}
    lines = (line.split() for line in text.splitlines() if line.endswith("kB"))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}


def processor(process: int) -> float:
    """Seconds of processor time that a living process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
