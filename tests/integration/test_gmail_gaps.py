"""A listing of Gmail that contradicts itself: what it shows is taken, the position stays, and the mailbox goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from integration.test_gmail import Rig
from mailpoller.core.message import Page, Position
from mailpoller.core.ports import Session, Start
from mailpoller.testing.source_suite import ALL, connected, letter
from servers.gmail import Gmail, Upset


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Gmail() as gmail:
        yield Rig(gmail, tmp_path)
        assert gmail.violations == []


async def pages_of(
    session: Session, since: Position | None = None, start: Start = ALL
) -> tuple[list[str], Page, list[dict[str, Any]]]:
    """The uids, the last page, and the warnings about gaps."""
    folder = await session.open("INBOX")
    with capture_logs() as logs:
        pages = [page async for page in session.pending(folder, since, start)]
    warned = [dict(one) for one in logs if one["event"] == "listing.incomplete"]
    assert not any(page.partial for page in pages[:-1])
    return [ref.uid for page in pages for ref in page.refs], pages[-1], warned


def a_day_later(position: Position) -> Position:
    """As if that had been reached yesterday."""
    return Position(re.sub(r"(?<=[\d]@)\d{4}-", "2024-", position))


def changed(change: Callable[[dict[str, Any]], Any]) -> Upset:
    def instead(body: bytes) -> bytes:
        found = json.loads(body)
        change(found)
        return json.dumps(found).encode()

    return Upset(instead=instead)


LISTING, HISTORY = r"GET .*/messages\?", r"GET .*/history\?"


@pytest.mark.parametrize("start", [Start("all"), Start("unseen")])
@pytest.mark.parametrize("entry", [{"threadId": "18f"}, {"id": "../labels"}], ids=["no id", "climbing"])
async def test_entry_that_cannot_be_read_holds_the_position_until_three_sessions_met_it(
    rig: Rig, entry: dict[str, Any], start: Start
) -> None:
    uid = rig.server.deliver(letter(1))
    seen = rig.server.deliver(letter(2), seen=True)
    position: Position | None = None
    for number in (1, 2, 3):
        async with connected(rig.source()) as session:
            for again in (False, True):
                rig.server.calm()
                rig.server.upset(LISTING, *[changed(lambda body: body["messages"].insert(0, entry))] * 9)
                uids, last, warned = await pages_of(session, position, start)
                assert uid in uids, "what is listed is taken"
                assert last.partial is (number < 3)
                assert bool(last.gap) is (number == 3)
                left_out = [] if number < 3 or start.kind == "all" else [seen]
                assert [ref.uid for ref in last.unwanted] == left_out, "for good, so not while the listing lacks some"
                assert [one["passed"] for one in warned] == ([] if again and number < 3 else [number == 3])
                assert last.position is not None
                if number == 3:
                    break
                position = last.position
    rig.server.calm()
    async with connected(rig.source()) as session:
        new = rig.server.deliver(letter(3))
        uids, last, warned = await pages_of(session, last.position)
        assert (uids, last.partial, warned) == ([new], False, [])
        assert "have no id" in last.gap, "it is told as long as nobody knows better"
        assert (await pages_of(session, last.position))[1].gap == last.gap
        # After a day everything is listed anew, which shows whether it is still there.
        assert last.position is not None
        rig.server.upset(LISTING, changed(lambda body: body["messages"].insert(0, entry)))
        uids, last, warned = await pages_of(session, a_day_later(last.position))
        assert (set(uids) >= {uid, new}, last.partial, bool(last.gap)) == (True, False, True)
        assert last.position is not None
        uids, last, warned = await pages_of(session, a_day_later(last.position))
        assert (set(uids) >= {uid, new}, last.partial, last.gap) == (True, False, "")
        assert (await pages_of(session, last.position))[0] == []


async def test_change_that_cannot_be_read_hides_nothing_that_came_with_it(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        _, last, _ = await pages_of(session)
        new = rig.server.deliver(letter(2))
        odd = {"messagesAdded": [{"message": {"labelIds": ["INBOX"]}}, {}]}
        rig.server.upset(HISTORY, changed(lambda body: body["history"].insert(0, odd)))
        uids, held, warned = await pages_of(session, last.position)
        assert (uids, held.partial, len(warned)) == ([new], True, 1)
        uids, whole, _ = await pages_of(session, held.position)
        assert (uids, whole.partial) == ([new], False), "the position stayed before it"


@pytest.mark.parametrize("token", ["again", 7])
async def test_history_that_does_not_end_is_checked_by_date_and_then_listed_anew(rig: Rig, token: object) -> None:
    old = rig.server.deliver(letter(0))
    async with connected(rig.source()) as session:
        _, last, _ = await pages_of(session)
    position = last.position
    for number in (1, 2, 3):
        new = rig.server.deliver(letter(number))
        broken = Upset(200, json.dumps({"nextPageToken": token, "historyId": "1"}).encode())
        rig.server.calm()
        # The one after the listing by date is as it should be.
        rig.server.upset(HISTORY, *[broken] * (2 if token == "again" else 1))
        async with connected(rig.source()) as session:
            uids, last, warned = await pages_of(session, position)
            assert new in uids, "the mailbox does not stand still"
            assert last.partial is (number < 3)
            assert len(warned) == (number < 3)
            position = last.position
    assert old in uids, "the third one begins anew"


@pytest.mark.parametrize("start", [Start("all"), Start("unseen")])
async def test_full_listing_that_does_not_end_shows_what_it_has_and_is_made_again(rig: Rig, start: Start) -> None:
    uids = {rig.server.deliver(letter(number)) for number in range(5)}
    rig.server.page_size = 2
    async with connected(rig.source()) as session:
        rig.server.upset(LISTING + ".*pageToken", Upset(200, b'{"messages": 7}'))
        shown, last, warned = await pages_of(session, None, start)
        assert len(shown) == 2
        assert (last.partial, list(last.unwanted), len(warned)) == (True, [], 1)
        shown, last, _ = await pages_of(session, last.position, start)
        assert (set(shown), last.partial) == (uids, False)
