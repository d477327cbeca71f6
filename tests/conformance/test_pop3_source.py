"""The POP3 source keeps the promises of its port, on a real Dovecot (in clear, through TLS, after STLS) and on Courier."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from mailpoller.core.ports import Source
from servers import courier
from servers.courier import Courier
from servers.dovecot import Dovecot
from servers.pop3_mailboxes import pop3_source
from servers.proxy import FaultProxy

pytest.register_assert_rewrite("mailpoller.testing.source_suite")

from mailpoller.testing.source_suite import MailboxUnderTest, Shown, SourceSuite  # noqa: E402

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    with Dovecot(pop3=True) as dovecot:
        yield dovecot


class Maildrop(MailboxUnderTest):
    """One user's maildrop, reached through a proxy that can cut the connection."""

    has_folders = False
    steps = frozenset({"delete"})
    keeps_received = False
    knows_unseen = False
    ends_lines = True
    disposes_at_close = True
    waits_connected = False
    notices_within = timedelta(seconds=3)

    def __init__(
        self, server: Dovecot | Courier, proxy: FaultProxy, directory: Path, settings: Mapping[str, Any]
    ) -> None:
        self.server = server
        self.proxy = proxy
        self.directory = directory
        self.settings = {"poll_interval": "1s", **settings}
        self.user = f"drop{next(_numbers)}"
        self.sources: dict[str, Source] = {}

    def source(self, *, folders: Sequence[str] | None = None, mode: Literal["live", "shadow"] = "live") -> Source:
        """One source for each mode, as in a service: its positions are its own. A folder that cannot be is a password that is
        none."""
        if folders == [self.target]:
            return pop3_source(self.directory, self.proxy.port, self.user, **self.settings | {"password": "wrong"})
        if mode not in self.sources:
            self.sources[mode] = pop3_source(self.directory, self.proxy.port, self.user, mode=mode, **self.settings)
        return self.sources[mode]

    async def deliver(
        self, octets: bytes, folder: str | None = None, *, seen: bool = False, received: datetime | None = None
    ) -> None:
        if isinstance(self.server, Dovecot):
            self.server.deliver(self.user, octets, date=received, seen=seen)
            return
        box = self.server.maildir(self.user)
        for part in ("cur", "new", "tmp"):
            (box / part).mkdir(parents=True, exist_ok=True)
        (box / "new" / f"{1_700_000_000 + next(_numbers)}.M1P1.mail.example").write_bytes(
            octets.replace(b"\r\n", b"\n")
        )

    async def shown(self, folder: str | None = None) -> Sequence[Shown]:
        """Without flags: POP3 has none, and what Dovecot notes by itself about messages that were read is its own affair."""
        box = self.server.maildir(self.user)
        files = [] if folder not in (None, self.first) else sorted([*box.glob("new/*"), *box.glob("cur/*")])
        return [Shown(self.wire(file), frozenset()) for file in files]

    def wire(self, file: Path) -> bytes:
        """A message as the server gives it: Courier wants lines on disk to end with LF alone."""
        octets = file.read_bytes()
        return octets if isinstance(self.server, Dovecot) else octets.replace(b"\n", b"\r\n")

    async def remove(self, octets: bytes, folder: str | None = None) -> None:
        box = self.server.maildir(self.user)
        next(file for file in box.glob("[cn]*/*") if self.wire(file) == octets).unlink()

    async def cut(self) -> None:
        self.proxy.cut()


class TestPop3(SourceSuite):
    @pytest.fixture
    async def mailbox(self, server: Dovecot, tmp_path: Path) -> AsyncIterator[MailboxUnderTest]:
        async with FaultProxy(server.pop3_port) as proxy:
            yield Maildrop(server, proxy, tmp_path, {})


class TestPop3Tls(SourceSuite):
    @pytest.fixture
    async def mailbox(self, server: Dovecot, tmp_path: Path) -> AsyncIterator[MailboxUnderTest]:
        async with FaultProxy(server.pop3s_port) as proxy:
            yield Maildrop(server, proxy, tmp_path, {"tls": "tls", "ca_file": str(server.ca_file)})


class TestPop3Stls(SourceSuite):
    @pytest.fixture
    async def mailbox(self, server: Dovecot, tmp_path: Path) -> AsyncIterator[MailboxUnderTest]:
        async with FaultProxy(server.pop3_port) as proxy:
            yield Maildrop(server, proxy, tmp_path, {"tls": "starttls-required", "ca_file": str(server.ca_file)})


@pytest.mark.skipif(not courier.installed, reason="no Courier at hand: see tests/servers/courier.py")
class TestPop3OnCourier(SourceSuite):
    @pytest.fixture
    async def mailbox(self, tmp_path: Path) -> AsyncIterator[MailboxUnderTest]:
        async with Courier(tmp_path) as server, FaultProxy(server.port) as proxy:
            mailbox = Maildrop(server, proxy, tmp_path, {"auth": {"mechanism": "user"}})
            await mailbox.deliver(b"")
            await mailbox.remove(b"")
            yield mailbox
