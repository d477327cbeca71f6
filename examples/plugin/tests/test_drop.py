"""Puts the source ``drop`` through what every source promises."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.message import Account
from mailpoller.core.ports import Source
from mailpoller.testing.source_suite import MailboxUnderTest, Shown, SourceSuite
from mailpoller_examples.drop import DropConfig


class DropUnderTest(MailboxUnderTest):
    first = "files"
    has_folders = False
    has_positions = False
    knows_unseen = False
    waits_connected = False
    steps = frozenset({"delete"})

    def __init__(self, directory: Path, runtime: Runtime) -> None:
        self._path = directory / "drop"
        self._path.mkdir()
        self._runtime = runtime
        self._put = 0

    def source(self, *, folders: Sequence[str] | None = None, mode: Literal["live", "shadow"] = "live") -> Source:
        # One folder has no name to be wrong but its directory's.
        path = self._path if folders in (None, [self.first]) else self._path / "missing"
        return DropConfig(type="drop", path=path, mode=mode).build("box", self._runtime)

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
    def mailbox(self, tmp_path: Path, runtime: Runtime) -> MailboxUnderTest:
        return DropUnderTest(tmp_path, runtime)


def test_relative_path_is_the_same_mailbox_as_the_whole_one_and_not_that_of_another_directory(
    tmp_path: Path, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def account(path: Path) -> Account:
        return DropConfig(type="drop", path=path).build("box", runtime).account

    monkeypatch.chdir(tmp_path)
    assert account(Path("incoming")) == account(tmp_path / "incoming")
    here = account(Path("incoming"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert account(Path("incoming")) != here
