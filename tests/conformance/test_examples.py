"""The examples of CONTRIBUTING.md keep what every sink and every source promises."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Sink, Source
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.testing.sink_suite import SinkSuite
from mailpoller.testing.source_suite import MailboxUnderTest, Shown, SourceSuite

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def _example(first_words: str) -> Any:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (text,) = [block for block in blocks if block.startswith(f'"""{first_words}')]
    module = ModuleType(f"mailpoller_example_{re.sub('[^a-z]', '_', first_words.lower())}")
    sys.modules[module.__name__] = module  # where pydantic looks for the names in annotations
    exec(compile(text, str(PAGE), "exec"), module.__dict__)
    return module


files = _example("The queue type ``files``")
drop = _example("The source ``drop``")


def _runtime(directory: Path) -> Runtime:
    return Runtime(clock=SystemClock(), spool=Spool(directory / "spool"), state_directory=directory)


class TestFiles(SinkSuite):
    holds_octets = False
    kills = 5

    def make_sink(self, directory: Path) -> Sink:
        sink: Sink = files.FilesQueueConfig(type="files", path=directory / "queue").build(
            "support", _runtime(directory)
        )
        return sink

    def held(self, directory: Path) -> Sequence[str]:
        return [file.stem for file in (directory / "queue").glob("*.json")]

    def event_of(self, directory: Path, delivery_id: str) -> bytes:
        return (directory / "queue" / f"{delivery_id}.json").read_bytes()


class DropUnderTest(MailboxUnderTest):
    first = "files"
    has_folders = False
    has_positions = False
    knows_unseen = False
    waits_connected = False
    steps = frozenset({"delete"})

    def __init__(self, directory: Path) -> None:
        self._path = directory / "drop"
        self._path.mkdir()
        self._runtime = _runtime(directory)
        self._runtime.spool.prepare()
        self._put = 0

    def source(self, *, folders: Sequence[str] | None = None, mode: Literal["live", "shadow"] = "live") -> Source:
        # One folder has no name to be wrong but its directory's.
        path = self._path if folders in (None, [self.first]) else self._path / "missing"
        source: Source = drop.DropConfig(type="drop", path=path, mode=mode).build("box", self._runtime)
        return source

    async def deliver(
        self, octets: bytes, folder: str | None = None, *, seen: bool = False, received: datetime | None = None
    ) -> None:
        self._put += 1
        draft = self._path.with_name("draft")
        draft.write_bytes(octets)
        if received is not None:
            os.utime(draft, (received.timestamp(), received.timestamp()))
        draft.rename(self._path / f"{self._put:06}.eml")

    async def shown(self, folder: str | None = None) -> Sequence[Shown]:
        if folder not in (None, self.first):
            return []
        return [Shown(file.read_bytes(), frozenset()) for file in sorted(self._path.iterdir())]

    async def remove(self, octets: bytes, folder: str | None = None) -> None:
        next(file for file in self._path.iterdir() if file.read_bytes() == octets).unlink()

    async def cut(self) -> None:
        self._path.rename(self._path.with_suffix(".away"))

    async def mend(self) -> None:
        self._path.with_suffix(".away").rename(self._path)


class TestDrop(SourceSuite):
    @pytest.fixture
    def mailbox(self, tmp_path: Path) -> MailboxUnderTest:
        return DropUnderTest(tmp_path)
