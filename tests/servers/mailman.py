"""The runner of a real Mailman that takes mail by LMTP, with one list."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from servers import programs
from servers.children import die_with_parent
from servers.ports import free_port

LIST = "announce@lists.example.com"
missing = "" if programs.found("mailman") else f"there is no mailman: {programs.lacking('mailman')}"

_CONFIG = """
[mailman]
layout: here
site_owner: owner@lists.example.com
[paths.here]
var_dir: {directory}/var
queue_dir: $var_dir/queue
bin_dir: /usr/lib/mailman3/bin
log_dir: $var_dir/log
lock_dir: $var_dir/lock
data_dir: $var_dir/data
cache_dir: $var_dir/cache
etc_dir: $var_dir/etc
ext_dir: $var_dir/ext
messages_dir: $var_dir/messages
archive_dir: $var_dir/archives
template_dir: $var_dir/templates
pid_file: $var_dir/master.pid
lock_file: $var_dir/lock/master.lck
[mta]
lmtp_host: 127.0.0.1
lmtp_port: {port}
incoming: mailman.mta.null.NullMTA
"""


class Mailman:
    """A context manager. What it took lies in its incoming queue, since no other runner is there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port = free_port()
        self._config = directory / "mailman.cfg"
        # Its tools look at this before they heed their own option.
        self._environment = {**os.environ, "MAILMAN_CONFIG_FILE": str(self._config)}

    def __enter__(self) -> Self:
        self._config.write_text(_CONFIG.format(directory=self._directory, port=self.port), "utf-8")
        make = [programs.find("mailman"), "--run-as-root", "-C", str(self._config), "create", "-d", LIST]
        subprocess.run(make, env=self._environment, check=True, capture_output=True, timeout=120)
        command = ["/usr/lib/mailman3/bin/runner", "-C", str(self._config), "-r", "lmtp"]
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
        deadline = time.monotonic() + 60
        while True:
            with closing(socket.socket()) as tried:
                if tried.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert self._process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(30)

    def taken(self) -> list[str]:
        """What is said of each message in its incoming queue: its text, and for which list it is."""
        tool = [programs.find("mailman"), "--run-as-root", "-C", str(self._config), "qfile"]
        return [
            subprocess.run([*tool, str(path)], env=self._environment, check=True, capture_output=True, text=True).stdout
            for path in sorted((self._directory / "var/queue/in").glob("*.pck"))
        ]
