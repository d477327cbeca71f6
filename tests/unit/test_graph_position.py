"""Positions of Graph listings: written and read again; what is not ours lists everything."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mailpoller.core.message import Position
from mailpoller.core.ports import Start
from mailpoller.sources.graph.listing import Bookmark

NOW = datetime(2026, 11, 22, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "bookmark",
    [
        Bookmark("https://graph.microsoft.com/v1.0/users/x/messages/delta?$deltatoken=a b&c", NOW),
        Bookmark("", NOW, Start("unseen"), NOW),
        Bookmark("", NOW, Start("since", NOW), NOW),
    ],
)
def test_position_is_read_as_it_was_written(bookmark: Bookmark) -> None:
    assert Bookmark.read(bookmark.write()) == bookmark


@pytest.mark.parametrize(
    "written",
    [
        "", "7", "null", "[]", "{}", '{"link": "https://x/", "swept": '
                                     '"yesterday"}', '{"link": "", "swept": "2026-11-22T01:30:00+00:00"}',
        '{"link": "https://x/", "swept": "2026-11-22T01:30:00"}',
        '{"link": "", "swept": "2026-11-22T01:30:00+00:00", "start": "then", "begun": "2026-11-22T01:30:00+00:00"}',
    ],
)  # fmt: skip
def test_what_is_not_ours_is_no_position(written: str) -> None:
    assert Bookmark.read(Position(written)) is None
