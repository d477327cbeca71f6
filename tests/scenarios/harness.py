"""A site to break: a configuration on disk, the real command as a process, and what a queue file holds afterwards."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from scenarios import later

TESTS = Path(__file__).resolve().parent.parent
PATIENCE_S = 120.0
"""For what comes soon, if it comes at all: a machine that does other things too may be slow, and a fault is for
ever."""


class Site:
    """One service's files under one directory. ``settings`` is the YAML, as data, to be changed before a run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.queue_path = directory / "queue" / "support.db"
        self.later_s = 0.0
        self.settings: dict[str, Any] = {
            "service": {
                "log_rate": 0,  # tests count lines
                "state_directory": str(directory / "state"),
                "control_socket": str(directory / "control.sock"),
                "stop_grace": "10s",
            },
            "ledger": {"type": "sqlite", "path": str(directory / "ledger.db")},
            "queues": {"support": {"type": "sqlite", "path": str(self.queue_path), "payload": "raw"}},
            "mailboxes": {},
        }

    def imap(self, name: str, port: int, user: str, **settings: Any) -> None:
        """A mailbox on a plain loopback server."""
        self.settings["mailboxes"][name] = {
            "type": "imap",
            "host": "127.0.0.1",
            "port": port,
            "tls": "none",
            "username": user,
            "password": "secret",
            "default_queue": "support",
            "start": "all",
            "poll_interval": "1s",
            "reconnect_interval": "1s",
            **settings,
        }

    @property
    def config(self) -> Path:
        """The file, with the settings of now; whoever reads it meanwhile sees the whole of one or the other."""
        path = self.directory / "mailpoller.yaml"
        draft = path.with_suffix(".draft")
        draft.write_text(yaml.safe_dump(self.settings))
        return draft.replace(path)

    def run(self, *arguments: str, kill: tuple[str, str, int] | None = None, by: str = "mailpoller") -> Daemon:
        """Start ``mailpoller run`` in the background. ``by``: the module that runs the command."""
        return Daemon(self, ["run", "--config", str(self.config), "--log-format", "json", *arguments], kill, by)

    def once(self, *, kill: tuple[str, str, int] | None = None, timeout: float = PATIENCE_S) -> int:
        """``mailpoller run --once``: its exit code, negative if a signal ended it."""
        with self.run("--once", kill=kill) as daemon:
            return daemon.wait(timeout)

    def pass_time(self, seconds: float) -> None:
        """So much later it is, for every process of this site that runs by ``scenarios.later`` or is to be killed, at
        once."""
        self.later_s += seconds
        draft = self.clock.with_suffix(".draft")
        draft.write_text(str(self.later_s))
        draft.replace(self.clock)

    @property
    def clock(self) -> Path:
        """The file that says how much later it is."""
        return self.directory / "later"

    def events(self, queue: Path | None = None) -> list[dict[str, Any]]:
        """The events that a queue file holds, oldest first."""
        path = queue or self.queue_path
        if not path.exists() or path.stat().st_size == 0:
            return []
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10) as database:
            if _is_being_made(database):
                return []
            return [
                json.loads(row[0])
                for row in database.execute("SELECT event FROM message JOIN content USING (seq) ORDER BY seq")
            ]

    def ledger_counts(self, mailbox: str) -> dict[str, int]:
        """How many messages of a mailbox the ledger has, by state."""
        counts = {"claimed": 0, "deferred": 0, "settled": 0, "undisposed": 0}
        if not (self.directory / "ledger.db").exists():
            return counts
        with sqlite3.connect(f"file:{self.directory / 'ledger.db'}?mode=ro", uri=True, timeout=10) as database:
            if _is_being_made(database):
                return counts
            rows = database.execute(
                "SELECT state, disposition_state, count(*) FROM message JOIN folder ON folder.id = message.folder "
                "WHERE mailbox = ? GROUP BY 1, 2",
                (mailbox,),
            ).fetchall()
        for state, disposition, count in rows:
            counts["claimed" if state == "suspect" else state] += count
            if state == "settled" and disposition != "applied":
                counts["undisposed"] += count
        return counts

    def quarantined(self) -> list[bytes]:
        """The octets of every message in the quarantine."""
        held = self.directory / "state" / "quarantine" / "held"
        return [path.read_bytes().partition(b"\n")[2] for path in sorted(held.glob("*-*"))]

    def subjects(self, queue: Path | None = None) -> Counter[str]:
        """How often each subject stands in a queue file."""
        return Counter(event["data"]["subject"] for event in self.events(queue))


class Daemon:
    """The command as a process; a context manager that leaves none behind. ``log`` is what it said, a dict a line."""

    def __init__(
        self, site: Site, arguments: list[str], kill: tuple[str, str, int] | None = None, by: str = "mailpoller"
    ) -> None:
        self.site = site
        self.log_path = site.directory / f"log-{time.monotonic_ns()}.jsonl"
        if by == "mailpoller" and site.later_s:
            by = "scenarios.later"
        program = ["-m", by] if kill is None else ["-m", "scenarios.killer", *map(str, kill)]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=TESTS,
                env={**os.environ, "PYTHONUNBUFFERED": "1", later.FILE: str(site.clock)},
                start_new_session=True,
            )

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def said(self) -> str:
        return self.log_path.read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        lines = []
        for line in self.said.splitlines():
            if line.startswith("{"):
                try:
                    lines.append(json.loads(line))
                except ValueError:
                    continue
        return lines

    @property
    def processor_s(self) -> float:
        """The processor's seconds that it has used so far (proc(5))."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def count(self, event: str, **keys: Any) -> int:
        return sum(1 for line in self.log if _matches(line, event, keys))

    def until(self, true: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
        """Wait until something holds; fail with the daemon's own words if it never does."""
        end = time.monotonic() + seconds
        while not true():
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.said[-4000:]}")
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s; the daemon said:\n{self.said[-4000:]}")
            time.sleep(0.02)

    def until_said(self, event: str, seconds: float = PATIENCE_S, **keys: Any) -> None:
        self.until(lambda: self.count(event, **keys), seconds)

    def wait(self, seconds: float = PATIENCE_S) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds: float = PATIENCE_S) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def _is_being_made(database: sqlite3.Connection) -> bool:
    return database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'message'").fetchone() is None


def _matches(line: Mapping[str, Any], event: str, keys: Mapping[str, Any]) -> bool:
    return line.get("event") == event and all(line.get(key) == value for key, value in keys.items())
