"""The local sources keep the promises of their port; so does the fake that the engine's tests trust."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import pytest

from mailpoller.core.component import Runtime
from mailpoller.core.ports import Source
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sources.maildir import MaildirConfig
from mailpoller.testing.fake_mailbox import FakeMailbox
from mailpoller.testing.fake_source import FakeSource
from mailpoller.testing.source_suite import MailboxUnderTest, Shown, SourceSuite


class MaildirOnDisk(MailboxUnderTest):
    """A Maildir that this class writes to as a delivery agent and a mail program would."""

    impossible_flag = "$Label1"

    def __init__(self, directory: Path) -> None:
        self.root = directory / "Maildir"
        self.away = directory / "unmounted"
        self.runtime = Runtime(SystemClock(), Spool(directory / "spool"), directory)
        self.runtime.spool.prepare()
        self.delivered = 0
        for place in (self.root, self.root / f".{self.second}"):
            for part in ("tmp", "new", "cur"):
                (place / part).mkdir(parents=True)

    def source(self, *, folders: Sequence[str] | None = None, mode: Literal["live", "shadow"] = "live") -> Source:
        config = MaildirConfig(type="maildir", path=self.root, folders=list(folders or [self.first]), mode=mode)
        return config.build("support", self.runtime)

    def place(self, folder: str | None) -> Path:
        return self.root if folder in (None, self.first) else self.root / f".{folder}"

    async def deliver(
        self, octets: bytes, folder: str | None = None, *, seen: bool = False, received: datetime | None = None
    ) -> None:
        self.delivered += 1
        place, unique = self.place(folder), f"{1_700_000_000 + self.delivered}.M{self.delivered}P7.mail.example"
        draft = place / "tmp" / unique
        draft.write_bytes(octets)
        if received is not None:
            os.utime(draft, (received.timestamp(), received.timestamp()))
        draft.rename(place / "cur" / f"{unique}:2,S" if seen else place / "new" / unique)

    async def shown(self, folder: str | None = None) -> Sequence[Shown]:
        place = self.place(folder)
        files = sorted([*(place / "new").glob("*"), *(place / "cur").glob("*")])
        return [Shown(file.read_bytes(), self.flags(file.name)) for file in files]

    @staticmethod
    def flags(name: str) -> frozenset[str]:
        return frozenset({"S": "\\Seen", "F": "\\Flagged"}[letter] for letter in name.partition(":2,")[2])

    async def remove(self, octets: bytes, folder: str | None = None) -> None:
        place = self.place(folder)
        next(file for file in place.glob("[cn]*/*") if file.read_bytes() == octets).unlink()

    async def cut(self) -> None:
        self.root.rename(self.away)

    async def mend(self) -> None:
        self.away.rename(self.root)


class TestMaildir(SourceSuite):
    @pytest.fixture
    def mailbox(self, tmp_path: Path) -> Iterator[MailboxUnderTest]:  # type: ignore[override]
        yield MaildirOnDisk(tmp_path)


class MailboxInMemory(MailboxUnderTest):
    """The fake's mailbox."""

    impossible_flag = "$Label1"

    def __init__(self) -> None:
        self.server = FakeMailbox([self.first, self.second])
        self.sources: list[FakeSource] = []

    def source(self, *, folders: Sequence[str] | None = None, mode: Literal["live", "shadow"] = "live") -> Source:
        self.sources.append(FakeSource(self.server, folders=list(folders or [self.first]), mode=mode))
        return self.sources[-1]

    async def deliver(
        self, octets: bytes, folder: str | None = None, *, seen: bool = False, received: datetime | None = None
    ) -> None:
        self.server.deliver(octets, folder or self.first, flags=["\\Seen"] if seen else [], received=received)

    async def shown(self, folder: str | None = None) -> Sequence[Shown]:
        place = self.server.folders.get(folder or self.first)
        return [Shown(mail.octets, frozenset(mail.flags)) for mail in place.mails.values()] if place else []

    async def remove(self, octets: bytes, folder: str | None = None) -> None:
        place = self.server.folders[folder or self.first]
        del place.mails[next(uid for uid, mail in place.mails.items() if mail.octets == octets)]

    async def cut(self) -> None:
        for source in self.sources:
            source.cut()


class TestFakeSource(SourceSuite):
    @pytest.fixture
    def mailbox(self) -> Iterator[MailboxUnderTest]:  # type: ignore[override]
        yield MailboxInMemory()
