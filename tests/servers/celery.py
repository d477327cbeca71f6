"""A real Celery worker in a process of its own, which notes what it was given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from servers.children import die_with_parent

JOB = "desk.tasks.take"

_TASKS = """
import json, os
from celery import Celery

app = Celery("desk", broker=os.environ["BROKER"])
app.conf.update(task_default_queue=os.environ["QUEUE"], broker_connection_retry_on_startup=True)

@app.task(bind=True, name="desk.tasks.take", acks_late=True)
def take(self, event):
    with open("taken", "a") as file:
        print(json.dumps([self.request.id, event]), file=file, flush=True)
"""


class CeleryWorker:
    """A context manager. ``url`` is the broker, ``queue`` the worker's, which it declares as Celery does."""

    def __init__(self, directory: Path, url: str, queue: str) -> None:
        self._directory = directory
        self._environment = {**os.environ, "BROKER": url, "QUEUE": queue}

    def __enter__(self) -> Self:
        (self._directory / "desk.py").write_text(_TASKS, "utf-8")
        options = ["--pool", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO"]
        command = [sys.executable, "-m", "celery", "-A", "desk", "worker", *options]
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self._directory, env=self._environment, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        deadline = time.monotonic() + 60
        while " ready." not in self.log():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(30)

    def log(self) -> str:
        """What it said."""
        return (self._directory / "log").read_text("utf-8", "replace")

    def taken(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        """Id and event of the tasks that it has run, once these are so many."""
        path = self._directory / "taken"
        deadline = time.monotonic() + 30
        while True:
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            if len(lines) >= count and lines[-1].endswith(b"\n"):
                return [(name, event) for name, event in map(json.loads, lines)]
            assert time.monotonic() < deadline, f"{len(lines)} of {count}\n{self.log()}"
            time.sleep(0.02)
