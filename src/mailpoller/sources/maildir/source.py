"""The source ``maildir``: how it is reached and tried."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import TransientError
from mailpoller.core.message import Account
from mailpoller.core.ports import Clock, Stage
from mailpoller.sources.maildir import directory as on_disk
from mailpoller.sources.maildir.config import MaildirSettings, impossible
from mailpoller.sources.maildir.directory import CUR, NEW
from mailpoller.sources.maildir.session import MaildirSession
from mailpoller.storage.disk import accessible

T = TypeVar("T")

DEADLINE = timedelta(seconds=30)
"""The longest that connecting, or one stage of a probe, waits for the file system."""


class MaildirSource:
    """See :class:`mailpoller.core.ports.Source`."""

    def __init__(self, mailbox: str, config: MaildirSettings, runtime: Runtime) -> None:
        self.account = Account("maildir", "localhost", str(config.path))
        self._mailbox = mailbox
        self._config = config
        self._runtime = runtime

    async def connect(self) -> MaildirSession:
        """A session. Raises TransientError while the directory is missing (not mounted yet) or may not be read."""
        if problem := await _answer(_unusable, self._config.path):
            raise TransientError(problem)
        return MaildirSession(
            mailbox=self._mailbox,
            root=self._config.path,
            folders=self._config.folders,
            shadow=self._config.mode == "shadow",
            clock=self._runtime.clock,
            spool=self._runtime.spool,
        )

    async def probe(self, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
        """Stages ``folder``, ``message``, ``disposition``."""
        root, shadow = self._config.path, self._config.mode == "shadow"
        stages: tuple[tuple[str, Callable[[], tuple[str, str, str]]], ...] = (
            ("folder", lambda: _probe_folders(root, self._config.folders)),
            ("message", lambda: _probe_message(root, self._config.folders[0])),
            ("disposition", lambda: _probe_dispositions(root, () if shadow else dispositions)),
        )
        for name, look in stages:
            stage = await _stage(name, look, self._runtime.clock)
            yield stage
            if not stage.ok:
                return


async def _stage(name: str, look: Callable[[], tuple[str, str, str]], clock: Clock) -> Stage:
    """``look`` answers with problem, detail and advice; no problem is success."""
    began = clock.monotonic()
    try:
        problem, detail, advice = await _answer(look)
    except TransientError as error:
        problem, detail, advice = str(error), "", "look at the file system that it lies on"
    elapsed = timedelta(seconds=clock.monotonic() - began)
    return Stage(name, not problem, elapsed, problem or detail, advice if problem else "")


async def _answer(work: Callable[..., T], *args: object) -> T:
    """What ``work`` returns, done in a thread. Raises TransientError if it fails or takes too long."""
    try:
        async with asyncio.timeout(DEADLINE.total_seconds()):
            return await asyncio.to_thread(work, *args)
    except TimeoutError:
        raise TransientError(f"the file system did not answer within {DEADLINE.total_seconds():.0f} s") from None
    except OSError as error:
        raise TransientError(error.strerror or type(error).__name__) from None


def _unusable(root: Path) -> str:
    """Why the Maildir cannot be polled now, or ""."""
    try:
        root.stat()
        os.scandir(root / NEW).close()
        os.scandir(root / CUR).close()
    except FileNotFoundError as error:
        return f"{error.filename} does not exist"
    except OSError as error:
        return f"cannot read {error.filename}: {error.strerror}"
    return ""


def _probe_folders(root: Path, names: Sequence[str]) -> tuple[str, str, str]:
    for name in names:
        directory = on_disk.folder_directory(root, name)
        if problem := _unusable(directory):
            return problem, "", "create it (maildirmake), mount it, or let the service's user read it"
    return "", ", ".join(names), ""


def _probe_message(root: Path, name: str) -> tuple[str, str, str]:
    directory = on_disk.folder_directory(root, name)
    found = on_disk.scan(directory).entries
    for entry in found.values():
        path = directory / entry.part / entry.name
        if not accessible(path, os.R_OK):
            return f"cannot read {path}", "", "let the service's user read the files, not only the directories"
        break
    return "", f"{len(found)} messages", ""


def _probe_dispositions(root: Path, dispositions: Sequence[Disposition]) -> tuple[str, str, str]:
    for disposition in dispositions:
        if disposition.leaves:
            continue
        if reason := impossible(disposition):
            return reason, "", "choose another disposition"
        needed = [root / NEW, root / CUR]
        if disposition.move is not None:
            target = on_disk.folder_directory(root, disposition.move)
            needed.append(target / CUR if on_disk.is_maildir(target) else root)
        for directory in needed:
            if not accessible(directory, os.W_OK | os.X_OK):
                return (
                    f"may not rename files in {directory}",
                    "",
                    "let the service's user write there, or use mode: shadow",
                )
    return "", "", ""
