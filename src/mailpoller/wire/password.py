"""A password that a program tells: run when it is first needed, and once more when a login is refused."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import Annotated

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag

from mailpoller.core.component import Block
from mailpoller.core.errors import ConfigError, MachineTrouble, machine_trouble
from mailpoller.core.literals import Duration, Secret

LARGEST = 64 << 10
"""Octets that the program may write."""
_LONGEST = timedelta(minutes=1)
_TICK_S = 0.05
_REAPED_WITHIN_S = 2.0
_KEPT = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "XDG_RUNTIME_DIR", "GNUPGHOME",
    "CREDENTIALS_DIRECTORY",
)  # fmt: skip
"""What the program has of our environment; secrets in it are not its business."""


def _bounded(value: timedelta) -> timedelta:
    if not timedelta(0) < value <= _LONGEST:
        raise ValueError("more than 0s, and 1m at most")
    return value


class PasswordCommand(Block):
    """A program that writes the password to its standard output: the first line is the password."""

    command: list[Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]] = Field(
        min_length=1, max_length=100
    )
    """The program and its arguments, each on its own; no shell. It has no standard input, its standard error is
    dropped, and what it leaves running in its process group is killed."""
    timeout: Annotated[Duration, AfterValidator(_bounded)] = timedelta(seconds=10)
    """How long it may take, 1m at most."""

    def run(self) -> str:
        """The password. Blocks for the time-out and two seconds at most.

        Raises :class:`ConfigError`, which never quotes what the program wrote, and :class:`MachineTrouble`.
        """
        name = self.command[0]
        environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
        said = _said(self.command, environment, self.timeout.total_seconds())
        try:
            first = said.partition(b"\n")[0].removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigError(f"the password command {name} writes no UTF-8 text") from None
        if not first:
            raise ConfigError(f"the password command {name} writes no password")
        return first


Written = Secret | PasswordCommand | None
"""A password as the configuration has it."""


def _kind(written: object) -> str:
    """Which of the two is meant, so that a wrong one is complained about once."""
    told = isinstance(written, PasswordCommand) or (isinstance(written, Mapping) and "command" in written)
    return "program" if told else "secret"


WrittenPassword = Annotated[
    Annotated[Secret, Tag("secret")] | Annotated[PasswordCommand, Tag("program")], Discriminator(_kind)
]
"""A password as a configuration has it."""


class Password:
    """A password for many logins. That of a program is kept until a server refuses it."""

    def __init__(self, written: Written) -> None:
        self._written = written
        self._kept: str | None = None
        self._proven = False
        self._turn = asyncio.Lock()

    async def text(self) -> str:
        """The password. Raises :class:`ConfigError` if there is none."""
        if self._written is None:
            raise ConfigError("there is no password")
        if isinstance(self._written, Secret):
            return await asyncio.to_thread(self._written.reveal)
        async with self._turn:
            if self._kept is None:
                self._kept = await asyncio.to_thread(self._written.run)
            return self._kept

    async def ready(self) -> None:
        """Run the program, if there is one and it was not run yet. Raises as :meth:`text`."""
        if isinstance(self._written, PasswordCommand):
            await self.text()

    def accepted(self) -> None:
        """A server took it."""
        self._proven = self._kept is not None

    async def refused(self) -> bool:
        """A server did not. True if it was taken before, and the program tells another one now: once more may do.

        Else the program is asked when there is a login again. Raises as :meth:`text`.
        """
        if not isinstance(self._written, PasswordCommand):
            return False
        async with self._turn:
            former, proven = self._kept, self._proven
            self._kept, self._proven = None, False
            if not proven:
                return False
            self._kept = await asyncio.to_thread(self._written.run)
            return self._kept != former

    def forget(self) -> None:
        """Ask the program anew at the next login."""
        self._kept, self._proven = None, False


def _said(words: list[str], environment: Mapping[str, str], seconds: float) -> bytes:
    end = monotonic() + seconds
    try:
        child = subprocess.Popen(  # noqa: S603 - the operator's own words, and no shell
            words, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, ValueError, MemoryError, subprocess.SubprocessError) as error:
        if (lack := machine_trouble(error)) is not None:
            raise MachineTrouble(f"the password command {words[0]} cannot be started: {lack}") from None
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"the password command {words[0]} cannot be started: {reason}") from None
    assert child.stdout is not None
    try:
        with child.stdout as pipe:
            said = _until_it_ends(child, pipe.fileno(), end)
        ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    finally:
        # Not reaped yet: until then nobody else can have its number, which is that of the group to be killed.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_REAPED_WITHIN_S)
    if len(said) > LARGEST:
        raise ConfigError(f"the password command {words[0]} writes more than {LARGEST >> 10} KiB")
    if ended is None:
        raise ConfigError(f"the password command {words[0]} did not end within {seconds:g} s")
    if ended.si_code != os.CLD_EXITED:
        raise ConfigError(f"the password command {words[0]} was ended by signal {ended.si_status}")
    if ended.si_status != 0:
        raise ConfigError(f"the password command {words[0]} exits with {ended.si_status}")
    return said


def _until_it_ends(child: subprocess.Popen[bytes], pipe: int, end: float) -> bytes:
    """What it wrote until it ended, or the deadline, or one octet more than it may. What it left running may keep the
    pipe open."""
    said, open_ = b"", True
    os.set_blocking(pipe, False)
    poller = select.poll()
    poller.register(pipe, select.POLLIN)
    while len(said) <= LARGEST and (left := end - monotonic()) > 0:
        over = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        while open_ and len(said) <= LARGEST:
            try:
                piece = os.read(pipe, LARGEST + 1 - len(said))
            except BlockingIOError:
                break
            said += piece
            if not piece:
                open_ = False
                poller.unregister(pipe)
        if over:
            break
        poller.poll(min(left, _TICK_S) * 1000)
    return said
