"""The block of a queue that is a program."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Literal

from pydantic import Field, field_validator

from mailpoller.core.component import Finding, Runtime, SinkConfig
from mailpoller.core.literals import Duration
from mailpoller.core.ports import Sink
from mailpoller.sinks.command.process import Program
from mailpoller.sinks.command.sink import CommandQueue

_LONGEST = timedelta(minutes=5)
"""With what a batch may wait for others before it, well within what the engine gives a batch."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_COMPILES = re.compile(r"(node|nodejs|deno|bun|java|dotnet|mono|luajit|pypy\d?|julia|pwsh|qemu-\w+)[\d.]*")
"""What writes machine code into its own memory while it runs."""
_BECOMES = frozenset(("sudo", "su", "doas", "runuser", "setpriv", "pkexec", "chroot", "unshare", "nsenter"))
"""What changes who or where it is."""


class CommandQueueConfig(SinkConfig):
    """Start a program for every message, which reads it from stdin and says by its exit code what became of it."""

    type: Literal["command"]
    command: list[str] = Field(min_length=1, max_length=200)
    """The program and its arguments, as a list: there is no shell. A path from the root, or a name that ``PATH``
    has."""
    stdin: Literal["raw", "event"] = "raw"
    """``raw``: the octets of the message, bit for bit. ``event``: the event, one JSON object; ``payload`` says what it
    holds."""
    timeout: Duration = timedelta(seconds=60)
    """The program, and all that it started, is killed after so long; ``5m`` at most."""
    concurrency: int = Field(default=1, ge=1, le=32)
    """How many may run at once."""
    directory: Path = Path("/")
    """Where it is started."""

    @field_validator("command")
    @classmethod
    def _runnable(cls, command: list[str]) -> list[str]:
        if any("\0" in word for word in command):
            raise ValueError("no argument can hold a NUL")
        if not command[0] or ("/" in command[0] and not command[0].startswith("/")):
            raise ValueError("the program is named by its path from the root, or by a name that PATH has")
        return command

    @field_validator("timeout")
    @classmethod
    def _bounded(cls, timeout: timedelta) -> timedelta:
        if not timedelta(0) < timeout <= _LONGEST:
            raise ValueError("timeout is longer than nothing, and 5m at most")
        return timeout

    def findings(self) -> Iterator[Finding]:
        """What the unit forbids to the service it forbids to its programs."""
        yield from super().findings()
        name = PurePath(self.command[0]).name
        if _COMPILES.fullmatch(name) and "--jitless" not in self.command and not _may_compile():
            text = (
                "this program compiles while it runs, which the systemd unit forbids (MemoryDenyWriteExecute): there "
                "it is killed, unless a drop-in allows it; see docs/sinks.md"
            )
            yield Finding("command", text)
        if name in _BECOMES:
            text = (
                "no program becomes another user or leaves its place under the systemd unit (NoNewPrivileges, "
                "SystemCallFilter); see docs/sinks.md"
            )
            yield Finding("command", text)

    @property
    def carries_octets(self) -> bool:
        return self.stdin == "raw" or self.octets_wanted

    def build(self, name: str, runtime: Runtime) -> Sink:
        """The sink. Starts nothing."""
        path = os.environ.get("PATH") or _PATH
        program = Program(tuple(self.command), self.directory, self.timeout.total_seconds(), path)
        return CommandQueue(name, program, events=self.stdin == "event", concurrency=self.concurrency)


@lru_cache(maxsize=1)
def _may_compile() -> bool:
    """Within the unit that is tried. Outside of it nobody can tell, so it is said."""
    if "INVOCATION_ID" not in os.environ:
        return False
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except OSError:
        return False
    return True
