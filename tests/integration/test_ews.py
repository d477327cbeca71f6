"""The EWS source against a strict Exchange: folders, sync states, large messages, dispositions, throttling."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import SessionLost, TransientError
from mailpoller.core.message import RawMessage
from mailpoller.core.ports import Start, Wake
from mailpoller.testing.source_suite import (
    ALL,
    NOW,
    UNSEEN,
    WHOLE,
    claim,
    connected,
    fetched,
    letter,
    listing,
    settlement,
)
from servers.ews import Rig, listed, settled
from servers.exchange import RECOVERABLE, Exchange, Upset, exchange, seen_in


@pytest.fixture
def server() -> Iterator[Exchange]:
    with exchange(offers=["Basic"]) as server:
        yield server


@pytest.fixture
def rig(server: Exchange, tmp_path: Path) -> Rig:
    return Rig(server, tmp_path)


# --- folders -------------------------------------------------------------------------------------------------------
async def test_folders_are_found_by_path_and_by_the_names_of_every_language(rig: Rig) -> None:
    inbox = rig.server.place("Inbox")
    done = rig.server.add_folder("Done", inbox.uid)
    rig.server.add_folder("Größe & <Alt>", done.uid)
    rig.server.add_folder("Support")
    names = ["inbox", "Inbox/done/Größe & <Alt>", "Support", "junkemail"]
    async with connected(rig.source(folders=[*names, "Nowhere"])) as session:
        assert list(await session.folders()) == names
        epochs = {(await session.open(name)).epoch for name in names}
        assert len(epochs) == len(names)


@pytest.mark.parametrize("vague", [False, True])
async def test_folder_that_was_deleted_and_made_anew_is_a_new_epoch(rig: Rig, vague: bool) -> None:
    rig.server.vague = vague
    rig.server.add_folder("Support")
    rig.server.deliver(letter(1), "Support")
    async with connected(rig.source(folders=["Support"])) as session:
        before, _, position = await listed(session, "Support")
        rig.server.drop_folder("Support")
        with pytest.raises(TransientError, match="there is no folder Support"):
            await session.open("Support")
        rig.server.add_folder("Support")
        rig.server.deliver(letter(2), "Support")
        after = await session.open("Support")
        assert after.epoch != before.epoch
        with pytest.raises(TransientError, match="not open in this epoch"):
            await listing(session, before, position)
        refs, _ = await listing(session, after)
        assert list((await fetched(session, refs)).values()) == [letter(2)]


async def test_epoch_says_server_owner_and_folder(rig: Rig) -> None:
    async with connected(rig.source(mailbox="support@example.com")) as session:
        folder = await session.open("inbox")
    inbox = rig.server.place("Inbox").uid
    assert folder.epoch == f"ews://support@example.com@localhost:{rig.server.port}/ews/exchange.asmx;FOLDER={inbox}"


# --- listing -------------------------------------------------------------------------------------------------------
async def test_more_messages_than_one_answer_holds_are_listed_once_each(rig: Rig) -> None:
    octets = [letter(number) for number in range(1200)]
    for one in octets:
        rig.server.deliver(one)
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        assert len({ref.uid for ref in refs}) == 1200
        assert rig.server.requests.count("SyncFolderItems") == 3


async def test_quiet_folder_keeps_its_position(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        _, _, position = await listed(session)
        for _ in range(3):
            _, refs, again = await listed(session, since=position)
            assert (refs, again) == ([], position)


async def test_what_somebody_else_reads_flags_or_deletes_is_no_new_mail(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(4)]
    async with connected(rig.source()) as session:
        _, _, position = await listed(session)
        rig.server.touch(uids[0], seen=True)
        rig.server.touch(uids[1], categories=("Red",))
        rig.server.remove(letter(2))
        _, refs, _ = await listed(session, since=position)
        assert refs == []


async def test_message_that_came_and_went_while_it_was_paged_is_not_listed(rig: Rig) -> None:
    rig.server.page_size = 2
    for number in range(4):
        rig.server.deliver(letter(number))

    def meanwhile(answer: bytes) -> bytes:
        rig.server.remove(letter(0))
        return answer

    rig.server.upset("SyncFolderItems", Upset(instead=meanwhile))
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        assert set((await fetched(session, refs)).values()) == {letter(1), letter(2), letter(3)}


async def test_what_nobody_sent_is_not_listed_and_meeting_requests_are(rig: Rig) -> None:
    rig.server.deliver(b"BEGIN:VCARD\r\n", kind="Contact")
    rig.server.deliver(letter(1), kind="MeetingRequest")
    rig.server.deliver(letter(2), kind="PostItem")
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        assert set((await fetched(session, refs)).values()) == {letter(1), letter(2)}


@pytest.mark.parametrize("start", [NOW, UNSEEN, Start("since", datetime.now(UTC) - timedelta(days=3))])
async def test_lost_sync_state_brings_back_nothing_that_start_left_out(rig: Rig, start: Start) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=30)
    for number in range(3):
        uid = rig.server.deliver(letter(number), seen=True, received=long_ago)
        rig.server._find(uid)[1].modified = long_ago
    async with connected(rig.source()) as session:
        folder, refs, position = await listed(session, start=start)
        assert refs == []
        rig.server.deliver(letter(7))
        rig.server.forget_states()
        # The engine asks for all once a first listing was worked through: the position remembers what start was.
        refs, position = await listing(session, folder, position, ALL)
        assert list((await fetched(session, refs)).values()) == [letter(7)]
        rig.server.deliver(letter(8))
        refs, _ = await listing(session, folder, position, ALL)
        assert list((await fetched(session, refs)).values()) == [letter(8)]


async def test_old_mail_that_was_moved_here_while_the_sync_state_was_lost_is_shown(rig: Rig) -> None:
    async with connected(rig.source()) as session:
        folder, _, position = await listed(session, start=NOW)
        rig.server.deliver(letter(1), seen=True, received=datetime.now(UTC) - timedelta(days=400))
        rig.server.forget_states()
        refs, _ = await listing(session, folder, position, ALL)
        assert list((await fetched(session, refs)).values()) == [letter(1)]


async def test_position_that_cannot_be_read_shows_everything(rig: Rig) -> None:
    rig.server.deliver(letter(1), seen=True)
    async with connected(rig.source()) as session:
        for position in ("", "12", "1 all x y z", "1 now 2026-01-01T00:00:00 2026-01-01T00:00:00 abc", "2 a b c d"):
            _, refs, _ = await listed(session, since=position, start=NOW)  # type: ignore[arg-type]
            assert len(refs) == 1, position


# --- fetching ------------------------------------------------------------------------------------------------------
async def test_sizes_that_the_store_makes_up_change_nothing(rig: Rig) -> None:
    octets = [letter(1, size=50), letter(2, size=300_000), letter(3, size=5_000)]
    for one in octets:
        rig.server.deliver(one)
    for size in (1, 10**9):
        rig.server.size_of = lambda mail, size=size: size  # type: ignore[misc]
        async with connected(rig.source()) as session:
            _, refs, _ = await listed(session)
            assert [ref.size for ref in refs] == [size] * 3
            assert Counter((await fetched(session, refs)).values()) == Counter(octets)
            short = await fetched(session, refs, 1000)
            assert Counter(short.values()) == Counter(one[:1000] for one in octets)
    assert rig.spooled() == []


async def test_what_lies_far_beyond_the_limit_is_not_downloaded(rig: Rig) -> None:
    huge = letter(1, size=40_000_000)
    rig.server.chunk = 1 << 16
    rig.server.deliver(letter(0))
    rig.server.deliver(huge)
    rig.server.deliver(letter(2))
    rig.server.size_of = lambda mail: 10
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        assert Counter((await fetched(session, refs, 100_000)).values()) == Counter(
            [letter(0), huge[:100_000], letter(2)]
        )
    assert rig.server.sent < 20_000_000


async def test_truncated_message_says_so_and_large_ones_are_spooled(rig: Rig) -> None:
    octets = letter(1, size=3_000_000)
    rig.server.deliver(octets)
    async with connected(rig.source()) as session:
        _, (ref,), _ = await listed(session)
        for limit, truncated in ((len(octets), False), (len(octets) - 1, True), (1_500_000, True)):
            (raw,) = [raw async for raw in session.fetch([claim(ref)], limit)]
            assert isinstance(raw, RawMessage)
            assert (raw.truncated, raw.octets.size) == (truncated, min(limit, len(octets)))
            assert raw.octets.path is not None
            raw.octets.close()
    assert rig.spooled() == []


async def test_flags_and_categories_are_told(rig: Rig) -> None:
    uid = rig.server.deliver(letter(1))
    rig.server.touch(uid, seen=True, flagged=True, categories=("Blue", "with \x0b in it"))
    async with connected(rig.source()) as session:
        _, (ref,), _ = await listed(session)
        (raw,) = [raw async for raw in session.fetch([claim(ref)], WHOLE)]
        assert isinstance(raw, RawMessage)
        assert raw.flags == ("\\Seen", "\\Flagged", "Blue", "with ? in it")
        raw.octets.close()


async def test_message_that_cannot_be_converted_is_reported_after_its_neighbours(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(5)]
    rig.server.item_errors["GetItem", uids[2]] = "ErrorMimeContentConversionFailed"
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        shown = []
        with pytest.raises(
            TransientError, match="1 of 5 messages cannot be fetched: ErrorMimeContentConversionFailed"
        ) as caught:
            async for raw in session.fetch([claim(ref) for ref in refs], WHOLE):
                assert isinstance(raw, RawMessage)
                shown.append(bytes(raw.octets.view()))
                raw.octets.close()
        assert not isinstance(caught.value, SessionLost)
        assert Counter(shown) == Counter(letter(number) for number in (0, 1, 3, 4))


async def test_message_is_not_called_gone_by_a_server_that_shows_us_nothing_any_more(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(3)]
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        rig.server.vague = True
        for operation, uid in [*(("GetItem", uid) for uid in uids), ("GetFolder", rig.server.place("Inbox").uid)]:
            rig.server.item_errors[operation, uid] = "ErrorItemNotFound"
        with pytest.raises(TransientError, match="the server does not open the folder"):
            await fetched(session, refs)
        rig.server.item_errors.clear()
        rig.server.remove(letter(1))
        assert Counter((await fetched(session, refs)).values()) == Counter([letter(0), None, letter(2)])


# --- settling ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("deletion", ["deleted-items", "recoverable", "permanent"])
async def test_deleting_does_what_is_configured(rig: Rig, deletion: str) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source(deletion=deletion)) as session:
        _, (ref,), _ = await listed(session)
        for _ in range(2):
            done = await settled(session, ref, delete=True)
            assert (done.state, done.reason) == ("applied", "")
    left = {name: len(rig.server.mails(name)) for name in ("Inbox", "Deleted Items", RECOVERABLE)}
    assert left == {
        "Inbox": 0,
        "Deleted Items": int(deletion == "deleted-items"),
        RECOVERABLE: int(deletion == "recoverable"),
    }


async def test_move_makes_what_is_missing_of_a_path(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        _, (ref,), _ = await listed(session)
        done = await settled(session, ref, seen=True, move="inbox/Done/2026")
        assert (done.state, done.reason) == ("applied", "")
    assert seen_in(rig.server.mails("2026")) == Counter([letter(1)])
    assert rig.server.place("2026").parent == rig.server.place("Done").uid
    assert rig.server.place("Done").parent == rig.server.place("Inbox").uid


@pytest.mark.parametrize("vague", [False, True])
async def test_move_target_that_was_deleted_since_is_made_anew(rig: Rig, vague: bool) -> None:
    """Even by a server that says of the target what it also says of a message that is gone."""
    rig.server.vague = vague
    for number in range(3):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        assert (await settled(session, refs[0], move="Processed")).state == "applied"
        rig.server.drop_folder("Processed")
        rig.server.remove(letter(2))
        done = await session.settle([settlement(ref, Disposition(move="Processed")) for ref in refs[1:]])
        assert [(one.state, one.reason) for one in done] == [("applied", ""), ("applied", "")]
    assert [mail.octets for mail in rig.server.mails("Processed")] == [letter(1)]


async def test_setting_a_category_keeps_those_of_others(rig: Rig) -> None:
    uid = rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        await fetched(session, refs)
        rig.server.touch(uid, categories=("Theirs", "Also\x01theirs"))
        for _ in range(2):
            assert (await settled(session, refs[0], flags=("Done", "THEIRS"))).state == "applied"
    (mail,) = rig.server.mails()
    assert mail.categories == ("Theirs", "Also?theirs", "Done")
    assert not mail.seen


async def test_seen_fits_every_kind_of_mail_and_is_refused_for_what_has_no_such_mark(rig: Rig) -> None:
    for number, kind in enumerate(("Message", "MeetingRequest", "PostItem", "Item")):
        rig.server.deliver(letter(number), kind=kind)
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        for round in range(2):
            if round:
                await fetched(session, refs)
            done = await session.settle([settlement(ref, Disposition(seen=True)) for ref in refs])
            assert [one.state for one in done] == ["applied", "applied", "applied", "failed"]
            assert "cannot be marked as read" in done[3].reason
        assert [mail.seen for mail in rig.server.mails()] == [True, True, True, False]
        assert (await settled(session, refs[3], seen=True, move="Processed")).state == "applied"
    assert len(rig.server.mails("Processed")) == 1


async def test_fetched_messages_are_settled_in_one_request(rig: Rig) -> None:
    for number in range(90):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        await fetched(session, refs)
        rig.server.requests.clear()
        done = await session.settle([settlement(ref, Disposition(seen=True)) for ref in refs])
        assert {one.state for one in done} == {"applied"}
    # Marks are read back, once in a session.
    assert rig.server.requests == ["UpdateItem", "GetItem"]
    assert len(seen_in(rig.server.mails())) == 90


async def test_missing_right_fails_with_the_servers_words(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    rig.server.rights |= {"Modify": False, "Delete": False, "CreateHierarchy": False}
    async with connected(rig.source()) as session:
        _, (ref,), _ = await listed(session)
        for way, code in (
            ({"seen": True}, "ErrorAccessDenied"),
            ({"delete": True}, "ErrorMoveCopyFailed"),
            ({"move": "Processed"}, "ErrorAccessDenied"),
        ):
            done = await settled(session, ref, **way)
            assert done.state == "failed"
            assert code in done.reason
    assert len(rig.server.mails()) == 1


async def test_passing_error_of_one_message_leaves_it_pending_and_the_others_done(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(3)]
    rig.server.item_errors["UpdateItem", uids[1]] = "ErrorItemSave"
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        done = await session.settle([settlement(ref, Disposition(seen=True, move="Processed")) for ref in refs])
        assert [one.state for one in done] == ["applied", "pending", "applied"]
    assert [mail.octets for mail in rig.server.mails()] == [letter(1)], "what is not marked yet is not moved either"


# --- waiting -------------------------------------------------------------------------------------------------------
async def test_what_we_change_ourselves_is_no_news(rig: Rig) -> None:
    for number in range(3):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        await session.settle(
            [settlement(refs[0], Disposition(seen=True)), settlement(refs[1], Disposition(delete=True))]
        )
        assert await session.wait(timedelta(seconds=0.9)) is Wake.LIMIT


async def test_news_is_told_once_and_listed_still(rig: Rig) -> None:
    async with connected(rig.source()) as session:
        _, _, position = await listed(session)
        rig.server.deliver(letter(1))
        assert await session.wait(timedelta(minutes=5)) is Wake.NEWS
        assert await session.wait(timedelta(seconds=0.7)) is Wake.LIMIT
        _, refs, _ = await listed(session, since=position)
        assert len(refs) == 1


async def test_lost_sync_state_ends_the_wait(rig: Rig) -> None:
    async with connected(rig.source()) as session:
        await listed(session)
        rig.server.forget_states()
        assert await session.wait(timedelta(minutes=5)) is Wake.NEWS


# --- a busy server -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("operation", ["GetFolder", "SyncFolderItems", "GetItem", "UpdateItem", "MoveItem"])
async def test_short_back_off_is_waited_for(rig: Rig, operation: str) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        rig.server.upset(operation, Upset.busy(milliseconds=300))
        began = time.monotonic()
        _, refs, _ = await listed(session)
        assert list((await fetched(session, refs)).values()) == [letter(1)]
        done = await settled(session, refs[0], seen=True, move="Processed")
        assert done.state == "applied"
        assert time.monotonic() - began >= 0.3
    assert seen_in(rig.server.mails("Processed")) == Counter([letter(1)])


async def test_long_back_off_ends_the_session_and_is_handed_on(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    session = await rig.source().connect()
    _, refs, _ = await listed(session)
    rig.server.upset("GetItem", Upset.busy(milliseconds=240_000))
    with pytest.raises(SessionLost, match="ErrorServerBusy") as caught:
        await fetched(session, refs)
    assert caught.value.retry_after == timedelta(minutes=4)
    count = len(rig.server.requests)
    with pytest.raises(SessionLost):
        await session.open("inbox")
    assert len(rig.server.requests) == count, "a server that wants to be left alone is left alone"
    await session.close()


async def test_busy_at_the_door_is_no_wrong_password(rig: Rig) -> None:
    rig.server.upset("GetFolder", Upset.busy(milliseconds=120_000))
    with pytest.raises(TransientError) as caught:
        await rig.source().connect()
    assert not isinstance(caught.value, SessionLost)
    assert caught.value.retry_after == timedelta(minutes=2)
    rig.server.upset("GetFolder", Upset.page(503, Retry_After="90"))
    with pytest.raises(TransientError) as caught:
        await rig.source().connect()
    assert caught.value.retry_after == timedelta(seconds=90)


async def test_one_part_of_a_request_that_meets_a_busy_server_is_asked_for_again(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(4)]
    rig.server.item_errors["GetItem", uids[2]] = "ErrorServerBusy"
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)

        async def relieve() -> None:
            await asyncio.sleep(0.5)
            rig.server.item_errors.clear()

        _, shown = await asyncio.gather(relieve(), fetched(session, refs))
        assert Counter(shown.values()) == Counter(letter(number) for number in range(4))


# --- the connection ------------------------------------------------------------------------------------------------
async def test_connection_that_was_closed_while_idle_is_made_anew_silently(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        for _ in range(3):
            _, refs, _ = await listed(session)
            assert len(refs) == 1
            rig.server.cut()


async def test_server_that_falls_silent_ends_the_session_in_time(rig: Rig) -> None:
    session = await rig.source(command_timeout="500ms").connect()
    rig.server.upset("GetFolder", Upset(stall=40))
    began = time.monotonic()
    with pytest.raises(SessionLost, match=r"no answer within 0\.5 s"):
        await session.open("inbox")
    assert time.monotonic() - began < 30
    with pytest.raises(SessionLost):
        await session.wait(timedelta(seconds=5))
    await session.close()


async def test_cancelled_fetch_leaves_nothing_in_the_spool(rig: Rig) -> None:
    for number in range(3):
        rig.server.deliver(letter(number, size=2_000_000))
    async with connected(rig.source()) as session:
        _, refs, _ = await listed(session)
        answers = session.fetch([claim(ref) for ref in refs], WHOLE)
        first = await anext(answers)
        assert isinstance(first, RawMessage)
        first.octets.close()
        await answers.aclose()  # type: ignore[attr-defined]
        assert rig.spooled() == []
        assert len(await fetched(session, refs)) == 3
    assert rig.spooled() == []
