"""The Graph source keeps the promises of its port, in large pages and in small ones that repeat themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

pytest.importorskip("httpcore")
from mailpoller.core.component import Runtime
from mailpoller.core.ports import Source
from mailpoller.core.spool import Spool
from mailpoller.engine.clock import SystemClock
from mailpoller.sources.graph import GraphConfig
from mailpoller.testing.source_suite import MailboxUnderTest, Shown, SourceSuite
from servers.graph import Graph, strict_graph


class GraphMailbox(MailboxUnderTest):
    """A mailbox on the strict server, polled by ``source`` and changed behind its back."""

    second = "Support"
    impossible_flag = "\\Answered"

    def __init__(self, server: Graph, directory: Path, **settings: Any) -> None:
        self.server = server
        self.settings = settings
        self.runtime = Runtime(SystemClock(), Spool(directory / "spool"), directory)
        self.runtime.spool.prepare()
        server.add_folder(self.second)

    def source(self, *, folders: Sequence[str] | None = None, mode: Literal["live", "shadow"] = "live") -> Source:
        config = GraphConfig.model_validate(
            {
                "type": "graph",
                "user": self.server.user,
                "url": self.server.url,
                "auth": self.server.auth,
                "folders": list(folders or [self.first]),
                "mode": mode,
                "notice_interval": timedelta(milliseconds=200),
                "timeout": timedelta(seconds=60),
                **self.settings,
            }
        )
        return config.build("support", self.runtime)

    async def deliver(
        self, octets: bytes, folder: str | None = None, *, seen: bool = False, received: datetime | None = None
    ) -> None:
        self.server.deliver(octets, folder or self.first, seen=seen, received=received)

    async def shown(self, folder: str | None = None) -> Sequence[Shown]:
        return [Shown(mail.octets, mail.flags) for mail in self.server.mails(folder or self.first)]

    async def remove(self, octets: bytes, folder: str | None = None) -> None:
        self.server.remove(octets)

    async def cut(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def mend(self) -> None:
        self.server.start()


class TestGraph(SourceSuite):
    @pytest.fixture
    def mailbox(self, tmp_path: Path) -> Iterator[MailboxUnderTest]:  # type: ignore[override]
        with strict_graph() as server:
            yield GraphMailbox(server, tmp_path)


class TestGraphInSmallPagesOutOfOrder(SourceSuite):
    """The service pages by three, repeats itself, and answers batches in reverse; what is deleted is so for good."""

    @pytest.fixture
    def mailbox(self, tmp_path: Path) -> Iterator[MailboxUnderTest]:  # type: ignore[override]
        with strict_graph() as server:
            server.page_size = 3
            server.reorders = server.repeats = True
            mailbox = GraphMailbox(server, tmp_path, deletion="permanent")
            mailbox.flag = "Red Category"
            yield mailbox
