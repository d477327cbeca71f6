"""The Graph source on the strict service: throttled, expired, denied, misled and swept."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import CredentialsRefused, MailpollerError, SessionLost, TransientError
from mailpoller.core.message import Gone, Position, RawMessage
from mailpoller.core.ports import Session, Source, Start, Wake
from mailpoller.sources.graph import GraphConfig
from mailpoller.testing.builders import plain
from servers.graph import Asked, Graph, Said, strict_graph
from servers.mailboxes import ALL, claims_of, fetched, listed, runtime, session_of, settled

SEEN = Disposition(seen=True)
MOVE = Disposition(seen=True, move="Processed")


@pytest.fixture
def graph() -> Iterator[Graph]:
    with strict_graph() as server:
        yield server


@pytest.fixture
def make(graph: Graph, tmp_path: Path) -> Callable[..., Source]:
    def made(**settings: Any) -> Source:
        values = {
            "type": "graph", "user": graph.user, "url": graph.url, "auth": graph.auth, "timeout": "60s",
            "notice_interval": "200ms", **settings,
        }  # fmt: skip
        return GraphConfig.model_validate(values).build("support", runtime(tmp_path))

    return made


@asynccontextmanager
async def opened(source: Source, name: str = "inbox") -> AsyncIterator[tuple[Session, Any]]:
    async with session_of(source) as session:
        yield session, await session.open(name)


def octets_of(answers: list[RawMessage | Gone]) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for answer in answers:
        assert isinstance(answer, RawMessage)
        found[bytes(answer.octets.view())] += 1
        answer.octets.close()
    return found


# --- folders ---------------------------------------------------------------------------------------------------------
async def test_folders_are_found_by_path_in_any_case_with_quotes(graph: Graph, make: Callable[..., Source]) -> None:
    above = graph.add_folder("O'Neil & Söhne")
    graph.add_folder("Done", above)
    graph.add_folder("Sub", "inbox")
    names = ["INBOX", "o'neil & söhne/DONE", "Inbox/sub", "JunkEmail"]
    async with session_of(make(folders=[*names, "nowhere/else"])) as session:
        assert list(await session.folders()) == names
        epochs = [(await session.open(name)).epoch for name in names]
        assert len(set(epochs)) == 4


async def test_folder_that_was_made_anew_is_another_epoch(graph: Graph, make: Callable[..., Source]) -> None:
    graph.add_folder("Support")
    async with opened(make(folders=["Support"]), "Support") as (session, before):
        graph.rename_folder("Support", "Support")
        assert await session.open("Support") == before
        graph.remove_folder("Support")
        with pytest.raises(TransientError, match="no folder"):
            await session.open("Support")
        graph.add_folder("Support")
        assert (await session.open("Support")).epoch != before.epoch


async def test_missing_target_is_made_below_its_path(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        (done,) = await session.settle(settled(refs, Disposition(move="Processed/2026/Nov")))
    assert done.state == "applied"
    assert len(graph.mails("Processed/2026/Nov")) == 1


async def test_target_that_was_deleted_meanwhile_is_made_anew(graph: Graph, make: Callable[..., Source]) -> None:
    graph.add_folder("Processed")
    for _ in range(2):
        graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        await session.settle(settled(refs[:1], MOVE))
        graph.remove_folder("Processed")
        (done,) = await session.settle(settled(refs[1:], MOVE))
    assert done.state == "applied"
    assert len(graph.mails("Processed")) == 1


# --- listing ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "code"), [(410, "syncStateNotFound"), (404, "SyncStateNotFound"), (410, ""), (400, "ErrorInvalidToken")]
)
async def test_delta_token_that_expired_is_made_good_by_a_full_listing(
    graph: Graph, make: Callable[..., Source], status: int, code: str
) -> None:
    graph.deliver(plain(subject="one"))
    async with opened(make()) as (session, folder):
        first, position = await listed(session, folder)
        graph.deliver(plain(subject="two"))
        lost = Said(status, {"error": {"code": code, "message": "The sync state is not known."}})
        graph.instead = lambda asked: lost if "$deltatoken" in asked.query else None
        with capture_logs() as logs:
            again, position = await listed(session, folder, position)
        assert [one.uid for one in again][:1] == [first[0].uid]
        assert len(again) == 2
        assert [log["event"] for log in logs] == ["listing.restarted"]
        graph.instead = None
        assert await listed(session, folder, position) == ([], position)


async def test_token_that_expires_within_a_listing_shows_every_message_once(
    graph: Graph, make: Callable[..., Source]
) -> None:
    graph.page_size = 2
    uids = [graph.deliver(plain()) for _ in range(7)]
    async with opened(make()) as (session, folder):
        shown: list[str] = []
        async for page in session.pending(folder, None, ALL):
            shown += [ref.uid for ref in page.refs]
            if len(shown) == 4 and page.refs:
                graph.expire()
    assert sorted(shown) == sorted(uids)


async def test_position_that_cannot_be_read_lists_everything(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain(), seen=True)
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder, Position("12 34"), Start("unseen"))
    assert len(refs) == 1


async def test_what_start_leaves_out_is_told_so_that_the_ledger_knows_it(
    graph: Graph, make: Callable[..., Source]
) -> None:
    graph.page_size = 2
    old = [graph.deliver(plain(), seen=True) for _ in range(3)]
    new = [graph.deliver(plain()) for _ in range(2)]
    async with opened(make()) as (session, folder):
        pages = [page async for page in session.pending(folder, None, Start("unseen"))]
    assert [ref.uid for page in pages for ref in page.refs] == new
    assert [ref.uid for page in pages for ref in page.unwanted] == old


async def test_first_listing_that_was_interrupted_still_knows_what_came_later(
    graph: Graph, make: Callable[..., Source]
) -> None:
    graph.page_size = 1
    old = datetime.now(UTC) - timedelta(days=3)
    graph.deliver(plain(), created=old)
    graph.deliver(plain(), created=old)
    async with opened(make()) as (session, folder):
        pages = session.pending(folder, None, Start("now"))
        position = (await anext(pages)).position
        await pages.aclose()  # type: ignore[attr-defined]
    assert position is not None
    later = graph.deliver(plain(), seen=True, created=datetime.now(UTC) + timedelta(seconds=5))
    async with opened(make()) as (session, folder):
        refs, position = await listed(session, folder, position, Start("now"))
        assert [ref.uid for ref in refs] == [later]
        assert await listed(session, folder, position) == ([], position)


async def test_message_that_was_moved_away_and_back_is_found_by_the_sweep(
    graph: Graph, make: Callable[..., Source]
) -> None:
    graph.forgets_round_trips = True
    recent = graph.deliver(plain())
    graph.deliver(plain(), received=datetime.now(UTC) - timedelta(days=30))
    async with opened(make()) as (session, folder):
        _, position = await listed(session, folder)
        graph.move(recent, "deleteditems")
        graph.move(recent, "inbox")
        refs, position = await listed(session, folder, position)
        assert refs == [], "the delta does not tell"
    await asyncio.sleep(0.2)
    async with opened(make(sweep_interval="100ms")) as (session, folder):
        refs, position = await listed(session, folder, position)
        assert [ref.uid for ref in refs] == [recent], "what was received long ago is not listed again"
    async with opened(make()) as (session, folder):
        assert (await listed(session, folder, position))[0] == []


async def test_quiet_mailbox_keeps_its_position(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        _, position = await listed(session, folder)
        for _ in range(3):
            assert await listed(session, folder, position) == ([], position)


async def test_removed_messages_are_no_news_and_no_refs(graph: Graph, make: Callable[..., Source]) -> None:
    octets = plain()
    graph.deliver(octets)
    async with opened(make()) as (session, folder):
        _, position = await listed(session, folder)
        graph.remove(octets)
        assert await session.wait(timedelta(seconds=0.7)) is Wake.LIMIT
        assert (await listed(session, folder, position))[0] == []


async def test_our_own_marks_are_no_news(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        await session.settle(settled(refs, SEEN))
        assert await session.wait(timedelta(seconds=0.7)) is Wake.LIMIT


# --- fetching --------------------------------------------------------------------------------------------------------
async def test_four_requests_at_a_time_are_made_for_one_mailbox(graph: Graph, make: Callable[..., Source]) -> None:
    graph.pause = 0.01
    octets = Counter(plain(subject=f"number {number}") for number in range(40))
    for one in octets:
        graph.deliver(one)
    first, second = make(), make()
    async with opened(first) as (one, folder), opened(second) as (other, _):
        refs, _ = await listed(one, folder)
        claims = claims_of(refs)
        both = await asyncio.gather(fetched(one, claims[:20]), fetched(other, claims[20:]))
        assert octets_of(both[0]) + octets_of(both[1]) == octets
        await asyncio.gather(one.settle(settled(refs[:20], MOVE)), other.settle(settled(refs[20:], SEEN)))
    assert graph.most_at_once == 4


async def test_message_that_cannot_be_converted_does_not_stop_the_others(
    graph: Graph, make: Callable[..., Source]
) -> None:
    octets = [plain(subject=f"number {number}") for number in range(9)]
    uids = [graph.deliver(one) for one in octets]
    graph.broken[uids[4]] = 500, "ErrorMimeContentConversionFailed"
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        answers = []
        with pytest.raises(TransientError, match=r"1 of 9 .*ErrorMimeContentConversionFailed") as caught:
            async for answer in session.fetch(claims_of(refs), 1_000_000):
                answers.append(answer)  # noqa: PERF401  what came before the error counts
        assert not isinstance(caught.value, SessionLost)
        assert octets_of(answers) == Counter(octets[:4] + octets[5:])


async def test_message_that_is_denied_does_not_stop_the_others(graph: Graph, make: Callable[..., Source]) -> None:
    uids = [graph.deliver(plain()) for _ in range(6)]
    graph.broken[uids[2]] = 403, "ErrorAccessDenied"
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        answers = []
        with pytest.raises(TransientError, match=r"1 of 6 .*ErrorAccessDenied"):
            async for answer in session.fetch(claims_of(refs), 1_000_000):
                answers.append(answer)  # noqa: PERF401  what came before the error counts
        assert octets_of(answers).total() == 5


async def test_mail_that_was_put_off_by_an_earlier_process_is_asked_about(
    graph: Graph, make: Callable[..., Source]
) -> None:
    graph.page_size = 3
    received = datetime(2026, 3, 1, 12, tzinfo=UTC)
    uids = [graph.deliver(plain(), received=received, seen=True) for _ in range(25)]
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
    graph.change(uids[3], flagged=True, categories=("Red",))
    graph.remove(graph.mails()[0].octets)
    async with opened(make()) as (session, _):
        answers = await fetched(session, claims_of(refs))
    assert sum(isinstance(answer, Gone) for answer in answers) == 1
    assert all(answer.received == received for answer in answers if isinstance(answer, RawMessage))
    by_uid = {answer.claim.ref.uid: answer for answer in answers}
    assert by_uid[uids[3]].flags == ("\\Seen", "\\Flagged", "Red")  # type: ignore[union-attr]
    assert graph.count(r"/\$batch$", method="POST") == 2


async def test_message_of_no_octets_is_an_error_and_no_message(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(b"")
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        with pytest.raises(TransientError, match="no content"):
            await fetched(session, claims_of(refs))


async def test_404_that_is_not_about_the_message_loses_none(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        for body in ({"error": {"code": "MailboxNotEnabledForRESTAPI", "message": "moved"}}, {}):
            graph.instead = lambda asked, body=body: Said(404, body) if asked.path.endswith("$value") else None  # type: ignore[misc]
            with pytest.raises(TransientError):
                await fetched(session, claims_of(refs))


# --- settling --------------------------------------------------------------------------------------------------------
async def test_dispositions_go_twenty_at_a_time(graph: Graph, make: Callable[..., Source]) -> None:
    graph.reorders = True
    for number in range(45):
        graph.deliver(plain(subject=f"number {number}"))
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        asked = len(graph.asked)
        done = await session.settle(settled(refs, SEEN))
        assert {one.state for one in done} == {"applied"}
    assert sum(1 for one in graph.asked[asked:] if not one.batched) == 3
    assert all(mail.seen for mail in graph.mails())


async def test_what_one_message_of_a_batch_is_refused_is_its_own_affair(
    graph: Graph, make: Callable[..., Source]
) -> None:
    for _ in range(6):
        graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        graph.throttle_parts(1, status=500, code="ErrorInternalServerError")
        graph.throttle_parts(1, status=403, code="ErrorAccessDenied")
        graph.throttle_parts(1, status=400, code="ErrorPropertyUpdate")
        graph.throttle_parts(1, status=404, code="ErrorItemNotFound")
        done = await session.settle(settled(refs, SEEN))
    assert [one.state for one in done] == ["pending", "failed", "failed", "applied", "applied", "applied"]
    assert "ErrorPropertyUpdate" in done[2].reason
    assert "Test-ApplicationAccessPolicy" in done[1].reason


async def test_throttled_parts_of_a_batch_are_asked_again(graph: Graph, make: Callable[..., Source]) -> None:
    for _ in range(25):
        graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        graph.throttle_parts(7, retry_after=0.05)
        done = await session.settle(settled(refs, SEEN))
    assert {one.state for one in done} == {"applied"}
    assert all(mail.seen for mail in graph.mails())


async def test_parts_that_stay_throttled_are_pending(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        graph.throttle_parts(1, retry_after=120)
        (done,) = await session.settle(settled(refs, SEEN))
    assert done.state == "pending"
    assert "429" in done.reason


async def test_message_that_a_person_has_put_elsewhere_is_left_there(graph: Graph, make: Callable[..., Source]) -> None:
    graph.add_folder("Important")
    uids = [graph.deliver(plain()) for _ in range(2)]
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        for uid in uids:
            graph.move(uid, "Important")
        ways = [Disposition(seen=True, move="Processed"), Disposition(delete=True)]
        done = await session.settle([settled([ref], way)[0] for ref, way in zip(refs, ways, strict=True)])
    assert [(one.state, one.reason) for one in done] == [("applied", "")] * 2
    assert [mail.uid for mail in graph.mails("Important")] == uids


async def test_categories_are_added_to_those_of_others(graph: Graph, make: Callable[..., Source]) -> None:
    uid = graph.deliver(plain())
    graph.change(uid, categories=("Red",))
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        for _ in range(2):
            await session.settle(settled(refs, Disposition(flags=("Done", "\\Flagged"))))
    (mail,) = graph.mails()
    assert (mail.categories, mail.flagged, mail.seen) == (("Red", "Done"), True, False)


@pytest.mark.parametrize(
    ("deletion", "place"),
    [("deleted-items", "deleteditems"), ("recoverable", "recoverableitemsdeletions"), ("permanent", None)],
)
async def test_deletion_ends_where_it_was_told_to(
    graph: Graph, make: Callable[..., Source], deletion: str, place: str | None
) -> None:
    graph.deliver(plain())
    async with opened(make(deletion=deletion)) as (session, folder):
        refs, _ = await listed(session, folder)
        for _ in range(2):
            (done,) = await session.settle(settled(refs, Disposition(delete=True)))
            assert done.state == "applied"
    assert graph.mails() == []
    assert place is None or len(graph.mails(place)) == 1


async def test_deleted_items_that_are_polled_themselves_are_emptied(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain(), "deleteditems")
    async with opened(make(folders=["deleteditems"]), "deleteditems") as (session, folder):
        refs, _ = await listed(session, folder)
        (done,) = await session.settle(settled(refs, Disposition(delete=True)))
    assert done.state == "applied"
    assert graph.mails("deleteditems") == []


# --- throttling ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [429, 503, 504])
@pytest.mark.parametrize("retry_after", [0.1, None], ids=["with-retry-after", "without"])
async def test_throttled_requests_are_repeated_when_it_is_time(
    graph: Graph, make: Callable[..., Source], status: int, retry_after: float | None
) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        began = asyncio.get_running_loop().time()
        graph.throttle(1, status=status, retry_after=retry_after)
        refs, _ = await listed(session, folder)
        assert asyncio.get_running_loop().time() - began >= (retry_after or 0.8)
        assert len(refs) == 1


async def test_long_retry_after_is_left_to_the_engine(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        graph.throttle(1, retry_after=300)
        asked = len(graph.asked)
        with pytest.raises(TransientError) as caught:
            await fetched(session, claims_of(refs))
        assert caught.value.retry_after is not None
        assert caught.value.retry_after > timedelta(seconds=290)
        with pytest.raises(TransientError):
            await listed(session, folder)
        assert len(graph.asked) == asked + 1, "nobody asks while the service wants silence"


# --- who we are ------------------------------------------------------------------------------------------------------
async def test_token_that_is_refused_is_replaced_once(
    graph: Graph, make: Callable[..., Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.wire.oauth.tokens.YOUNG", timedelta(0))
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        graph.revoke()
        refs, _ = await listed(session, folder)
        assert len(refs) == 1
        assert len(graph.tokens) == 1


async def test_refusal_for_good_calls_a_human(graph: Graph, make: Callable[..., Source]) -> None:
    source = make()
    graph.instead = lambda asked: Said(
        401, {"error": {"code": "InvalidAuthenticationToken", "message": "Access token validation failure."}}
    )
    with pytest.raises(CredentialsRefused, match=r"InvalidAuthenticationToken.*scopes"):
        await source.connect()


async def test_denial_says_what_an_administrator_has_to_do(graph: Graph, make: Callable[..., Source]) -> None:
    graph.scopes = {"Mail.Send"}
    with pytest.raises(CredentialsRefused, match=r"ErrorAccessDenied.*Grant admin consent.*ApplicationAccessPolicy"):
        await make().connect()


async def test_user_without_a_mailbox_is_named_as_such(graph: Graph, make: Callable[..., Source]) -> None:
    with pytest.raises(TransientError, match=r"ErrorInvalidUser.*no mailbox"):
        await make(user="nobody@example.com").connect()


async def test_reading_alone_is_not_enough_to_settle(graph: Graph, make: Callable[..., Source]) -> None:
    graph.scopes = {"Mail.Read"}
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        (done,) = await session.settle(settled(refs, MOVE))
        assert done.state == "failed"
        assert "Mail.ReadWrite" in done.reason
    stages = [stage async for stage in make().probe([SEEN])]
    assert (stages[-1].name, stages[-1].ok) == ("disposition", False)
    assert "Mail.ReadWrite" in stages[-1].advice
    stages = [stage async for stage in make(mode="shadow").probe([SEEN])]
    assert all(stage.ok for stage in stages)


async def test_probe_names_every_stage_and_where_it_ends(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain())
    stages = [stage async for stage in make().probe([MOVE])]
    assert [stage.name for stage in stages] == ["dns", "tcp", "login", "mailbox", "folder", "message", "disposition"]
    assert all(stage.ok for stage in stages)
    assert stages[-1].detail == "Processed does not exist and will be created"
    broken = make(auth={**graph.auth, "client_secret": "wrong"})
    stages = [stage async for stage in broken.probe([])]
    assert (stages[-1].name, stages[-1].ok) == ("login", False)
    assert "AADSTS7000215" in stages[-1].detail
    assert "client_secret" in stages[-1].advice


# --- what a service should not say -----------------------------------------------------------------------------------
def page(**fields: Any) -> Said:
    return Said(200, {"value": [], **fields})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (page(**{"@odata.nextLink": "https://evil.example.com/v1.0/x?$skiptoken=1"}), "elsewhere"),
        (page(**{"@odata.nextLink": "http://127.0.0.1:1/v1.0/x?$skiptoken=1"}), "elsewhere"),
        (page(**{"@odata.nextLink": "/v1.0/users"}), "link"),
        (page(**{"@odata.nextLink": 7}), "link"),
        (page(**{"@odata.nextLink": "https://127.0.0.1/" + "x" * 20_000}), "link"),
        (page(), "how to go on"),
        (Said(200, {"value": {}}), "no messages"),
        (Said(200, []), "no object"),
        (Said(200, b"<html>log in, please</html>", {"Content-Type": "text/html"}), "text/html instead of JSON"),
        (Said(200, b"{", {"Content-Type": "application/json"}), "broken"),
        (Said(200, b" " * (5 << 20), {"Content-Type": "application/json"}), "more than"),
        (Said(302, b"", {"Location": "https://evil.example.com/"}), "redirects to evil.example.com"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: application/json\r\n\r\n{", "closed|broke"),
        (b"220 smtp.example.com ESMTP\r\n", "no HTTP|closed"),
    ],
)  # fmt: skip
async def test_listing_that_makes_no_sense_is_an_error_and_never_an_empty_folder(
    graph: Graph, make: Callable[..., Source], said: Said | bytes, words: str
) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        _, position = await listed(session, folder)
        graph.instead = lambda asked: said if "/messages" in asked.path else None
        for since in (None, position):
            with pytest.raises(TransientError, match=words):
                await listed(session, folder, since)
            if words == "how to go on":
                break  # an ordinary listing, by which changes are checked, just ends so
            if words not in ("link", "no messages") and "redirects" not in words:
                break  # the session is lost
    assert not any("evil" in one.path for one in graph.asked)


async def test_service_that_has_lost_every_listing_is_asked_twice_and_not_without_end(
    graph: Graph, make: Callable[..., Source]
) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        asked = len(graph.asked)
        graph.instead = lambda _: Said(410, {"error": {"code": "syncStateNotFound", "message": "start anew"}})
        with pytest.raises(TransientError, match="syncStateNotFound"):
            await listed(session, folder)
    assert len(graph.asked) - asked == 2


@pytest.mark.parametrize("kind", ["one link again and again", "always another link", "always the same messages"])
async def test_pages_without_end_are_bounded(graph: Graph, make: Callable[..., Source], kind: str) -> None:
    graph.deliver(plain())
    numbers = iter(range(10**9))

    def endless(asked: Asked) -> Said | None:
        if "/delta" not in asked.path:
            return None
        number = 1 if kind.startswith("one") else next(numbers)
        items = [{"id": "AAsame"}] if kind.endswith("messages") else []
        return Said(200, {"value": items, "@odata.nextLink": f"{graph.url}/users/x/delta?$skiptoken={number}"})

    async with opened(make()) as (session, folder):
        graph.instead = endless
        if kind.endswith("messages"):
            # What is listed is taken all the same.
            refs, position = await listed(session, folder)
            assert [ref.uid for ref in refs] == ["AAsame"]
            assert position is None
        else:
            with pytest.raises(TransientError, match="no end"):
                await listed(session, folder)
    assert len(graph.asked) < 300


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
async def test_something_else_in_place_of_a_message_is_never_delivered(
    graph: Graph, make: Callable[..., Source], kind: str
) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        page = Said(200, b"<html>log in, please</html>", {"Content-Type": f"{kind}; charset=utf-8"})
        graph.instead = lambda asked: page if asked.path.endswith("$value") else None
        with pytest.raises(TransientError, match=kind):
            await fetched(session, claims_of(refs))


async def test_message_that_is_cut_short_is_never_delivered(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
        for raw in (
            head + b"Content-Length: 1000\r\n\r\nSubject: cut",
            head + b"Transfer-Encoding: chunked\r\n\r\n20\r\nSubject: cut",
            head + b"Transfer-Encoding: chunked\r\n\r\nC\r\nSubject: cut\r\n",
        ):
            graph.instead = lambda asked, raw=raw: raw if asked.path.endswith("$value") else None  # type: ignore[misc]
            with pytest.raises(TransientError):
                await fetched(session, claims_of(refs))


async def test_message_whose_end_is_that_of_the_connection_is_in_doubt(
    graph: Graph, make: Callable[..., Source]
) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        said = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nSubject: perhaps cut"
        graph.instead = lambda asked: said if asked.path.endswith("$value") else None
        (raw,) = await fetched(session, claims_of(refs))
        assert isinstance(raw, RawMessage)
        assert "no length" in raw.doubt
        assert bytes(raw.octets.view()) == b"Subject: perhaps cut"
        raw.octets.close()
        # What lies beyond the limit is cut anyway.
        (raw,) = await fetched(session, claims_of(refs), limit=7)
        assert isinstance(raw, RawMessage)
        assert (raw.truncated, raw.doubt) == (True, "")
        raw.octets.close()
        graph.instead = None
        (raw,) = await fetched(session, claims_of(refs))
        assert isinstance(raw, RawMessage)
        assert raw.doubt == ""
        raw.octets.close()


async def test_part_of_a_message_is_no_message(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        part = Said(206, b"Subject: a part", {"Content-Type": "text/plain", "Content-Range": "bytes 0-14/90"})
        graph.instead = lambda asked: part if asked.path.endswith("$value") else None
        with pytest.raises(TransientError, match="HTTP 206"):
            await fetched(session, claims_of(refs))


@pytest.mark.parametrize(
    "said",
    [
        Said(200, {"responses": []}),
        Said(200, {"responses": [7, {"id": 1}, {"id": "99", "status": 200}, {"id": "0", "status": "200"}]}),
    ],
)
async def test_batch_that_is_not_answered_is_pending(graph: Graph, make: Callable[..., Source], said: Said) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        graph.instead = lambda asked: said if asked.path.endswith("$batch") else None
        (done,) = await session.settle(settled(refs, SEEN))
        assert (done.state, done.reason) == ("pending", "the service gave no answer for it")


async def test_token_in_an_error_is_not_shown(
    graph: Graph, make: Callable[..., Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailpoller.remote.throttle._FIRST_PAUSE", 0.01)
    source = make()
    async with opened(source) as (session, folder):
        _, position = await listed(session, folder)
        (token,) = graph.tokens
        told = {"error": {"code": "BadRequest", "message": f"the token {token} of {graph.secret} is not liked"}}
        shown: list[str] = []
        with capture_logs() as logs:
            for status in (400, 401, 403, 404, 410, 429, 500):
                graph.instead = lambda asked, status=status: Said(status, told, {"Retry-After": "0"})  # type: ignore[misc]
                try:
                    shown.append(repr(await listed(session, folder, position)))
                except MailpollerError as error:
                    shown.append(f"{error} {error!r}")
                shown += [str(stage) async for stage in source.probe([])]
    assert len(shown) > 7
    assert token not in json.dumps([shown, logs], default=str)
    assert token.split(".")[2] not in json.dumps([shown, logs], default=str)
    assert token not in str(position)
