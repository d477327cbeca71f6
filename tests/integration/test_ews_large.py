"""A folder of an Exchange server with more mail than fits into memory: it is shown as it is listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailpoller.core.errors import TransientError
from mailpoller.core.message import Position
from mailpoller.core.ports import Start
from mailpoller.sources.ews import listing
from mailpoller.testing.source_suite import ALL, connected, letter
from servers.ews import Rig
from servers.exchange import Upset, exchange


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(listing, "HELD", 6)
    monkeypatch.setattr(listing, "TOGETHER", 6)
    with exchange() as server:
        server.page_size = 4
        yield Rig(server, tmp_path)


def listings(rig: Rig) -> int:
    return rig.server.requests.count("SyncFolderItems")


async def test_of_a_large_folder_no_more_is_in_hand_than_is_worked_on(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(30)]
    async with connected(rig.source()) as session:
        folder = await session.open("inbox")
        seen: list[str] = []
        asked: list[int] = []
        async for page in session.pending(folder, None, ALL):
            seen += [ref.uid for ref in page.refs]
            asked.append(listings(rig))
        assert seen == uids
        assert asked == [2, 3, 4, 5, 6, 7, 8], "two answers are held back, and then none"
        assert page.position is not None
        again = [page async for page in session.pending(folder, page.position, ALL)]
        assert [ref for page in again for ref in page.refs] == []


async def test_of_a_small_folder_it_is_told_how_much_it_holds(rig: Rig) -> None:
    for number in range(5):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        (page,) = [page async for page in session.pending(await session.open("inbox"), None, ALL)]
        assert page.listed == 5


async def test_many_changes_are_taken_in_pieces_and_none_is_left_out(rig: Rig) -> None:
    async with connected(rig.source()) as session:
        folder = await session.open("inbox")
        (page,) = [page async for page in session.pending(folder, None, ALL)]
        uids = [rig.server.deliver(letter(number)) for number in range(30)]
        seen: list[str] = []
        for _ in range(4):
            pages = [page async for page in session.pending(folder, page.position, ALL)]
            page = pages[-1]
            piece = [ref.uid for one in pages for ref in one.refs]
            assert len(piece) <= 8
            seen += piece
        assert seen == uids


async def test_a_large_listing_that_is_cut_short_does_not_forget_when_it_began(rig: Rig) -> None:
    """With ``start: unseen`` here, for what was there is all that there is; a mail that comes meanwhile is none of
    it."""
    for number in range(12):
        rig.server.deliver(letter(number))
    rig.server.upset("SyncFolderItems", Upset(instead=lambda answer: answer))
    rig.server.upset("SyncFolderItems", Upset(instead=lambda answer: answer))
    rig.server.upset("SyncFolderItems", Upset(status=500))
    reached: list[Position] = []
    async with connected(rig.source()) as session:
        with pytest.raises(TransientError):
            async for page in session.pending(await session.open("inbox"), None, Start("unseen")):
                reached += [page.position] if page.position else []
    (position,) = reached
    bookmark = listing.Bookmark.read(position)
    assert bookmark is not None and (bookmark.state, bookmark.start) == ("", Start("unseen"))
