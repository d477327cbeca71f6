"""The POP3 source keeps the promises of its port, on a real Dovecot: in clear, through TLS, after STLS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mailpoller.testing.source_suite import MailboxUnderTest, SourceSuite
from servers.dovecot import Dovecot
from servers.maildrop import Maildrop
from servers.proxy import FaultProxy


@pytest.fixture(scope="module")
def server() -> Iterator[Dovecot]:
    with Dovecot(pop3=True) as dovecot:
        yield dovecot


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
