"""The POP3 source keeps the promises of its port on Courier, where that is at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from servers import courier
from servers.proxy import FaultProxy

if not courier.installed:
    pytest.skip("no Courier at hand: see tests/servers/courier.py", allow_module_level=True)

from mailpoller.testing.source_suite import MailboxUnderTest, SourceSuite
from servers.maildrop import Maildrop


class TestPop3OnCourier(SourceSuite):
    @pytest.fixture
    async def mailbox(self, tmp_path: Path) -> AsyncIterator[MailboxUnderTest]:
        async with courier.Courier(tmp_path) as server, FaultProxy(server.port) as proxy:
            mailbox = Maildrop(server, proxy, tmp_path, {"auth": {"mechanism": "user"}})
            await mailbox.deliver(b"")
            await mailbox.remove(b"")
            yield mailbox
