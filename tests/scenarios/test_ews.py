"""The real command on an Exchange mailbox."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from scenarios.suite import NoticedSuite, ServedMailbox
from servers.exchange import Upset, exchange

PASSWORD = "hush-hush"


class ExchangeMailbox(ServedMailbox):
    def reached_at(self, port: int) -> dict[str, Any]:
        url = f"http://localhost:{port}/EWS/Exchange.asmx"
        return {"url": url, "connect_timeout": "1s", "command_timeout": "1s"}

    def secrets(self) -> list[bytes]:
        return [PASSWORD.encode()]

    def disturb(self) -> None:
        self.server.upset(None, Upset.busy(milliseconds=200), times=2)

    def calm(self) -> None:
        self.server.item_errors.clear()

    def forget(self) -> None:
        self.server.forget_states()

    def listed(self) -> bool:
        return "SyncFolderItems" in self.server.requests

    def withhold(self) -> None:
        self.server.item_errors["GetItem", self.server.mails()[3].uid] = "ErrorMimeContentConversionFailed"


class TestExchange(NoticedSuite):
    @pytest.fixture
    def mailbox(self) -> Iterator[ExchangeMailbox]:
        with exchange(password=PASSWORD) as server:
            server.page_size = 7
            yield ExchangeMailbox(server, type="ews", username="EXAMPLE\\svc", password=PASSWORD)
