"""A listing of Graph that contradicts itself: what it shows is taken, the position stays, and the mailbox goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from integration.test_graph import opened
from mailpoller.core.errors import TransientError
from mailpoller.core.message import Page, Position
from mailpoller.core.ports import Session, Source, Start
from mailpoller.sources.graph import GraphConfig
from mailpoller.testing.builders import plain
from servers.graph import Asked, Graph, Said, strict_graph
from servers.mailboxes import ALL, runtime


@pytest.fixture
def graph() -> Iterator[Graph]:
    with strict_graph() as server:
        yield server


@pytest.fixture
def make(graph: Graph, tmp_path: Path) -> Callable[..., Source]:
    def made(**settings: Any) -> Source:
        values = {"type": "graph", "user": graph.user, "url": graph.url, "auth": graph.auth, **settings}
        return GraphConfig.model_validate(values).build("support", runtime(tmp_path))

    return made


async def pages_of(
    session: Session, folder: Any, since: Position | None = None, start: Start = ALL
) -> tuple[list[str], Page, list[dict[str, Any]]]:
    """The uids, the last page, and the warnings about gaps."""
    with capture_logs() as logs:
        pages = [page async for page in session.pending(folder, since, start)]
    warned = [dict(one) for one in logs if one["event"] == "listing.incomplete"]
    assert not any(page.partial for page in pages[:-1])
    return [ref.uid for page in pages for ref in page.refs], pages[-1], warned


def a_day_later(position: Position) -> Position:
    """As if that had been reached yesterday."""
    return Position(re.sub(r"@\d{4}-", "@2024-", position))


class Unreadable:
    """Puts an entry without an id into every delta page, as long as ``on``."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.on = True

    def __call__(self, asked: Asked) -> Said | None:
        if "/delta" not in asked.path or not self.on:
            return None
        folder = asked.path.split("/")[5]
        said = self.graph._delta(self.graph._folder(folder), dict(asked.query), asked.headers)
        said.body["value"].insert(0, {"isRead": False})
        return said


@pytest.mark.parametrize("start", [Start("all"), Start("now")])
async def test_entry_that_cannot_be_read_holds_the_position_until_three_sessions_met_it(
    graph: Graph, make: Callable[..., Source], start: Start
) -> None:
    uid = graph.deliver(plain())
    shown = [uid] if start.kind == "all" else []
    graph.instead = unreadable = Unreadable(graph)
    position: Position | None = None
    for number in (1, 2, 3):
        async with opened(make()) as (session, folder):
            for again in (False, True):
                uids, last, warned = await pages_of(session, folder, position, start)
                assert uids == shown, "what is listed is taken"
                assert last.partial is (number < 3)
                assert bool(last.gap) is (number == 3)
                assert [one["passed"] for one in warned] == ([] if again and number < 3 else [number == 3])
                assert last.position is not None
                if number == 3:
                    break
                position = last.position
    unreadable.on = False
    async with opened(make()) as (session, folder):
        new = graph.deliver(plain(subject="new"))
        uids, last, warned = await pages_of(session, folder, last.position)
        assert (uids, last.partial, warned) == ([new], False, [])
        assert last.gap.startswith("1 message"), "it is told as long as nobody knows better"
        assert (await pages_of(session, folder, last.position))[1].gap == last.gap
        assert last.position is not None
        # After a day everything is listed anew, which shows whether it is still there.
        unreadable.on = True
        uids, last, warned = await pages_of(session, folder, a_day_later(last.position))
        assert (set(uids), last.partial, bool(last.gap)) == ({uid, new}, False, True)
        assert last.position is not None
        unreadable.on = False
        uids, last, warned = await pages_of(session, folder, a_day_later(last.position))
        assert (set(uids), last.partial, last.gap) == ({uid, new}, False, "")
        assert (await pages_of(session, folder, last.position))[0] == []


async def test_change_that_cannot_be_read_hides_nothing_that_came_with_it(
    graph: Graph, make: Callable[..., Source]
) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        _, last, _ = await pages_of(session, folder)
        new = graph.deliver(plain(subject="new"))
        graph.instead = unreadable = Unreadable(graph)
        uids, held, _ = await pages_of(session, folder, last.position)
        assert new in uids
        assert held.partial
        unreadable.on = False
        uids, _, _ = await pages_of(session, folder, held.position)
        assert new in uids, "the position stayed before it"


@pytest.mark.parametrize("kind", ["the same link again", "no link at all"])
async def test_changes_that_do_not_end_are_checked_by_date_and_then_listed_anew(
    graph: Graph, make: Callable[..., Source], kind: str
) -> None:
    old = graph.deliver(plain())
    async with opened(make()) as (session, folder):
        _, last, _ = await pages_of(session, folder)
    position = last.position
    link = f"{graph.url}/users/x/delta?$skiptoken=1"
    body: dict[str, Any] = {"value": [], **({"@odata.nextLink": link} if kind.startswith("the same") else {})}

    def broken(asked: Asked) -> Said | None:
        return Said(200, body) if "$deltatoken" in asked.query or "$skiptoken" in asked.query else None

    for number in (1, 2, 3):
        new = graph.deliver(plain(subject=str(number)))
        graph.instead = broken
        async with opened(make()) as (session, folder):
            uids, last, warned = await pages_of(session, folder, position)
            assert new in uids, "the mailbox does not stand still"
            assert len(warned) == 1
            assert last.partial is (number < 3)
            position = last.position
    assert old in uids, "the third one begins anew"


async def test_full_listing_that_does_not_end_shows_what_it_has_and_no_position(
    graph: Graph, make: Callable[..., Source]
) -> None:
    uids = [graph.deliver(plain(subject=str(number))) for number in range(5)]
    graph.page_size = 2
    graph.instead = lambda asked: Said(200, {"value": 7}) if "$skiptoken" in asked.query else None
    async with opened(make()) as (session, folder):
        shown, last, warned = await pages_of(session, folder)
        assert shown == uids[:2]
        assert last.partial
        assert last.position is None
        assert [one["passed"] for one in warned] == [False]


async def test_token_that_is_lost_within_changes_loses_none_of_them(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        _, last, _ = await pages_of(session, folder)
        uids = [graph.deliver(plain(subject=str(number))) for number in range(5)]
        graph.page_size = 2
        lost = Said(410, {"error": {"code": "syncStateNotFound", "message": "start anew"}})
        told = iter([lost])
        graph.instead = lambda asked: next(told, None) if "$skiptoken" in asked.query else None
        shown, _, _ = await pages_of(session, folder, last.position)
        assert set(shown) >= set(uids)


async def test_listing_of_which_nothing_comes_is_an_error(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain())
    graph.instead = lambda asked: Said(200, {"value": []}) if "/delta" in asked.path else None
    async with opened(make()) as (session, folder):
        with pytest.raises(TransientError, match="how to go on"):
            await pages_of(session, folder)
