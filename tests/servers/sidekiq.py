"""A real Sidekiq in a process of its own, whose worker notes what it was given."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from servers import programs
from servers.children import die_with_parent

JOB = "MailJob"
missing = "" if programs.found("sidekiq") else f"there is no sidekiq: {programs.lacking('sidekiq')}"

_WORKER = """
require "json"

class MailJob
  include Sidekiq::Worker

  def perform(event)
    File.open("taken", "a") { |file| file.puts JSON.generate([jid, event]) }
  end
end
"""


class Sidekiq:
    """A context manager. ``url`` is the Redis, ``queue`` the one that is worked at."""

    def __init__(self, directory: Path, url: str, queue: str) -> None:
        self._directory = directory
        self._url = url
        self._queue = queue

    def __enter__(self) -> Self:
        (self._directory / "worker.rb").write_text(_WORKER, "utf-8")
        command = [programs.find("sidekiq"), "-r", "./worker.rb", "-q", self._queue, "-c", "1"]
        environment = {**os.environ, "REDIS_URL": self._url}
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self._directory, env=environment, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(30)

    def taken(self, count: int) -> list[tuple[str, dict[str, Any]]]:
        """Id and argument of the jobs that it has done, once these are so many."""
        path = self._directory / "taken"
        deadline = time.monotonic() + 60
        while True:
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            if len(lines) >= count and lines[-1].endswith(b"\n"):
                return [(name, event) for name, event in map(json.loads, lines)]
            log = (self._directory / "log").read_text("utf-8", "replace")
            assert self._process.poll() is None and time.monotonic() < deadline, f"{len(lines)} of {count}\n{log}"
            time.sleep(0.05)
