"""Instants as operators write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer

from mailpoller.cli.since import instant_of


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90m", timedelta(minutes=90)), ("2h", timedelta(hours=2)), ("3d", timedelta(days=3)), ("1 w", timedelta(days=7))],
)
def test_so_long_ago(text: str, ago: timedelta) -> None:
    found = instant_of(text)
    assert found is not None
    assert abs(datetime.now(UTC) - ago - found) < timedelta(seconds=5)


def test_days_begin_at_midnight_here_and_instants_have_a_zone() -> None:
    yesterday, today = instant_of("yesterday"), instant_of("TODAY")
    assert yesterday is not None and today is not None
    assert today - yesterday == timedelta(days=1)
    assert today <= datetime.now(UTC)
    assert (today.hour, today.minute) == (0, 0)
    assert instant_of("2026-11-04T12:30+01:00") == datetime(2026, 11, 4, 11, 30, tzinfo=UTC)
    assert instant_of("2026-11-04T12:30Z") == datetime(2026, 11, 4, 12, 30, tzinfo=UTC)
    day = instant_of("2026-11-04")
    assert day is not None and day.tzinfo is not None
    assert instant_of(None) is None
    assert instant_of(None, timedelta(days=1)) is not None


@pytest.mark.parametrize("text", ["", "soon", "2 years", "2026-13-01", "999999w"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    with pytest.raises(typer.Exit):
        instant_of(text)
