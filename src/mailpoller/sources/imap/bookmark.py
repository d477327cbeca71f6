"""How far a folder was listed, and what has to be remembered of it from one session to the next."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from mailpoller.core.message import Position
from mailpoller.core.ports import Start
from mailpoller.core.record import record

CONFIRMED = 3
"""Sessions that have to see a gap before a listing goes on past it."""
MAX_GAPS = 8
"""Gaps that are remembered; more become one."""


@record
class Gap:
    """Uids from ``low`` to ``high``, among which a listing lacked ``missing`` messages, as ``sessions`` sessions saw
    it.

    ``day``: when they were asked for last (proleptic ordinal), 0 if they were not.
    """

    low: int
    high: int
    missing: int = 1
    sessions: int = 1
    day: int = 0

    @property
    def confirmed(self) -> bool:
        return self.sessions >= CONFIRMED

    def __str__(self) -> str:
        span = f"uid {self.low}" if self.high <= self.low else f"uids {self.low} to {self.high}"
        return f"{self.missing} missing among {span}"


@record
class Bookmark:
    """A position: list from uid ``following`` on; of the uids below ``first`` only what ``start`` wants.

    ``first`` was UIDNEXT at the first listing, so that an interrupted first listing does not take mail that ``start``
    leaves out, nor leave out mail that came later. 0: no such limit.

    ``below``: how many messages had a lower uid than ``following``; within one numbering that never grows.
    ``grown_at``: when it was first seen to have grown (seconds of the epoch; 0: it has not).

    ``low``: the lowest UIDNEXT that the server told while it stood behind ``high``, which was ``following`` then; 0:
    it did not. A uid between the two was given a second time, or comes late. ``caught_at``: when the server was first
    seen to have reached ``high``.
    """

    following: int
    first: int = 0
    start: Start | None = None
    below: int | None = None
    grown_at: int = 0
    low: int = 0
    high: int = 0
    caught_at: int = 0
    gaps: tuple[Gap, ...] = ()

    @classmethod
    def read(cls, position: Position | None) -> Bookmark | None:
        """The bookmark that was written, by an earlier version perhaps, or None. What cannot be read is no bookmark:
        all is listed, the ledger knows. Remembrances that cannot be read are forgotten."""
        words = str(position or "").split()
        plain = [word for word in words if "=" not in word]
        try:
            match plain:
                case [following]:
                    found = cls(int(following))
                case [following, first, "since", instant]:
                    found = cls(int(following), int(first), Start("since", datetime.fromisoformat(instant)))
                case [following, first, ("now" | "unseen") as kind]:
                    found = cls(int(following), int(first), Start(kind))
                case _:
                    return None
        except ValueError:
            return None
        return replace(found, **_remembered(word for word in words if "=" in word))

    def write(self) -> Position:
        """``12``, ``12 90 unseen`` or ``12 90 since 2026-01-01T00:00:00+00:00``; behind it what is remembered, such
        as ``below=11``."""
        words = [str(self.following)]
        start = self.start
        if start is not None and self.following < self.first and start.kind != "all":
            words += [str(self.first), start.kind, *([start.instant.isoformat()] if start.instant else [])]
        if self.below is not None:
            words.append(f"below={self.below}")
        if self.grown_at:
            words.append(f"grown={self.grown_at}")
        if self.low:
            words.append(f"low={self.low}-{self.high}-{self.caught_at}")
        words += [f"gap={one.low}-{one.high}-{one.missing}-{one.sessions}-{one.day}" for one in self.gaps]
        return Position(" ".join(words))

    @property
    def unsettled(self) -> bool:
        """The number of messages below may be that of another numbering, or of a replica that lags."""
        return bool(self.low or self.grown_at)

    @property
    def gap(self) -> str:
        """The gaps that are confirmed, in words; empty if there is none."""
        return "; ".join(str(one) for one in self.gaps if one.confirmed)


def _remembered(words: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    gaps: list[Gap] = []
    for word in words:
        name, _, value = word.partition("=")
        if re.fullmatch(r"\d{1,12}(?:-\d{1,12})*", value) is None:
            continue
        numbers = [int(one) for one in value.split("-")]
        match name, numbers:
            case "below", [below]:
                found["below"] = below
            case "grown", [at]:
                found["grown_at"] = at
            case "low", [low, high, at]:
                found.update(low=low, high=high, caught_at=at)
            case "gap", [low, high, missing, sessions, day]:
                gaps.append(Gap(low, high, missing, sessions, day))
    if gaps:
        found["gaps"] = tuple(gaps[:MAX_GAPS])
    return found
