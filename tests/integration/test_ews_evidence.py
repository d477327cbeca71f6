"""That Exchange says OK is no evidence: what it shows of an item is, and a look says what is there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailpoller.core.delivery import Disposition
from mailpoller.core.errors import TransientError
from mailpoller.core.message import MessageRef
from mailpoller.testing.builders import plain
from servers.ews import Rig
from servers.exchange import exchange
from servers.mailboxes import listed, session_of, settled

FLAG, MARK = Disposition(flags=("\\Flagged",)), Disposition(seen=True, flags=("Red Category",))
LIES = [
    ("seen", Disposition(seen=True)), ("flag", FLAG), ("categories", Disposition(flags=("Red Category",))),
    ("MoveItem", Disposition(move="Processed")), ("DeleteItem", Disposition(delete=True)),
]  # fmt: skip


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with exchange() as server:
        yield Rig(server, tmp_path)


@pytest.mark.parametrize(("lie", "way"), LIES, ids=[lie for lie, _ in LIES])
async def test_yes_to_what_was_not_done_is_a_failure_and_told(rig: Rig, lie: str, way: Disposition) -> None:
    server = rig.server
    for number in range(3):
        server.deliver(plain(subject=str(number)))
    async with session_of(rig.source(deletion="permanent")) as session:
        refs, _ = await listed(session, await session.open("inbox"))
        server.lies = {lie}
        for _ in range(2):
            done = await session.settle(settled(refs, way))
            assert [one.state for one in done] == ["failed"] * 3
            assert all("shows it" in one.reason for one in done)
        assert len(server.mails()) == 3
        server.lies = set()
        assert [one.state for one in await session.settle(settled(refs, way))] == ["applied"] * 3


async def test_flag_is_set_where_only_the_older_property_counts(rig: Rig) -> None:
    server = rig.server
    server.flags_by_status = True
    server.deliver(plain())
    async with session_of(rig.source()) as session:
        refs, _ = await listed(session, await session.open("inbox"))
        (done,) = await session.settle(settled(refs, FLAG))
    assert done.state == "applied"
    assert (server.mails()[0].flagged, server.mails()[0].flag_status) == (True, 2)


async def test_marks_that_held_are_read_back_once_a_session(rig: Rig) -> None:
    server = rig.server
    for number in range(4):
        server.deliver(plain(subject=str(number)))
    async with session_of(rig.source()) as session:
        refs, _ = await listed(session, await session.open("inbox"))
        for number, asked in ((0, 2), (1, 1)):
            before = server.requests.count("GetItem")
            (done,) = await session.settle(settled(refs[number : number + 1], Disposition(seen=True)))
            assert done.state == "applied"
            # What is changed is looked at before, unless it was fetched.
            assert server.requests.count("GetItem") - before == asked
        # Another kind of mark was not read back yet.
        before = server.requests.count("GetItem")
        await session.settle(settled(refs[2:3], MARK))
        assert server.requests.count("GetItem") - before == 2
    async with session_of(rig.source()) as session:
        await session.open("inbox")
        before = server.requests.count("GetItem")
        await session.settle(settled(refs[3:], Disposition(seen=True)))
        assert server.requests.count("GetItem") - before == 2


@pytest.mark.parametrize("tells", [True, False])
async def test_move_that_tells_no_new_ids_is_looked_behind(rig: Rig, tells: bool) -> None:
    server = rig.server
    server.tells_new_ids = tells
    for number in range(3):
        server.deliver(plain(subject=str(number)))
    async with session_of(rig.source()) as session:
        refs, _ = await listed(session, await session.open("inbox"))
        done = await session.settle(settled(refs, Disposition(move="Processed")))
    assert [one.state for one in done] == ["applied"] * 3
    assert server.requests.count("GetItem") == (0 if tells else 1)


async def test_look_at_many_of_which_all_are_gone_is_one_question(rig: Rig) -> None:
    server = rig.server
    received = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    uids = [server.deliver(plain(subject=str(number)), received=received) for number in range(5)]
    async with session_of(rig.source()) as session:
        folder = await session.open("inbox")
        refs = [MessageRef(folder, uid) for uid in uids]
        server.reorders = True
        assert [ref.received for ref in await session.look(refs) if ref is not None] == [received] * 5
        for number in range(5):
            server.remove(plain(subject=str(number)))
        before = server.requests.count("GetItem")
        assert await session.look(refs) == [None] * 5
        assert server.requests.count("GetItem") - before == 1


async def test_look_believes_no_absence_where_the_folder_is_not_shown_either(rig: Rig) -> None:
    server = rig.server
    server.add_folder("Support")
    uid = server.deliver(plain(), "Support")
    async with session_of(rig.source(folders=["Support"])) as session:
        folder = await session.open("Support")
        server.drop_folder("Support")
        with pytest.raises(TransientError):
            await session.look([MessageRef(folder, uid)])


async def test_error_about_one_message_is_no_absence(rig: Rig) -> None:
    server = rig.server
    uids = [server.deliver(plain(subject=str(number))) for number in range(3)]
    async with session_of(rig.source()) as session:
        folder = await session.open("inbox")
        server.item_errors["GetItem", uids[1]] = "ErrorAccessDenied"
        with pytest.raises(TransientError, match="ErrorAccessDenied"):
            await session.look([MessageRef(folder, uid) for uid in uids])
