"""That Gmail says OK is no evidence: the labels that it shows are; and a look says what is there, also of what came
back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.test_gmail import HTML, Rig, listed, settled
from mailpoller.core.errors import TransientError
from mailpoller.core.message import MessageRef
from mailpoller.testing.source_suite import connected, fetched, letter
from servers.gmail import Gmail, Upset

WAYS: dict[str, dict[str, Any]] = {
    "seen": {"seen": True}, "flag": {"flags": ("\\Flagged",)}, "label": {"flags": ("Done",)},
    "move": {"move": "Processed"},
    "delete": {"delete": True},
}  # fmt: skip


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Gmail() as gmail:
        yield Rig(gmail, tmp_path)
        assert gmail.violations == []


@pytest.mark.parametrize("count", [3, 12], ids=["alone", "as a batch"])
@pytest.mark.parametrize("way", WAYS)
async def test_yes_to_what_was_not_done_is_a_failure_and_told(rig: Rig, way: str, count: int) -> None:
    for number in range(count):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        rig.server.lies = True
        done = await settled(session, refs, **WAYS[way])
        assert [one.state for one in done] == ["failed"] * count
        assert all("shows it as it was" in one.reason for one in done)
        rig.server.lies = False
        assert {one.state for one in await settled(session, refs, **WAYS[way])} == {"applied"}
    assert rig.server.count("POST /messages/batchModify") == (0 if count == 3 else 2)


@pytest.mark.parametrize("lags", [False, True], ids=["history that is up to date", "history that lags"])
async def test_batch_is_proved_by_the_history_and_by_looking_where_that_lags(rig: Rig, lags: bool) -> None:
    for number in range(40):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        rig.server.history_lags = lags
        assert {one.state for one in await settled(session, refs, seen=True)} == {"applied"}
    assert rig.server.count("GET /messages/.*") == (40 if lags else 0)


async def test_change_whose_labels_are_not_shown_is_pending(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        rig.server.upset("POST /gmail/v1/users/.*/modify", Upset(instead=lambda _: b"{}"))
        (done,) = await settled(session, refs, seen=True)
        assert done.state == "pending"


async def test_mail_that_leaves_the_trash_again_is_found(rig: Rig) -> None:
    uids = [rig.server.deliver(letter(number)) for number in range(3)]
    async with connected(rig.source()) as session:
        refs, position = await listed(session)
        rig.server.relabel(uids[1], add=["TRASH"])
        rig.server.remove(uids[2])
        # Archived mail is delivered, and so it is there.
        rig.server.relabel(uids[0], remove=["INBOX"])
        assert [ref is not None for ref in await session.look(refs)] == [uid == uids[0] for uid in _uids(refs)]
        assert (await fetched(session, refs))[uids[1]] is None
        rig.server.relabel(uids[1], remove=["TRASH"])
        assert [ref is not None for ref in await session.look(refs)] == [uid != uids[2] for uid in _uids(refs)]
        # And without being asked for by name.
        assert uids[1] in _uids((await listed(session, position))[0])


def _uids(refs: list[MessageRef]) -> list[str]:
    return [ref.uid for ref in refs]


async def test_not_found_of_somebody_in_between_is_no_absence(rig: Rig) -> None:
    rig.server.deliver(letter(1))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        page = Upset(404, HTML, Upset.headers_of("text/html"))
        rig.server.upset("GET /gmail/v1/users/.*/messages/", *[page] * 2)
        with pytest.raises(TransientError):
            await session.look(refs)
        with pytest.raises(TransientError):
            await fetched(session, refs)
        assert None not in await session.look(refs)


async def test_dates_are_asked_for_only_where_they_are_needed(rig: Rig) -> None:
    for number in range(3):
        rig.server.deliver(letter(number))
    async with connected(rig.source()) as session:
        refs, _ = await listed(session)
        assert [ref.received for ref in refs] == [None] * 3
        assert rig.server.count("GET /messages/.*") == 0
