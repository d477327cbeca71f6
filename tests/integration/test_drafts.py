"""Mail by drafts: whatever dies at whatever step, the service sends it once."""

from __future__ import annotations

import email
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from clocks import SkippingClock
from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.ports import Draft, Keep, Mail, Said, Stage
from mailpoller.mail.compose import test_mail as made_test_mail
from mailpoller.outgoings.gmail import GmailOutgoing, GmailOutgoingConfig
from mailpoller.outgoings.graph import GraphOutgoing, GraphOutgoingConfig
from mailpoller.remote.drafts import posted_by_draft
from mailpoller.wire.smtp import RelayUnavailable
from servers.gmail import Gmail, Upset
from servers.graph import Graph, strict_graph
from servers.mailboxes import runtime

NOW = datetime(2026, 11, 22, tzinfo=UTC)


class Killed(BaseException):
    """The process ends here."""


class Site:
    """A service, and what our side keeps. ``outgoing()`` is a new process."""

    def __init__(self, server: Graph | Gmail, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.clock = SkippingClock()
        self.kept: Draft | None = None
        self.told: list[Draft | None] = []
        self.steps = 0
        self.kill: tuple[int, str] | None = None
        self.mail = made_test_mail(sender=server.user, recipients=("ada@customer.example",), footer="x", at=NOW)

    def outgoing(self, **settings: Any) -> GraphOutgoing | GmailOutgoing:
        values = {"sender": self.server.user, "url": self.server.url, "auth": self.server.auth, **settings}
        if isinstance(self.server, Graph):
            made: Any = GraphOutgoingConfig.model_validate({"type": "graph", **values})
        else:
            made = GmailOutgoingConfig.model_validate({"type": "gmail", **values})
        built = made.build("office", replace(runtime(self.directory), clock=self.clock))
        assert isinstance(built, GraphOutgoing | GmailOutgoing)
        return built

    @property
    def sent(self) -> list[bytes]:
        return self.server.sent if isinstance(self.server, Graph) else self.server.posted

    @property
    def drafts(self) -> int:
        return len(self.server.mails("drafts") if isinstance(self.server, Graph) else self.server.drafts)

    def step(self, when: str) -> None:
        self.steps += when == "before"
        if self.kill == (self.steps, when):
            raise Killed

    async def keep(self, draft: Draft | None) -> None:
        self.step("before")
        self.kept = draft
        self.told.append(draft)
        self.step("after")

    async def attempt(self, mail: Mail | None = None, keep: Keep | None = None, **settings: Any) -> Mapping[str, Said]:
        outgoing = self.outgoing(**settings)
        try:
            drafts: Any = Stepped(outgoing, self)
            return await posted_by_draft(drafts, mail or self.mail, self.kept, keep or self.keep, self.clock)
        finally:
            await outgoing.close()

    async def until_done(self) -> Said:
        for _ in range(6):
            (said,) = (await self.attempt()).values()
            if said.state != "deferred":
                return said
            await self.clock.sleep(61)
        raise AssertionError(said)


class Stepped:
    """The drafts of an outgoing, each of whose requests is a step at which the process may die."""

    def __init__(self, outgoing: Any, site: Site) -> None:
        self._outgoing, self._site = outgoing, site

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._outgoing, name)

        async def step(*values: Any) -> Any:
            self._site.step("before")
            found = await asked(*values)
            self._site.step("after")
            return found

        return step


@pytest.fixture(params=["graph", "gmail"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "graph":
        with strict_graph() as graph:
            yield Site(graph, tmp_path)
    else:
        with Gmail() as gmail:
            yield Site(gmail, tmp_path)
            assert gmail.violations == []


async def test_a_mail_is_a_draft_on_record_before_it_is_sent(site: Site) -> None:
    sent_when_kept: list[int] = []

    async def keep(draft: Draft | None) -> None:
        sent_when_kept.append(len(site.sent))
        site.kept = draft

    said = await site.attempt(keep=keep)
    assert [one.state for one in said.values()] == ["accepted"]
    assert sent_when_kept == [0] and site.sent == [site.mail.octets]
    assert site.drafts == 0
    assert site.kept is not None
    assert site.kept.message_id == email.message_from_bytes(site.mail.octets)["Message-ID"]


async def test_the_message_id_that_the_service_gives_is_the_one_on_record(site: Site) -> None:
    site.server.renames = True
    await site.attempt()
    assert site.kept is not None
    assert site.kept.message_id == email.message_from_bytes(site.sent[0])["Message-ID"]


@pytest.mark.parametrize("keeps_sent", [True, False])
async def test_killed_at_any_step_the_mail_is_sent_once(site: Site, keeps_sent: bool) -> None:
    site.server.keeps_sent = keeps_sent
    step, died = 0, 0
    while not died or died == step * 2:
        step += 1
        for when in ("before", "after"):
            site.kept, site.steps, site.kill = None, 0, (step, when)
            site.sent.clear()
            try:
                await site.attempt()
            except Killed:
                died += 1
            site.kill = None
            assert (await site.until_done()).state == "accepted", (step, when)
            assert len(site.sent) == 1, (step, when)
    assert died >= 6


async def test_that_a_draft_is_missing_is_not_believed_on_one_look(site: Site) -> None:
    site.server.keeps_sent = False
    await site.attempt()
    first = await site.attempt()
    assert [one.state for one in first.values()] == ["deferred"]
    assert [one.state for one in (await site.attempt()).values()] == ["deferred"]  # the same moment is no second look
    await site.clock.sleep(61)
    (said,) = (await site.attempt()).values()
    assert said.state == "accepted" and "gone" in said.words
    assert len(site.sent) == 1


async def test_a_draft_that_was_missed_by_a_clock_that_was_ahead_is_not_missing_for_ever(site: Site) -> None:
    site.server.keeps_sent = False
    await site.attempt()
    assert site.kept is not None
    site.kept = replace(site.kept, missed_at=site.clock.now() + timedelta(days=365))
    assert (await site.until_done()).state == "accepted"
    assert len(site.sent) == 1


async def test_a_draft_that_is_seen_again_is_sent_after_all(site: Site) -> None:
    site.kill = (2, "after")
    with pytest.raises(Killed):
        await site.attempt()
    site.kill = None
    assert site.kept is not None and site.sent == []
    site.kept = replace(site.kept, missed_at=site.clock.now())  # a server that lags did not show it once
    await site.clock.sleep(61)
    (said,) = (await site.attempt()).values()
    assert said.state == "accepted" and len(site.sent) == 1


async def test_a_draft_in_anothers_mailbox_says_nothing_about_this_one(site: Site) -> None:
    site.kept = Draft("gone", "<x@x>", "elsewhere nobody", site.mail.recipients)
    (said,) = (await site.attempt()).values()
    assert said.state == "accepted" and len(site.sent) == 1


async def test_a_draft_for_others_is_never_sent(site: Site) -> None:
    site.kill = (2, "after")
    with pytest.raises(Killed):
        await site.attempt()
    site.kill = None
    other = made_test_mail(sender=site.server.user, recipients=("test@x.example",), footer="x", at=NOW)
    said = await site.attempt(other)
    assert [one.state for one in said.values()] == ["accepted"]
    assert site.sent == [other.octets]
    assert site.drafts == 0


async def test_killed_while_a_draft_for_others_is_removed_the_mail_is_not_taken_for_sent(site: Site) -> None:
    other = made_test_mail(sender=site.server.user, recipients=("test@x.example",), footer="x", at=NOW)
    for kill in [(step, when) for step in (1, 2, 3, 4) for when in ("before", "after")]:
        site.kept, site.steps, site.kill = None, 0, (2, "after")
        site.sent.clear()
        with pytest.raises(Killed):
            await site.attempt()
        site.steps, site.kill = 0, kill
        with pytest.raises(Killed):
            await site.attempt(other)
        site.kill = None
        for _ in range(3):
            (said,) = (await site.attempt(other)).values()
            await site.clock.sleep(61)
        assert said.state == "accepted"
        assert site.sent == [other.octets], kill


async def test_a_ledger_that_cannot_note_the_draft_sends_nothing_and_leaves_none(site: Site) -> None:
    async def keep(draft: Draft | None) -> None:
        raise LedgerUnavailable("disk full")

    (said,) = (await site.attempt(keep=keep)).values()
    assert said.state == "deferred"
    assert site.sent == [] and site.drafts == 0


async def test_what_is_refused_for_good_leaves_no_draft(site: Site) -> None:
    octets = site.mail.octets.replace(b"To: ada@customer.example\r\n", b"")
    mail = replace(site.mail, octets=octets, recipients=())
    assert await site.attempt(mail) == {}
    assert (site.drafts, site.sent) == (0, [])
    assert site.kept is None
    (said,) = (await site.until_done(),)
    assert said.state == "accepted"


async def test_mail_without_drafts_is_sent_at_once(site: Site) -> None:
    outgoing = site.outgoing()
    await outgoing.send(site.mail)
    (said,) = (await outgoing.post(site.mail)).values()
    await outgoing.close()
    assert said.state == "accepted" and site.sent == [site.mail.octets] * 2


async def stages(outgoing: GraphOutgoing | GmailOutgoing) -> list[Stage]:
    return [stage async for stage in outgoing.probe()]


@pytest.mark.parametrize(
    ("status", "code", "again"),
    [
        (503, "backendError", 0),
        (403, "backendError", 0),
        (500, "backendError", 0),
        (403, "dailyLimitExceeded", 0),  # for a quarter of an hour nothing is asked
        (403, "rateLimitExceeded", 1),
        (403, "userRateLimitExceeded", 1),
        (429, "rateLimitExceeded", 1),
    ],
)
async def test_a_mail_that_may_be_out_is_not_handed_to_gmail_again_at_once(
    tmp_path: Path, status: int, code: str, again: int
) -> None:
    with Gmail() as gmail:
        site = Site(gmail, tmp_path)
        gmail.upset("/messages/send", Upset.refusal(status, code, "no"))
        outgoing = site.outgoing()
        with suppress(RelayUnavailable):
            await outgoing.send(site.mail)
        await outgoing.close()
        assert len(gmail.posted) == again  # the upset answer took none


async def test_check_says_whether_we_may_and_sends_nothing(site: Site) -> None:
    found = await stages(site.outgoing())
    assert all(stage.ok for stage in found), found
    assert (site.sent, site.drafts) == ([], 0)
    if isinstance(site.server, Graph):
        site.server.scopes = {"Mail.Send"}
        assert "Mail.ReadWrite" in (await stages(site.outgoing()))[-1].advice
        assert all(stage.ok for stage in await stages(site.outgoing(drafts=False)))
    else:
        last = (await stages(site.outgoing(sender="other@example.com")))[-1]
        assert (last.name, last.ok) == ("sender", False) and "Send mail as" in last.advice
        site.server.scope = "https://www.googleapis.com/auth/gmail.readonly"
        site.server.tokens.clear()
        last = (await stages(site.outgoing()))[-1]
        assert last.ok is False and "gmail.modify" in last.advice
