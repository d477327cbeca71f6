"""That Graph says OK is no evidence: what it shows of a message is, and a look says what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from integration.test_graph import opened
from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import TransientError
from mailpoller.core.message import MessageRef
from mailpoller.core.ports import Source
from mailpoller.sources.graph import GraphConfig
from mailpoller.testing.builders import plain
from servers.graph import Graph, strict_graph
from servers.mailboxes import listed, runtime, settled

WAYS = {
    "PATCH": [Disposition(seen=True), Disposition(flags=("\\Flagged",)), Disposition(flags=("Red Category",))],
    "move": [Disposition(move="Processed"), Disposition(seen=True, move="Processed")],
    "DELETE": [Disposition(delete=True)],
    "permanentDelete": [Disposition(delete=True)],
}
LIES = [(lie, way) for lie, ways in WAYS.items() for way in ways]


@pytest.fixture(params=["telling", "silent"])
def graph(request: pytest.FixtureRequest) -> Iterator[Graph]:
    with strict_graph() as server:
        server.silent = request.param == "silent"
        yield server


@pytest.fixture
def make(graph: Graph, tmp_path: Path) -> Callable[..., Source]:
    def made(**settings: Any) -> Source:
        values = {"type": "graph", "user": graph.user, "url": graph.url, "auth": graph.auth, **settings}
        return GraphConfig.model_validate(values).build("support", runtime(tmp_path))

    return made


@pytest.mark.parametrize(("lie", "way"), LIES, ids=[f"{lie}-{number}" for number, (lie, _) in enumerate(LIES)])
async def test_yes_to_what_was_not_done_is_a_failure_and_told(
    graph: Graph, make: Callable[..., Source], lie: str, way: Disposition
) -> None:
    deletion = {"DELETE": "recoverable", "permanentDelete": "permanent"}.get(lie, "deleted-items")
    for number in range(3):
        graph.deliver(plain(subject=str(number)))
    async with opened(make(deletion=deletion)) as (session, folder):
        refs, _ = await listed(session, folder)
        graph.lies = {lie}
        done = await session.settle(settled(refs, way))
        assert [one.state for one in done] == ["failed"] * 3
        assert all("shows it as it was" in one.reason for one in done)
        assert len(graph.mails()) == 3
        graph.lies = set()
        assert [one.state for one in await session.settle(settled(refs, way))] == ["applied"] * 3


async def test_yes_to_moving_to_the_deleted_items_is_looked_at(graph: Graph, make: Callable[..., Source]) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        graph.lies = {"move"}
        (done,) = await session.settle(settled(refs, Disposition(delete=True)))
        assert done.state == "failed"
        assert "deleted" in done.reason


async def test_what_the_service_shows_in_its_answer_is_not_asked_for_again(
    graph: Graph, make: Callable[..., Source]
) -> None:
    graph.deliver(plain())
    async with opened(make()) as (session, folder):
        refs, _ = await listed(session, folder)
        before = graph.count("/messages/[^/]+$")
        (done,) = await session.settle(settled(refs, Disposition(seen=True, move="Processed")))
        assert done.state == "applied"
        # Where it lies is asked for before, and where the service is silent afterwards too.
        assert graph.count("/messages/[^/]+$") - before == (2 if graph.silent else 1)


async def test_look_asks_twenty_at_a_time_and_shows_what_fetching_would_give(
    graph: Graph, make: Callable[..., Source]
) -> None:
    received = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    uids = [graph.deliver(plain(subject=str(number)), received=received) for number in range(45)]
    async with opened(make()) as (session, folder):
        graph.move(uids[3], "deleteditems")
        graph.remove(plain(subject="4"))
        before = graph.count(r"/\$batch", method="POST")
        shown = await session.look([MessageRef(folder, uid) for uid in uids])
        assert graph.count(r"/\$batch", method="POST") - before == 3
        assert [ref is not None for ref in shown] == [number != 4 for number in range(45)]
        assert {ref.received for ref in shown if ref is not None} == {received}


async def test_look_that_is_not_answered_for_one_message_tells_of_none(
    graph: Graph, make: Callable[..., Source]
) -> None:
    uids = [graph.deliver(plain(subject=str(number))) for number in range(3)]
    async with opened(make()) as (session, folder):
        for status, code in ((403, "ErrorAccessDenied"), (404, "ErrorInvalidUser")):
            graph.throttle_parts(1, status=status, code=code)
            with pytest.raises(TransientError, match=code):
                await session.look([MessageRef(folder, uid) for uid in uids])
        assert None not in await session.look([MessageRef(folder, uid) for uid in uids])
