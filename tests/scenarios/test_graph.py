"""The real command on a Graph mailbox."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from mailpoller.testing.builders import auto_reply, plain
from scenarios.harness import Site
from scenarios.suite import NoticedSuite, ServedMailbox, fill
from servers.graph import strict_graph


class GraphMailbox(ServedMailbox):
    def reached_at(self, port: int) -> dict[str, Any]:
        self.server.reached_at = port
        return {"url": f"http://127.0.0.1:{port}/v1.0", "timeout": "1s"}

    def secrets(self) -> list[bytes]:
        signatures = [part.encode() for token in self.server.tokens for part in token.split(".")[2:]]
        assert signatures
        return [self.server.secret.encode(), *signatures]

    def disturb(self) -> None:
        self.server.throttle(2, retry_after=0.2)
        self.server.throttle_parts(5, retry_after=0.1)

    def calm(self) -> None:
        self.server.broken.clear()

    def forget(self) -> None:
        self.server.expire()

    def listed(self) -> bool:
        return self.server.count("/delta") > 0

    def withhold(self) -> None:
        self.server.broken[self.server.mails()[3].uid] = 500, "ErrorMimeContentConversionFailed"


class TestGraph(NoticedSuite):
    @pytest.fixture
    def mailbox(self) -> Iterator[GraphMailbox]:
        with strict_graph() as server:
            server.page_size = 7
            yield GraphMailbox(server, type="graph", user=server.user, auth=server.auth)

    def test_what_the_first_run_left_out_stays_left_out_whatever_people_do_to_it(
        self, site: Site, mailbox: GraphMailbox
    ) -> None:
        server = mailbox.server
        block = {"start": "unseen", "disposition": "seen", "sweep_interval": "100ms"}
        site.settings["mailboxes"]["support"] |= block
        old = [server.deliver(plain(subject=f"old {number}"), seen=True) for number in range(10)]
        expected = fill(mailbox, 5)
        assert site.once() == 0
        server.change(old[0], seen=False)
        server.change(old[1], flagged=True)
        server.move(old[2], "deleteditems")
        server.move(old[2], "inbox")
        assert site.once() == 0
        server.expire()
        server.deliver(plain(subject="new"), seen=True)
        assert site.once() == 0
        assert site.subjects() == expected + Counter(["new"])

    def test_quarantine_goes_to_a_mailbox_by_graph(self, site: Site, mailbox: GraphMailbox) -> None:
        server = mailbox.server
        site.settings["outgoing"] = {
            "office": {"type": "graph", "sender": server.user, "url": server.url, "auth": server.auth}
        }
        site.settings["quarantine"] = {"type": "smtp", "outgoing": "office", "to": "quarantine@example.com"}
        mailbox.deliver(auto_reply(subject="away"))
        expected = fill(mailbox, 3)
        assert site.once() == 0
        assert site.subjects() == expected
        (sent,) = server.sent
        assert b"quarantine@example.com" in sent
        assert len(server.mails("Processed")) == 4
        assert [b"Subject: away" in octets for octets in site.quarantined()] == [True]
