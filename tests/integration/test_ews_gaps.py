"""A listing of Exchange that contradicts itself: what it shows is taken, the position stays, and the mailbox goes
on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Page, Position
from mailpoller.core.ports import Session, Start
from mailpoller.testing.source_suite import ALL, connected, letter
from servers.ews import Rig
from servers.exchange import Upset, exchange

CREATE = b"<t:Create><t:Message><t:Size>7</t:Size></t:Message></t:Create>"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with exchange() as server:
        yield Rig(server, tmp_path)


async def pages_of(
    session: Session, since: Position | None = None, start: Start = ALL
) -> tuple[list[str], Page, list[dict[str, Any]]]:
    """The uids, the last page, and the warnings about gaps."""
    folder = await session.open("inbox")
    with capture_logs() as logs:
        pages = [page async for page in session.pending(folder, since, start)]
    warned = [dict(one) for one in logs if one["event"] == "listing.incomplete"]
    return [ref.uid for page in pages for ref in page.refs], pages[-1], warned


def a_day_later(position: Position) -> Position:
    """As if that had been reached yesterday."""
    return Position(re.sub(r"(?<=\d@)\d{4}-", "2024-", position))


def upset(rig: Rig, old: bytes, new: bytes, times: int = 1) -> None:
    rig.server.upset("SyncFolderItems", Upset(instead=lambda answer: re.sub(old, new, answer)), times)


@pytest.mark.parametrize("start", [Start("all"), Start("now")])
async def test_item_that_cannot_be_read_holds_the_position_until_three_sessions_met_it(rig: Rig, start: Start) -> None:
    uid = rig.server.deliver(letter(1))
    shown = [uid] if start.kind == "all" else []
    position: Position | None = None
    for number in (1, 2, 3):
        async with connected(rig.source()) as session:
            for again in (False, True):
                upset(rig, b"<m:Changes>", b"<m:Changes>" + CREATE)
                uids, last, warned = await pages_of(session, position, start)
                # A message that came within the hour is shown whatever start says, once a listing has to be made anew.
                assert uids == shown or position is not None
                assert set(uids) >= set(shown)
                assert last.partial is (number < 3)
                assert bool(last.gap) is (number == 3)
                assert [one["passed"] for one in warned] == ([] if again and number < 3 else [number == 3])
                if number == 3:
                    break
                position = last.position
                assert position is not None
    async with connected(rig.source()) as session:
        new = rig.server.deliver(letter(2))
        uids, last, _ = await pages_of(session, last.position)
        assert (uids, last.partial) == ([new], False)
        assert last.gap.startswith("1 message"), "it is told as long as nobody knows better"
        assert (await pages_of(session, last.position))[1].gap == last.gap
        # After a day everything is listed anew, which shows whether it is still there.
        assert last.position is not None
        upset(rig, b"<m:Changes>", b"<m:Changes>" + CREATE)
        uids, last, _ = await pages_of(session, a_day_later(last.position))
        assert (set(uids) >= {uid, new}, last.partial, bool(last.gap)) == (True, False, True)
        assert last.position is not None
        uids, last, _ = await pages_of(session, a_day_later(last.position))
        assert (set(uids) >= {uid, new}, last.partial, last.gap) == (True, False, "")
        assert (await pages_of(session, last.position))[0] == []


async def test_item_that_went_and_is_back_in_the_same_answer_is_shown(rig: Rig) -> None:
    first = rig.server.deliver(letter(1))
    went = b'<t:Delete><t:ItemId Id="%b" ChangeKey="x"/></t:Delete>'
    async with connected(rig.source()) as session:
        upset(rig, b"<m:Changes>", b"<m:Changes>" + went % first.encode())
        uids, last, _ = await pages_of(session)
        assert uids == [first]
        second = rig.server.deliver(letter(2))
        upset(rig, b"<m:Changes>", b"<m:Changes>" + went % second.encode())
        uids, _, _ = await pages_of(session, last.position)
        assert uids == [second]


async def test_change_that_cannot_be_read_hides_nothing_that_came_with_it(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        _, last, _ = await pages_of(session)
        new = rig.server.deliver(letter(2))
        upset(rig, b"<m:Changes>", b"<m:Changes>" + CREATE)
        uids, held, warned = await pages_of(session, last.position)
        assert (uids, held.partial, len(warned)) == ([new], True, 1)
        uids, whole, _ = await pages_of(session, held.position)
        assert (uids, whole.partial) == ([new], False), "the position stayed before it"
        assert (await pages_of(session, whole.position))[0] == []


async def test_contact_without_an_id_is_no_gap(rig: Rig) -> None:
    upset(rig, b"<m:Changes>", b"<m:Changes><t:Create><t:Contact/></t:Create>")
    async with connected(rig.source()) as session:
        _, last, warned = await pages_of(session)
        assert (last.partial, warned) == (False, [])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"<m:SyncState>.*</m:SyncState>", b""),
        (b"<m:SyncState>.*</m:SyncState>", b"<m:SyncState>-</m:SyncState>"),
        (b"<m:IncludesLastItemInRange>.*</m:IncludesLastItemInRange>", b""),
    ],
    ids=["no state", "a state that is none", "no word of the end"],
)
async def test_changes_that_do_not_end_are_taken_and_listed_again(rig: Rig, old: bytes, new: bytes) -> None:
    known = rig.server.deliver(letter(0))
    async with connected(rig.source()) as session:
        _, last, _ = await pages_of(session)
    position, rig.server.page_size = last.position, 1
    for number in (1, 2, 3):
        uids = [rig.server.deliver(letter(10 * number + n)) for n in (1, 2)]
        async with connected(rig.source()) as session:
            # The first answer is as it should be.
            rig.server.upset("SyncFolderItems", Upset(instead=lambda answer: answer))
            upset(rig, old, new)
            shown, last, warned = await pages_of(session, position)
            assert last.partial is (number < 3)
            assert bool(warned) is (number < 3)
            if number == 3:
                assert set(shown) >= {known, *uids}, "the third one begins anew"
            position = last.position
            assert position is not None
    async with connected(rig.source()) as session:
        assert (await pages_of(session, position))[0] == []


async def test_full_listing_that_does_not_end_shows_what_it_has_and_is_made_again(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(4)]
    rig.server.page_size = 2
    async with connected(rig.source()) as session:
        rig.server.upset("SyncFolderItems", Upset(instead=lambda answer: answer))
        upset(rig, b"<m:SyncState>.*</m:SyncState>", b"")
        shown, last, warned = await pages_of(session)
        assert set(uids[:2]) <= set(shown)
        assert (last.partial, len(warned)) == (True, 1)
        shown, last, _ = await pages_of(session, last.position)
        assert (shown, last.partial) == (uids, False)


async def test_listing_of_which_nothing_comes_is_an_error(rig: Rig) -> None:
    async with connected(rig.source()) as session:
        upset(rig, b"<m:SyncState>.*</m:SyncState>", b"")
        with pytest.raises(TransientError, match="no sync state"):
            await pages_of(session)


async def test_empty_answers_without_end_are_bounded(rig: Rig) -> None:
    states = iter(range(10**6))

    def another(answer: bytes) -> bytes:
        answer = re.sub(b"<m:Changes>.*</m:Changes>", b"<m:Changes/>", answer)
        answer = answer.replace(b"InRange>true", b"InRange>false")
        return re.sub(b"<m:SyncState>[^<]*", b"<m:SyncState>%d" % next(states), answer)

    def unknown(_: bytes) -> bytes:
        return another(known)

    async with connected(rig.source()) as session:
        _, _, _ = await pages_of(session)
        known = rig.server.answer("SyncFolderItems", _question(rig), None)
        rig.server.upset("SyncFolderItems", Upset(instead=unknown), 1_000)
        with pytest.raises(TransientError, match="no end"):
            await pages_of(session)
        assert rig.server.requests.count("SyncFolderItems") < 300


def _question(rig: Rig) -> Any:
    from mailpoller.sources.ews import soap

    request = soap.sync_items(rig.server.place("inbox").uid, "", (), 512)
    return rig.server.operation(soap.envelope(request))[1]


async def test_listing_that_is_made_anew_tells_no_sizes_that_would_raise_questions(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        folder = await session.open("inbox")
        pages = [page async for page in session.pending(folder, None, ALL)]
        assert [ref.size for page in pages for ref in page.refs] == [len(letter(1))]
        # A size is the store's, and changes with flags and categories; the id says all that there is to say.
        rig.server.size_of = lambda mail: len(mail.octets) + 300
        rig.server.forget_states()
        pages = [page async for page in session.pending(folder, pages[-1].position, ALL)]
        assert [ref.size for page in pages for ref in page.refs] == [None]
        assert all(ref.received is not None for page in pages for ref in page.refs)
