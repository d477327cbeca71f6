"""The Gmail source keeps the promises of its port, against a server as the published contract describes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from mailpoller.core.ports import Source
from mailpoller.sources.gmail import GmailConfig
from mailpoller.testing.source_suite import MailboxUnderTest, Shown, SourceSuite
from servers.gmail import Gmail
from servers.mailboxes import runtime


class GmailMailbox(MailboxUnderTest):
    """A mailbox on the strict server, polled by ``source`` and changed behind its back."""

    impossible_flag = "\\Answered"

    def __init__(self, server: Gmail, directory: Path, **settings: Any) -> None:
        self.server = server
        self.settings = settings
        self.runtime = runtime(directory)
        server.add_label(self.second)

    def source(self, *, folders: Sequence[str] | None = None, mode: Literal["live", "shadow"] = "live") -> Source:
        known: dict[str, Any] = {
            "type": "gmail", "user": self.server.user, "url": self.server.url, "auth": self.server.auth,
            "folders": list(folders or [self.first]), "mode": mode, "notice_interval": "200ms", "timeout": "60s",
        }  # fmt: skip
        return GmailConfig.model_validate({**known, **self.settings}).build("support", self.runtime)

    async def deliver(
        self, octets: bytes, folder: str | None = None, *, seen: bool = False, received: datetime | None = None
    ) -> None:
        self.server.deliver(octets, folder or self.first, seen=seen, received=received)

    async def shown(self, folder: str | None = None) -> Sequence[Shown]:
        names = {uid: name for name, uid in self.server.label_ids.items()}
        found = []
        for mail in self.server.under(folder or self.first):
            flags = {names[uid] for uid in mail.labels}
            seen, starred = "UNREAD" not in flags, "STARRED" in flags
            named = [*(["\\Seen"] if seen else []), *(["\\Flagged"] if starred else []), *flags]
            found.append(Shown(mail.octets, frozenset(named)))
        return found

    async def remove(self, octets: bytes, folder: str | None = None) -> None:
        self.server.remove(next(one.uid for one in self.server.under(folder or self.first) if one.octets == octets))

    async def cut(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def mend(self) -> None:
        self.server.start()


class TestGmail(SourceSuite):
    @pytest.fixture
    def mailbox(self, tmp_path: Path) -> Iterator[MailboxUnderTest]:  # type: ignore[override]
        with Gmail() as server:
            yield GmailMailbox(server, tmp_path)
            assert server.violations == []


class TestGmailInSmallPagesOutOfOrder(SourceSuite):
    """Of whoever the token is for, under labels of its own; the server pages by three, in another order, escapes, and
    minds what is gone."""

    @pytest.fixture
    def mailbox(self, tmp_path: Path) -> Iterator[MailboxUnderTest]:  # type: ignore[override]
        with Gmail() as server:
            server.page_size = 3
            server.reorders = server.escapes = server.batch_knows_missing = True
            mailbox = GmailMailbox(server, tmp_path, user="me")
            mailbox.first, mailbox.second, mailbox.flag = "Support/Germany", "Überweisungen", "Follow up"
            server.add_label(mailbox.first)
            server.add_label(mailbox.second)
            yield mailbox
            assert server.violations == []
