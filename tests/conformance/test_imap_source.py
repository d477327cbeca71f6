"""The IMAP source keeps the promises of its port, on a real Dovecot."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import pytest

from mailpoller.core.ports import Source
from mailpoller.testing.source_suite import MailboxUnderTest, Shown, SourceSuite
from servers.dovecot import Dovecot
from servers.mailboxes import imap_source
from servers.proxy import FaultProxy

_numbers = itertools.count(1)


SERVERS = {
    "modern": {},
    "courier-like": {
        "prefix": "INBOX.",
        "separator": ".",
        "extra": "imap_capability = IMAP4rev1 IDLE NAMESPACE UIDPLUS",
    },
}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Dovecot]:
    """With every extension; and with a namespace prefix, but without MOVE, ESEARCH and SASL-IR."""
    with Dovecot(**SERVERS[request.param]) as dovecot:
        yield dovecot


class MailboxOnDovecot(MailboxUnderTest):
    """One user's mailbox, reached through a proxy that can cut the connection."""

    impossible_flag = "\\Nonsense"

    def __init__(self, server: Dovecot, proxy: FaultProxy, directory: Path) -> None:
        self.server = server
        self.proxy = proxy
        self.directory = directory
        self.user = f"suite{next(_numbers)}"
        server.create(self.user, self.place(self.second))

    def place(self, folder: str | None) -> str:
        """A folder's name on the server."""
        return self.first if folder in (None, self.first) else f"{self.server.prefix}{folder}"

    def source(self, *, folders: Sequence[str] | None = None, mode: Literal["live", "shadow"] = "live") -> Source:
        return imap_source(
            self.directory, self.proxy.port, self.user, folders=list(folders or [self.first]), mode=mode
        )  # fmt: skip

    async def deliver(
        self, octets: bytes, folder: str | None = None, *, seen: bool = False, received: datetime | None = None
    ) -> None:
        self.server.deliver(self.user, octets, self.place(folder), received, seen=seen)

    async def shown(self, folder: str | None = None) -> Sequence[Shown]:
        name = self.place(folder)
        if name not in await asyncio.to_thread(self.server.folders, self.user):
            return []
        flags = await asyncio.to_thread(self.server.flags, self.user, name)
        octets = await asyncio.to_thread(self.server.octets, self.user, name)
        return [Shown(octets[uid], flags[uid]) for uid in sorted(octets)]

    async def remove(self, octets: bytes, folder: str | None = None) -> None:
        found = await asyncio.to_thread(self.server.octets, self.user, self.place(folder))
        uid = next(uid for uid, held in found.items() if held == octets)
        await asyncio.to_thread(self.server.expunge, self.user, str(uid), self.place(folder))

    async def cut(self) -> None:
        self.proxy.cut()


class TestImap(SourceSuite):
    @pytest.fixture
    async def mailbox(self, server: Dovecot, tmp_path: Path) -> AsyncIterator[MailboxUnderTest]:
        async with FaultProxy(server.imap_port) as proxy:
            yield MailboxOnDovecot(server, proxy, tmp_path)
