"""The source ``drop``: a directory of files, each one a message under a name never used before."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from mailpoller.core.component import Runtime
from mailpoller.core.delivery import LEAVE, Disposed, Disposition, Settlement
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.literals import DispositionLiteral
from mailpoller.core.message import Account, Claim, Folder, Gone, MessageRef, Page, Position, RawMessage, Survey
from mailpoller.core.ports import Session, Source, Stage, Start, Wake
from mailpoller.core.source_config import SourceConfig
from mailpoller.core.spool import Spool


class DropConfig(SourceConfig):
    """Poll a directory of files, each one a message."""

    type: Literal["drop"]
    path: Path
    """The directory."""
    disposition: DispositionLiteral = LEAVE
    """``leave`` or ``delete``: a directory knows neither flags nor folders."""

    def build(self, name: str, runtime: Runtime) -> Source:
        return Drop(name, self, runtime.spool)


class Drop:
    def __init__(self, mailbox: str, config: DropConfig, spool: Spool) -> None:
        self.path = config.path.absolute()  # a mailbox is the same wherever the service is started
        self.account = Account(type="drop", host="localhost", user=str(self.path))
        self.mailbox = mailbox
        self.shadow = config.mode == "shadow"
        self.spool = spool

    async def connect(self) -> Session:
        if not self.path.is_dir():
            raise TransientError(f"{self.path} is no directory")
        return DropSession(self)

    async def probe(self, dispositions: Sequence[Disposition]) -> AsyncIterator[Stage]:
        found = self.path.is_dir()
        yield Stage("folder", found, timedelta(0), str(self.path), "" if found else "make the directory, or mend path")


class DropSession:
    def __init__(self, source: Drop) -> None:
        self.source = source
        self.listed: set[str] = set()
        self.closed = False

    def files(self) -> dict[str, os.stat_result]:
        """What is there now. Every call begins with it, so that each of them notices a session that is lost."""
        if self.closed:
            raise SessionLost("the session is closed")
        try:
            with os.scandir(self.source.path) as entries:
                return {entry.name: entry.stat() for entry in entries if entry.is_file()}
        except FileNotFoundError:
            raise SessionLost(f"{self.source.path}, or a file in it, has gone") from None

    async def folders(self) -> Sequence[str]:
        self.files()
        return ["files"]

    async def open(self, name: str) -> Folder:
        self.files()
        if name != "files":
            raise TransientError(f"there is no folder {name}")
        return Folder(self.source.mailbox, name, epoch=f"drop:{self.source.path}")

    async def pending(self, folder: Folder, since: Position | None, start: Start) -> AsyncIterator[Page]:
        # There are no positions: each listing shows everything, and the ledger knows which of it is settled.
        files = self.files()
        self.listed = set(files)
        earliest = {"now": math.inf, "since": start.instant.timestamp() if start.instant else 0.0}.get(start.kind, 0.0)
        refs = [ref for name in sorted(files) if (ref := self.shown(folder, name, files[name])) is not None]
        wanted = [ref for ref in refs if files[ref.uid].st_mtime >= earliest]
        unwanted = [ref for ref in refs if files[ref.uid].st_mtime < earliest]
        yield Page(wanted, unwanted=unwanted)

    async def survey(self, folder: Folder, position: Position | None) -> Survey:
        # Names are never used again, so there is nothing to compare with what the ledger knows.
        self.files()
        return Survey()

    async def look(self, refs: Sequence[MessageRef]) -> Sequence[MessageRef | None]:
        files = self.files()
        return [self.shown(ref.folder, ref.uid, files.get(ref.uid)) for ref in refs]

    def shown(self, folder: Folder, uid: str, stat: os.stat_result | None) -> MessageRef | None:
        if stat is None:
            return None
        return MessageRef(folder, uid, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))

    async def fetch(self, claims: Sequence[Claim], limit: int) -> AsyncIterator[RawMessage | Gone]:
        for claim in claims:
            stat = self.files().get(claim.ref.uid)
            if stat is None:
                yield Gone(claim)
                continue
            intake = self.source.spool.begin(limit)
            try:
                with (self.source.path / claim.ref.uid).open("rb") as file:
                    while not intake.overflowed and (chunk := file.read(1 << 16)):
                        intake.write(chunk)
            except OSError as error:
                intake.abort()
                raise TransientError(f"cannot read {claim.ref.uid}: {error.strerror}") from error
            received = datetime.fromtimestamp(stat.st_mtime, UTC)
            yield RawMessage(claim, intake.finish(), intake.overflowed, announced=stat.st_size, received=received)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[Disposed]:
        self.files()
        return [self._dispose(settlement) for settlement in settlements]

    def _dispose(self, settlement: Settlement) -> Disposed:
        if self.source.shadow or settlement.disposition.leaves:
            return Disposed(settlement, "applied")
        if settlement.disposition != Disposition(delete=True):
            return Disposed(settlement, "failed", "a directory knows neither flags nor folders")
        path = self.source.path / settlement.ref.uid
        path.unlink(missing_ok=True)
        if path.exists():  # that it was told to is no evidence
            return Disposed(settlement, "failed", "the file is deleted, and still there")
        return Disposed(settlement, "applied")

    async def wait(self, limit: timedelta) -> Wake:
        end = time.monotonic() + limit.total_seconds()
        while set(self.files()) <= self.listed:
            if (left := end - time.monotonic()) <= 0:
                return Wake.LIMIT
            await asyncio.sleep(min(left, 1.0))
        return Wake.NEWS

    async def close(self) -> None:
        self.closed = True
