"""The EWS source keeps the promises of its port, by NTLM and by Basic, in large pages and in small ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from mailpoller.core.ports import Source
from mailpoller.sources.ews import EwsConfig
from mailpoller.testing.source_suite import MailboxUnderTest, Shown, SourceSuite
from servers.exchange import Exchange, exchange
from servers.mailboxes import runtime


class ExchangeMailbox(MailboxUnderTest):
    """A mailbox on the strict server, polled by ``source`` and changed behind its back."""

    impossible_flag = "\\Answered"

    def __init__(self, server: Exchange, directory: Path, **settings: Any) -> None:
        self.server = server
        self.settings = settings
        self.runtime = runtime(directory)
        server.add_folder(self.second)

    def source(self, *, folders: Sequence[str] | None = None, mode: Literal["live", "shadow"] = "live") -> Source:
        config = EwsConfig(
            type="ews",
            url=self.server.url,
            username="EXAMPLE\\svc",
            password="secret",  # type: ignore[arg-type]
            folders=list(folders or [self.first]),
            mode=mode,
            notice_interval=timedelta(milliseconds=200),
            connect_timeout=timedelta(seconds=60),
            command_timeout=timedelta(seconds=60),
            **self.settings,
        )
        return config.build("support", self.runtime)

    async def deliver(
        self, octets: bytes, folder: str | None = None, *, seen: bool = False, received: datetime | None = None
    ) -> None:
        self.server.deliver(octets, self.named(folder), seen=seen, received=received)

    def named(self, folder: str | None) -> str:
        return "Inbox" if folder in (None, self.first) else str(folder)

    async def shown(self, folder: str | None = None) -> Sequence[Shown]:
        if not self.server.has(self.named(folder)):
            return []
        return [
            Shown(
                mail.octets,
                frozenset(
                    [*(["\\Seen"] if mail.seen else []), *(["\\Flagged"] if mail.flagged else []), *mail.categories]
                ),
            )
            for mail in self.server.mails(self.named(folder))
        ]

    async def remove(self, octets: bytes, folder: str | None = None) -> None:
        self.server.remove(octets, self.named(folder))

    async def cut(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def mend(self) -> None:
        self.server.start()


class TestEwsByNtlm(SourceSuite):
    @pytest.fixture
    def mailbox(self, tmp_path: Path) -> Iterator[MailboxUnderTest]:  # type: ignore[override]
        with exchange() as server:
            yield ExchangeMailbox(server, tmp_path)


class TestEwsOfASharedMailboxInSmallPagesOutOfOrder(SourceSuite):
    """As a delegate, with Basic; the server pages by three, answers in reverse, and keeps flags as categories."""

    @pytest.fixture
    def mailbox(self, tmp_path: Path) -> Iterator[MailboxUnderTest]:  # type: ignore[override]
        with exchange(offers=["Basic"]) as server:
            server.page_size = 3
            server.reorders = True
            server.chunk = 1000
            mailbox = ExchangeMailbox(server, tmp_path, mailbox="support@example.com")
            mailbox.flag = "Red Category"
            yield mailbox
