"""The real command on an Exchange mailbox."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from scenarios.suite import NoticedMailbox, NoticedSuite
from servers.exchange import Exchange, Upset, exchange

PASSWORD = "hush-hush"


class ExchangeMailbox(NoticedMailbox):
    def __init__(self, server: Exchange) -> None:
        self.server = server
        self.port = server.port
        self.block = {
            "type": "ews", "url": server.url, "username": "EXAMPLE\\svc", "password": PASSWORD,
            "disposition": {"seen": True, "move": "Processed"},
        }  # fmt: skip

    def deliver(self, *mails: bytes, seen: bool = False) -> None:
        for mail in mails:
            self.server.deliver(mail, seen=seen)

    def assert_settled(self, total: int) -> None:
        assert self.server.mails() == []
        moved = self.server.mails("Processed")
        assert len(moved) == total
        assert all(mail.seen for mail in moved)

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
            yield ExchangeMailbox(server)
