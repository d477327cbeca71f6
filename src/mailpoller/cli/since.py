"""Instants as operators write them: ``yesterday``, ``2h``, ``2026-11-04``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from mailpoller.cli.exits import refuse

_UNITS = {"m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}

SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="WHEN", help="yesterday, today, so long ago (90m, 2h, 3d), or an ISO date or time."
    ),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="The same, for the end.")]


def instant_of(text: str | None, default: timedelta | None = None) -> datetime | None:
    """The instant that is meant, aware; days begin at midnight of this machine's time. ``default``: so long ago, if
    nothing was said. Ends the verb if it cannot be told."""
    now = datetime.now(UTC)
    if text is None:
        return None if default is None else now - default
    words = text.strip().lower()
    midnight = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    if words in ("today", "yesterday"):
        return midnight - timedelta(days=words == "yesterday")
    if (found := re.fullmatch(r"(\d{1,6})\s*(m|min|h|d|w)", words)) is not None:
        try:
            return now - timedelta(seconds=int(found[1]) * _UNITS[found[2]])
        except OverflowError:
            refuse(f"{text} is too long ago")
    try:
        told = datetime.fromisoformat(words.upper())
    except ValueError:
        refuse(f"{text} is no instant: yesterday, today, 90m, 2h, 3d, 2026-11-04 or 2026-11-04T12:30+01:00")
    return told if told.tzinfo is not None else told.astimezone()
