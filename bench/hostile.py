"""One hostile server beside an honest mailbox, in one daemon: what it costs, and whom.

Scenario by scenario the daemon polls an honest mailbox, to which letters come at a steady rate, and one that is on a
hostile server (in a process of its own). Shown are the daemon's peak memory, how long each letter took from its notice
(EXISTS) until its row is in the queue, the processor's share in the dearest minute from the second one on (in the
second half of a shorter run), how often the honest mailbox was connected, and the alarms that name the hostile one.
The last column says which bars it broke; the exit status is 1 if any did. Scenarios: rig/hostility.py.

    hostile.py                                every scenario, two minutes each
    hostile.py --seconds 30 imap-early-ok     one of them, in short
    hostile.py --list                         their names
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from rig.arrivals import Queue, id_of
from rig.honest import Honest
from rig.hostility import SCENARIOS, Scenario
from rig.letters import letters
from rig.options import heading, reader, say
from rig.process import Failed, memory, processor
from rig.rude import serve
from rig.service import Service
from rig.table import Cell, percentile, table

LETTERS = 220
SETTLE_S = 4.0
"""Until the first letter comes, and from the last one to the end."""
LATE_S = 15
"""How long letters are waited for that are not held in the end."""
PEAK_MB, LATENCY_S, SHARE = 200, 1.0, 0.20


@dataclass(slots=True)
class Found:
    """What one run has shown."""

    peak_mb: float = 0.0
    latencies: list[float] = field(default_factory=list)
    share: float = 0.0
    connected: int = 0
    alarms: list[str] = field(default_factory=list)
    held: int = 0

    def broken(self, scenario: Scenario) -> str:
        """The bars that it broke, in words; empty for none."""
        told = [
            (self.peak_mb > PEAK_MB, "memory"),
            (len(self.latencies) < LETTERS, f"{LETTERS - len(self.latencies)} letters missing"),
            (percentile(self.latencies, 0.99) > LATENCY_S, "latency"),
            (self.share > SHARE and not scenario.honest, "processor"),
            (self.connected != 1, "the honest mailbox reconnected"),
            (not self.alarms and not (scenario.honest or scenario.quiet), "no alarm"),
            (bool(self.alarms) and scenario.honest, "an alarm"),
        ]
        return ", ".join(words for broken, words in told if broken)


def _serve(pipe: Connection, name: str) -> None:
    serve(pipe, SCENARIOS[name].serve)


@contextlib.contextmanager
def serving(scenario: Scenario) -> Iterator[int]:
    """The port of the hostile server."""
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=_serve, args=(there, scenario.name), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.kill()
        process.join()


def site(scenario: Scenario, directory: Path, honest: int, hostile: int) -> Service:
    """The installation: ``honest`` and ``hostile`` are ports."""
    made = Service(directory)
    made.imap("honest", honest, poll_interval="15m")
    if scenario.kind == "smtp":
        made.add("outgoing", "relay", type="smtp", host="127.0.0.1", port=hostile, tls="none", sender="us@example.com")
        made.add("queues", "hostile", type="smtp", outgoing="relay", to="you@example.com")
        mail = directory / "maildir"
        for part in ("new", "cur", "tmp"):
            (mail / part).mkdir(parents=True)
        for number, octets in enumerate(letters("small", 5, user="relayed")):
            (mail / "new" / f"{number}.1.here").write_bytes(octets)
        made.add("mailboxes", "sender", type="maildir", path=str(mail), default_queue="hostile", start="all")
    elif scenario.kind == "ews":
        url = f"http://127.0.0.1:{hostile}/EWS/Exchange.asmx"
        block = {"type": "ews", "url": url, "username": "hostile", "password": made.password, **scenario.settings}
        if scenario.name != "http-ntlm":
            block["auth"] = {"type": "password", "mechanism": "basic"}
        made.add("mailboxes", "hostile", default_queue="support", **block)
    else:
        add = made.imap if scenario.kind == "imap" else made.pop3
        add("hostile", hostile, **{"default_queue": "other", **scenario.settings})
        made.add("queues", "other", type="sqlite", path=str(directory / "other.db"), payload="raw")
    return made


def watched(process: subprocess.Popen[bytes], here: Service, honest: Honest, seconds: float) -> Found:
    """Let letters come for so long, and look at the process every second."""
    found = Found()
    mails = list(letters("small", LETTERS, user="news"))
    began = time.monotonic()
    gap = (seconds - 2 * SETTLE_S) / LETTERS
    queue: Queue | None = None
    spent: list[tuple[float, float]] = []
    coming = iter(mails)
    next_letter, next_look = began + SETTLE_S, began
    while (now := time.monotonic()) < began + seconds or (_wanting(queue, honest) and now < began + seconds + LATE_S):
        if process.poll() is not None:
            raise Failed(f"mailpoller ended with {process.returncode}:\n{here.log.read_text()[-1500:]}")
        if now >= next_look:
            spent.append((now, processor(process.pid)))
            next_look += 1
        if queue is None and here.queue.exists():
            queue = Queue(here.queue)
            queue.start()
        while now >= next_letter and (letter := next(coming, None)) is not None:
            honest.deliver(letter)
            next_letter += gap
        time.sleep(max(0.0, min(next_look, next_letter if next_letter > now else next_look) - time.monotonic()))
    found.peak_mb = memory(process.pid).get("VmHWM", 0) / 1e6
    if queue is not None:
        queue.done.set()
        seen = queue.seen
        found.latencies = [seen[one] - honest.told[one] for one in map(id_of, mails) if one in seen]
    spent = [one for one in spent if one[0] < began + seconds]
    found.share = _dearest(spent, began + (60 if seconds >= 119 else seconds / 2))
    lines = [json.loads(line) for line in here.log.read_text("utf-8", "replace").splitlines() if line[:1] == "{"]
    found.connected = sum(one["event"] == "session.opened" and one["mailbox"] == "honest" for one in lines)
    found.alarms = sorted({one["kind"] for one in lines if one["event"] == "alarm.raised" and _names(one)})
    return found


def _wanting(queue: Queue | None, honest: Honest) -> bool:
    """A letter has not come, or is not held yet."""
    return queue is None or len(honest.told) < LETTERS or len(queue.seen) < LETTERS


def _names(line: dict[str, str]) -> bool:
    return line["subject"].startswith(("hostile", "relay", "sender"))


def _dearest(spent: list[tuple[float, float]], since: float) -> float:
    """The greatest share of a core in any minute (or in all, if that is less) from ``since`` on."""
    later = [one for one in spent if one[0] >= since]
    shares = [
        (cpu - earlier[1]) / (at - earlier[0])
        for number, earlier in enumerate(later)
        for at, cpu in later[number + 1 :]
        if at - earlier[0] >= min(59.0, later[-1][0] - later[0][0] - 1)
    ]
    return max(shares, default=float("nan"))


def run(scenario: Scenario, seconds: float, keep_log: Path | None) -> Found:
    """One scenario, in a daemon of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, Honest() as honest, serving(scenario) as hostile:
        here = site(scenario, Path(directory) / "site", honest.port, hostile)
        argv = here.command("run")
        with here.log.open("wb") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            return watched(process, here, honest, seconds)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if keep_log:
                shutil.copy(here.log, keep_log)


def main() -> None:
    arguments = reader(__doc__, repeat=0)
    arguments.add_argument("scenario", nargs="*", help="names, or beginnings of names (all of them)")
    arguments.add_argument("--seconds", type=float, default=0, metavar="N", help="each run (125; quick 30)")
    arguments.add_argument("--list", action="store_true", help="name the scenarios, and do nothing")
    arguments.add_argument("--keep-log", type=Path, metavar="FILE", help="copy mailpoller's last log there")
    options: argparse.Namespace = arguments.parse_args()
    chosen = [one for one in SCENARIOS.values() if one.name.startswith(tuple(options.scenario) or "")]
    if options.list:
        print("\n".join(one.name for one in chosen))
        return
    if not chosen:
        sys.exit("no scenario has such a name; see --list")
    seconds = options.seconds or (30 if options.quick else 125)
    heading(f"a hostile server beside an honest mailbox, {seconds:g} s each")
    rows: list[list[Cell]] = []
    failed = False
    for scenario in chosen:
        found = run(scenario, seconds, options.keep_log)
        broken = found.broken(scenario)
        failed = failed or bool(broken)
        p50, p99 = (percentile(found.latencies, share) * 1000 for share in (0.5, 0.99))
        rows.append(
            [
                scenario.name,
                found.peak_mb,
                p50,
                p99,
                found.share * 100,
                found.connected,
                ", ".join(found.alarms),
                broken or "kept",
            ]
        )
        say(" ".join(map(str, [scenario.name, *(f"{one:.0f}" for one in rows[-1][1:5]), *rows[-1][5:]])))
    columns = ["scenario", "peak RSS MB", "told to committed p50 ms", "p99 ms", "% of a core", "connected", "alarms"]
    print(table([*columns, "bars"], rows))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
