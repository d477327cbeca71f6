"""The Gmail source and a service that throttles, fails, lies and cuts: clear errors, no secret shown, nothing lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailpoller.core.delivery import Disposed, Disposition
from mailpoller.core.errors import CredentialsRefused, SessionLost, TransientError
from mailpoller.core.message import RawMessage
from mailpoller.core.ports import Session, Start, Wake
from mailpoller.sources.gmail import GmailConfig
from mailpoller.sources.gmail.source import GmailSource
from mailpoller.testing.source_suite import ALL, claim, connected, fetched, letter, listing, settlement
from servers.gmail import Gmail, Upset
from servers.mailboxes import runtime
from servers.web import Reply, Web

HTML = b"<html><title>Welcome to our wireless network</title></html>"


@pytest.fixture
def server() -> Iterator[Gmail]:
    with Gmail() as gmail:
        yield gmail
        assert gmail.violations == []


class Rig:
    """A server and the directory of a process that polls it."""

    def __init__(self, server: Gmail, directory: Path) -> None:
        self.server = server
        self.runtime = runtime(directory)
        self.spool = directory / "spool"

    def source(self, **settings: Any) -> GmailSource:
        known: dict[str, Any] = {
            "type": "gmail", "user": self.server.user, "url": self.server.url, "auth": self.server.auth,
            "timeout": "60s",
            "notice_interval": "200ms",
        }  # fmt: skip
        source = GmailConfig.model_validate({**known, **settings}).build("support", self.runtime)
        assert isinstance(source, GmailSource)
        return source


@pytest.fixture
def rig(server: Gmail, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(server, tmp_path)
    yield rig
    assert list(rig.spool.iterdir()) == []


async def listed(session: Session, since: Any = None, start: Start = ALL, name: str = "INBOX") -> tuple[list[Any], Any]:
    return await listing(session, await session.open(name), since, start)


async def settled(session: Session, refs: list[Any], **disposition: Any) -> list[Disposed]:
    return list(await session.settle([settlement(ref, Disposition(**disposition)) for ref in refs]))


# --- listing ---------------------------------------------------------------------------------------------------
async def test_history_that_is_gone_is_made_good_by_a_full_listing(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(3)]
    async with connected(rig.source()) as session:
        _, position = await listed(session)
        uids.append(rig.server.deliver(letter(3)))
        rig.server.expire_history()
        with capture_logs() as logs:
            refs, position = await listed(session, position)
        assert {ref.uid for ref in refs} == set(uids)
        assert [one["event"] for one in logs if one["log_level"] == "warning"] == ["listing.restarted"]
        assert (await listed(session, position))[0] == []


async def test_position_that_cannot_be_read_lists_everything(rig: Rig) -> None:
    rig.server.deliver(letter(1), seen=True)
    async with connected(rig.source()) as session:
        for position in ("", "12", "[]", '{"history": "x", "at": "2026-01-01T00:00:00+00:00"}', '{"history": "1"}'):
            assert len((await listed(session, position, Start("unseen")))[0]) == 1


async def test_mail_that_comes_during_the_first_listing_is_never_taken_for_old(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    for start in (Start("now"), Start("unseen"), Start("since", datetime.now(UTC) - timedelta(days=1)), ALL):
        async with connected(rig.source()) as session:
            came: list[str] = []

            def meanwhile(body: bytes, came: list[str] = came) -> bytes:
                came.append(rig.server.deliver(letter(2), seen=True, received=datetime(2020, 1, 1, tzinfo=UTC)))
                return body

            rig.server.upset(r"GET .*/messages\?", Upset(instead=meanwhile))
            folder = await session.open("INBOX")
            pages = [page async for page in session.pending(folder, None, start)]
            assert came[0] in [ref.uid for page in pages for ref in page.refs], start.kind
            assert came[0] not in [ref.uid for page in pages for ref in page.unwanted]


async def test_first_listing_that_did_not_end_still_knows_when_it_began(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        pages = session.pending(await session.open("INBOX"), None, Start("now"))
        begun = (await anext(pages)).position
        await pages.aclose()  # type: ignore[attr-defined]
    later = rig.server.deliver(letter(2))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session, begun, Start("now"))
        assert [ref.uid for ref in refs] == [later]
    rig.server.expire_history()
    async with connected(rig.source()) as session:
        refs, _ = await listed(session, begun, Start("now"))
        assert later in [ref.uid for ref in refs]


async def test_messages_that_leave_while_pages_are_turned_hide_no_other(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(40)]
    rig.server.page_size = 10

    def leave(body: bytes) -> bytes:
        for uid in json.loads(body)["messages"][:5]:
            rig.server.relabel(uid["id"], remove=["INBOX"])
        return body

    rig.server.upset(r"GET .*/messages\?", Upset(instead=leave))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        assert {ref.uid for ref in refs} == set(uids)


async def test_what_comes_back_from_spam_and_trash_is_shown_and_what_lies_there_is_not(rig: Rig) -> None:
    rig.server.add_label("Support")
    async with connected(rig.source(folders=["Support"])) as session:
        _, position = await listed(session, name="Support")
        spam = rig.server.deliver(letter(1), "Support")
        rig.server.relabel(spam, add=["SPAM"])
        refs, position = await listed(session, position, name="Support")
        assert refs == []
        rig.server.relabel(spam, remove=["SPAM"])
        refs, _ = await listed(session, position, name="Support")
        assert [ref.uid for ref in refs] == [spam]


async def test_position_is_kept_while_nothing_comes(rig: Rig) -> None:
    async with connected(rig.source()) as session:
        _, position = await listed(session)
        rig.server.relabel(rig.server.deliver(letter(1), "CATEGORY_UPDATES"), add=["STARRED"])
        assert (await listed(session, position))[1] == position


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": {"id": "18f"}}',
        b'{"messages": 7}',
    ],
    ids=["no-list", "number"],
)
async def test_pages_that_make_no_sense_are_an_error_and_never_an_empty_listing(rig: Rig, body: bytes) -> None:
    rig.server.upset(r"GET .*/messages\?", *[Upset(200, body)] * 50)
    async with connected(rig.source()) as session:
        with pytest.raises(TransientError) as caught:
            await listed(session)
        assert not isinstance(caught.value, SessionLost)
        rig.server.calm()
        assert await listed(session)


async def test_label_that_is_deleted_and_made_anew_is_another_epoch(rig: Rig) -> None:
    rig.server.add_label("Support")
    async with connected(rig.source(folders=["Support"])) as session:
        before = await session.open("Support")
        rig.server.drop_label("Support")
        with pytest.raises(TransientError, match="Support"):
            [page async for page in session.pending(before, None, ALL)]
        with pytest.raises(TransientError):
            await session.folders()
        rig.server.add_label("Support")
        assert (await session.open("Support")).epoch != before.epoch


async def test_me_has_the_epoch_of_the_address_that_the_service_names(rig: Rig) -> None:
    epochs = set()
    for user in ("me", "support@example.com", "Support@Example.com"):
        if user[0] != "S":
            async with connected(rig.source(user=user)) as session:
                epochs.add((await session.open("INBOX")).epoch)
    assert epochs == {f"gmail://support@example.com@127.0.0.1:{rig.server.port}/;LABEL=INBOX"}


# --- fetching --------------------------------------------------------------------------------------------------
async def test_little_beyond_the_limit_is_downloaded_and_the_rest_is_known_all_the_same(rig: Rig) -> None:
    received = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    rig.server.deliver(letter(1, size=30_000_000), received=received)
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        before = rig.server.sent
        (raw,) = [one async for one in session.fetch([claim(refs[0])], 100_000)]
        assert isinstance(raw, RawMessage)
        assert (raw.truncated, raw.octets.size, raw.received) == (True, 100_000, received)
        raw.octets.close()
        assert rig.server.sent - before < 12_000_000  # what the sockets of both sides hold


async def test_endless_body_is_given_up_at_the_limit(rig: Rig) -> None:
    uid = rig.server.deliver(letter(1))
    rig.server.upset(rf"/messages/{uid}\?format=raw", Upset(200, b'{"id": "x", "raw": "', endless=b"QUJD" * 10_000))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        assert await fetched(session, refs, 6_000) == {uid: b"ABC" * 2_000}


@pytest.mark.parametrize(
    "body",
    [HTML, b"[1]", b'{"id": "x"}', b'{"raw": "QUJ*RA=="}', b'{"raw": "QUJD"', b'{"raw": null}',
    b'{"x": "' + b"y" * 300_000 + b'"}'],
    ids=["page", "list", "nothing", "alphabet", "early", "null", "much"],
)  # fmt: skip
async def test_answer_that_is_no_message_is_trouble_of_that_message_alone(rig: Rig, body: bytes) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(3)]
    rig.server.upset(rf"/messages/{uids[1]}\?format=raw", Upset(200, body))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        had: list[str] = []
        with pytest.raises(TransientError, match="1 of 3") as caught:
            async for answer in session.fetch([claim(ref) for ref in refs], 1_000_000):
                assert isinstance(answer, RawMessage)
                had.append(answer.claim.ref.uid)
                answer.octets.close()
        assert not isinstance(caught.value, SessionLost)
        assert set(had) == {uids[0], uids[2]}
        assert len(await fetched(session, refs)) == 3


async def test_answer_that_is_cut_is_fetched_anew(rig: Rig) -> None:
    uid = rig.server.deliver(letter(1, size=200_000))
    rig.server.upset(rf"/messages/{uid}\?format=raw", Upset(cut_after=100_000), Upset(cut_after=0))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        assert await fetched(session, refs) == {uid: letter(1, size=200_000)}


async def test_message_in_the_trash_is_gone_and_one_that_was_archived_is_not(rig: Rig) -> None:
    trashed, archived = rig.server.deliver(letter(1)), rig.server.deliver(letter(2))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        rig.server.relabel(trashed, add=["TRASH"], remove=["INBOX"])
        rig.server.relabel(archived, remove=["INBOX"])
        assert await fetched(session, refs) == {trashed: None, archived: letter(2)}


async def test_a_few_requests_are_in_flight_and_not_more(rig: Rig) -> None:
    for number in range(60):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        rig.server.upset("format=raw", *[Upset(stall=0.02)] * 60)
        await fetched(session, refs)
        assert 2 <= rig.server.most_at_once <= 6


# --- settling --------------------------------------------------------------------------------------------------
async def test_many_equal_dispositions_are_one_request(rig: Rig) -> None:
    for number in range(30):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        await fetched(session, refs)
        done = await settled(session, refs, seen=True, move="Done/2026", flags=("Follow up",))
        assert {one.state for one in done} == {"applied"}
        assert rig.server.count("POST /messages/batchModify") == 1
        assert rig.server.count("GET /messages/[^/]+") == 30, "what was just fetched is not looked at again"
        assert len(rig.server.under("Done/2026")) == len(rig.server.under("Follow up")) == 30
        assert rig.server.under("INBOX") == []


async def test_what_a_person_has_moved_since_is_neither_moved_nor_deleted(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(2)]
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        for uid in uids:
            rig.server.relabel(uid, remove=["INBOX"])
        assert [one.state for one in await settled(session, refs, delete=True)] == ["applied", "applied"]
        assert [one.state for one in await settled(session, refs, move="Done")] == ["applied", "applied"]
    assert rig.server.under("TRASH") == rig.server.under("Done") == []


async def test_label_that_is_deleted_between_two_moves_is_made_anew(rig: Rig) -> None:
    for number in range(2):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        assert [one.state for one in await settled(session, refs[:1], move="Done")] == ["applied"]
        rig.server.drop_label("Done")
        assert [(one.state, one.reason) for one in await settled(session, refs[1:], move="Done")] == [("applied", "")]
        assert len(rig.server.under("Done")) == 1


async def test_a_thousand_messages_fit_into_one_batch_and_more_do_not(rig: Rig) -> None:
    for number in range(1_003):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        assert {one.state for one in await settled(session, refs, seen=True)} == {"applied"}
    assert rig.server.count("POST /messages/batchModify") == 1
    assert rig.server.count("POST /messages/[^/]+/modify") == 3
    assert not any("UNREAD" in mail.labels for mail in rig.server.mails.values())


async def test_message_that_cannot_be_changed_does_not_hold_up_the_others(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(3)]
    rig.server.upset(f"{uids[1]}/modify", *[Upset.refusal(500, "backendError", "Backend Error")] * 10)
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        states = {one.settlement.ref.uid: one.state for one in await settled(session, refs, seen=True)}
    assert states == {uids[0]: "applied", uids[1]: "pending", uids[2]: "applied"}


async def test_missing_right_to_change_is_said_for_each_message(rig: Rig) -> None:
    rig.server.scope = "https://www.googleapis.com/auth/gmail.readonly"
    for number in range(12):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        for some in (refs, refs[:2]):
            for done in (await settled(session, some, seen=True), await settled(session, some, move="Done")):
                assert {one.state for one in done} == {"failed"}
                assert all("gmail.modify" in one.reason for one in done)


# --- refusals --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [429, 403])
async def test_throttled_request_waits_as_long_as_it_is_told_and_passes(rig: Rig, status: int) -> None:
    rig.server.upset("/profile", Upset.throttled(status, "userRateLimitExceeded", after="0.5"))
    began = time.monotonic()
    async with connected(rig.source()) as session:
        assert time.monotonic() - began >= 0.5
        assert await session.folders() == ["INBOX"]


async def test_long_throttling_is_left_to_the_engine_with_the_time_that_the_service_named(rig: Rig) -> None:
    until = datetime.now(UTC) + timedelta(minutes=10)
    words = f"User-rate limit exceeded.  Retry after {until:%Y-%m-%dT%H:%M:%S.000Z}"
    rig.server.upset("/profile", Upset.throttled(words=words))
    with pytest.raises(TransientError) as caught:
        await rig.source().connect()
    assert caught.value.retry_after is not None
    assert timedelta(minutes=9) < caught.value.retry_after <= timedelta(minutes=10)


async def test_refused_token_is_replaced_once_and_then_a_human_is_told(rig: Rig) -> None:
    source = rig.source()
    async with connected(source) as session:
        rig.server.upset("/labels", *[Upset.refusal(401, "authError", "Invalid Credentials")] * 5)
        with pytest.raises(CredentialsRefused, match="oauth login"):
            await session.open("INBOX")
    assert not any(token in str(rig.server.asked) for token in rig.server.tokens)


@pytest.mark.parametrize(
    ("status", "reason", "advice"),
    [
        (403, "insufficientPermissions", "gmail.modify"),
        (403, "accessNotConfigured", "Enable the Gmail API"),
        (403, "domainPolicy", "App access control"),
        (403, "forbidden", "domain-wide delegation"),
        (400, "failedPrecondition", "no Gmail"),
    ],
)
async def test_refusal_says_what_to_do_in_googles_terms_and_shows_no_secret(
    rig: Rig, status: int, reason: str, advice: str
) -> None:
    token = "ya29." + "x" * 60
    rig.server.upset("/profile", *[Upset.refusal(status, reason, f"no {token} app-secret")] * 2)
    with pytest.raises(CredentialsRefused, match=advice) as caught:
        await rig.source().connect()
    assert token not in str(caught.value)
    stages = [stage async for stage in rig.source().probe([])]
    assert (stages[-1].name, stages[-1].ok) == ("mailbox", False)
    assert advice in stages[-1].detail
    assert token not in stages[-1].detail


async def test_token_never_follows_a_redirect(rig: Rig) -> None:
    async with Web(lambda asked: Reply(body={})) as elsewhere:
        rig.server.upset("/profile", *[Upset(302, b"", (("Location", f"{elsewhere.url}/steal"),))] * 3)
        with pytest.raises(TransientError, match=r"redirects to 127\.0\.0\.1"):
            await rig.source().connect()
        assert elsewhere.asked == []


@pytest.mark.parametrize(
    "upset",
    [
        Upset(200, HTML, Upset.headers_of("text/html")),
        Upset(200, b'{"emailAddress": ', Upset.headers_of("application/json")),
        Upset(200, b"[]", Upset.headers_of("application/json")),
        Upset(200, b"{}", Upset.headers_of("application/json")),
        Upset(200, b'{"x": "', Upset.headers_of("application/json"), endless=b"y" * 65_536),
        Upset(stall=5),
    ],
    ids=["html", "broken", "list", "empty", "endless", "silent"],
)
async def test_whoever_is_not_the_service_is_a_clear_passing_error(rig: Rig, upset: Upset) -> None:
    rig.server.upset("/profile", *[upset] * 3)
    with pytest.raises(TransientError) as caught:
        await rig.source(timeout="1s" if upset.stall else "60s").connect()
    assert "127.0.0.1" in str(caught.value)
    assert not isinstance(caught.value, SessionLost)


async def test_wait_survives_a_history_that_is_gone(rig: Rig) -> None:
    async with connected(rig.source()) as session:
        await listed(session)
        rig.server.expire_history()
        assert await session.wait(timedelta(minutes=5)) is Wake.NEWS
        assert (await listed(session))[0] == []


async def test_own_changes_are_no_news(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        await fetched(session, refs)
        await settled(session, refs, seen=True, flags=("\\Flagged",))
        assert await session.wait(timedelta(seconds=0.7)) is Wake.LIMIT


async def test_probe_names_every_stage_and_the_labels_there_are(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    ways = [Disposition(seen=True, move="Done")]
    stages = [stage async for stage in rig.source().probe(ways)]
    assert [stage.name for stage in stages] == ["dns", "tcp", "login", "mailbox", "folder", "message", "disposition"]
    assert stages[-1].detail == "Done does not exist and will be created"
    rig.server.add_label("Invoices")
    stages = [stage async for stage in rig.source(folders=["Invoice"]).probe(ways)]
    assert not stages[-1].ok
    assert "Invoices" in stages[-1].detail
    rig.server.scope = "https://www.googleapis.com/auth/gmail.readonly"
    stages = [stage async for stage in rig.source().probe(ways)]
    assert (stages[-1].name, stages[-1].ok) == ("disposition", False)
    assert "gmail.modify" in stages[-1].detail


async def test_gone_is_said_only_of_what_is_gone(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(3)]
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        rig.server.remove(uids[0])
        rig.server.upset(f"/messages/{uids[1]}", Upset.refusal(403, "forbidden", "Forbidden"))
        gone: list[str] = []
        with pytest.raises(CredentialsRefused):
            async for answer in session.fetch([claim(ref) for ref in refs], 1_000_000):
                if isinstance(answer, RawMessage):
                    answer.octets.close()
                else:
                    gone.append(answer.claim.ref.uid)
        assert set(gone) <= {uids[0]}
