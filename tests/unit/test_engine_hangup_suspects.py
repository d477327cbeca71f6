"""The message that takes the session with it is found among its neighbours with few sessions lost."""

from __future__ import annotations

import pytest

from mailpoller.core.message import Folder, MessageRef
from mailpoller.engine.hangup_suspects import HangupSuspects

INBOX = Folder("support", "INBOX", "1")


def refs(*uids: int) -> list[MessageRef]:
    return [MessageRef(INBOX, str(uid)) for uid in uids]


def hunt(guilty: int, asked: int, *, shows: bool) -> tuple[int, bool]:
    """(sessions lost until somebody is blamed, is it the right one). ``shows``: what comes before it arrives first."""
    doubt, lost = HangupSuspects(), 1
    doubt.lost(refs(*range(guilty if shows else 1, asked + 1)))
    while True:
        for piece in doubt.pieces(INBOX):
            uids = [int(ref.uid) for ref in piece]
            if guilty in uids:
                lost += 1
                missing = [uid for uid in uids if uid >= guilty] if shows else uids
                if doubt.lost(refs(*missing)):
                    return lost, missing == [guilty]
                break


@pytest.mark.parametrize("guilty", [1, 2, 100, 199, 200])
def test_the_next_to_come_is_blamed_after_two_sessions(guilty: int) -> None:
    assert hunt(guilty, 200, shows=True) == (2, True)


@pytest.mark.parametrize("guilty", range(1, 201, 7))
def test_where_nothing_came_it_takes_a_handful_of_sessions(guilty: int) -> None:
    lost, right = hunt(guilty, 200, shows=False)
    assert right
    assert lost <= 6


def test_whoever_comes_is_not_in_doubt_any_more() -> None:
    doubt = HangupSuspects()
    doubt.lost(refs(1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert [[ref.uid for ref in piece] for piece in doubt.pieces(INBOX)] == [
        ["1"], ["2", "3"], ["4", "5"], ["6", "7"], ["8", "9"],
    ]  # fmt: skip
    assert not doubt.uids(INBOX)


def test_one_message_lost_with_its_session_once_is_in_doubt_and_not_blamed() -> None:
    doubt = HangupSuspects()
    assert not doubt.lost(refs(5))
    assert doubt.uids(INBOX) == {"5"}
    assert doubt.lost(refs(5))


@pytest.mark.parametrize("shows", [True, False])
def test_several_are_found_without_clearing_one_that_has_not_come(shows: bool) -> None:
    bad, came, found, sessions = {2, 5, 7}, set[int](), list[int](), 1
    doubt = HangupSuspects()
    doubt.lost(refs(*range(2 if shows else 1, 9)))
    while doubt.uids(INBOX):
        for piece in doubt.pieces(INBOX):
            uids = [int(ref.uid) for ref in piece]
            if not bad & set(uids):
                came.update(uids)
                continue
            sessions += 1
            missing = [uid for uid in uids if not shows or uid >= min(bad & set(uids))]
            came.update(set(uids) - set(missing))
            doubt.cleared(refs(*sorted(set(uids) - set(missing))))
            if doubt.lost(refs(*missing)):
                found += missing
            break
    assert sorted(found) == [2, 5, 7]
    assert came >= {3, 4, 6, 8} - bad
    assert sessions <= 6
    assert {int(ref.uid) for ref in doubt.absolved()} == came


def test_those_that_took_sessions_before_come_last_and_each_alone() -> None:
    doubt = HangupSuspects()
    doubt.recall(refs(20, 21))
    doubt.lost(refs(1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert [[ref.uid for ref in piece] for piece in doubt.pieces(INBOX)] == [
        ["1"], ["2", "3"], ["4", "5"], ["6", "7"], ["8", "9"], ["20"], ["21"],
    ]  # fmt: skip


def test_another_folder_is_not_in_doubt() -> None:
    doubt = HangupSuspects()
    doubt.lost(refs(1, 2))
    assert not list(doubt.pieces(Folder("support", "Sales", "1")))
    assert doubt.uids(INBOX) == {"1", "2"}
