"""The real command on a Gmail mailbox."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from mailpoller.testing.builders import plain
from scenarios.harness import Site
from scenarios.suite import NoticedSuite, ServedMailbox, assert_no_secret_is_on_disk, fill
from servers.gmail import Gmail, Upset

BROKEN = Upset.refusal(500, "backendError", "Backend Error")


class GmailMailbox(ServedMailbox):
    def assert_settled(self, total: int) -> None:
        assert self.server.under("INBOX") == []
        moved = self.server.under("Processed")
        assert len(moved) == total
        assert not any("UNREAD" in mail.labels for mail in moved)

    def reached_at(self, port: int) -> dict[str, Any]:
        return {"url": f"http://127.0.0.1:{port}", "timeout": "1s"}

    def secrets(self) -> list[bytes]:
        assert self.server.tokens
        return [b"app-secret", b"refresh-me", *(token.encode() for token in self.server.tokens)]

    def disturb(self) -> None:
        self.server.calm()
        self.server.upset(
            "/messages", Upset.throttled(after="0.2"), Upset.throttled(403, "userRateLimitExceeded", "0.2")
        )
        self.server.upset("/messages/", BROKEN)

    def calm(self) -> None:
        self.server.calm()

    def forget(self) -> None:
        self.server.expire_history()

    def listed(self) -> bool:
        return self.server.count("GET /history") > 0

    def withhold(self) -> None:
        self.server.upset(f"GET .*/messages/{list(self.server.mails)[3]}", *[BROKEN] * 1000)


class TestGmail(NoticedSuite):
    up = (2_000,)
    down = (400, 3_000, 30_000)

    @pytest.fixture
    def mailbox(self) -> Iterator[GmailMailbox]:
        with Gmail() as server:
            server.page_size = 7
            yield GmailMailbox(server, type="gmail", user=server.user, auth=server.auth)
            assert server.violations == []

    @pytest.mark.parametrize("start", ["unseen", "now", "since:2026-01-01"])
    def test_what_the_first_run_left_out_stays_left_out_whatever_people_do_to_it(
        self, site: Site, mailbox: GmailMailbox, start: str
    ) -> None:
        server = mailbox.server
        site.settings["mailboxes"]["support"] |= {"start": start, "disposition": "seen"}
        long_ago = datetime(2020, 1, 1, tzinfo=UTC)
        old = [server.deliver(plain(subject=f"old {n}"), seen=True, received=long_ago) for n in range(10)]
        expected: Counter[str] = Counter() if start == "now" else fill(mailbox, 5)
        assert site.once() == 0
        server.relabel(old[0], add=["UNREAD"])
        server.relabel(old[1], add=["STARRED"])
        server.relabel(old[2], remove=["INBOX"])
        server.relabel(old[2], add=["INBOX"])
        assert site.once() == 0
        server.expire_history()
        server.deliver(plain(subject="new"), seen=True)
        assert site.once() == 0
        assert site.subjects() == expected + Counter(["new"])

    def test_refused_token_ends_in_a_mailbox_that_waits_and_names_the_reason(
        self, site: Site, mailbox: GmailMailbox
    ) -> None:
        mailbox.server.scope = "https://www.googleapis.com/auth/gmail.readonly"
        refusal = Upset.refusal(403, "insufficientPermissions", f"Insufficient Permission {'A' * 60}")
        mailbox.server.upset("/profile", *[refusal] * 100)
        with site.run() as daemon:
            daemon.until_said("mailbox.refused")
            assert "gmail.modify" in daemon.said
            assert daemon.stop() == 0
        assert_no_secret_is_on_disk(site, mailbox)
