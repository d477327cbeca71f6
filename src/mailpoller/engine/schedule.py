"""When an alarm is worth a mail: pure functions of what is open, of the time, and of what was told."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from mailpoller.core.record import record
from mailpoller.engine.alarm_texts import Flock, Trouble

_FLOCK_PATIENCE = 5
"""An end waits for its flock so many times ``steady`` at most."""


@record
class Policy:
    """How eagerly mail about alarms is sent.

    ``window``: what becomes due within this goes together. ``quiet``: between two mails about one kind and group.
    ``steady``: an end is told once it has lasted so long. ``patience``: scales how long each kind must last before it
    is told. ``reminder``: say again after so long that a trouble lasts; None: once.
    """

    window: timedelta = timedelta(seconds=10)
    quiet: timedelta = timedelta(minutes=5)
    steady: timedelta = timedelta(minutes=1)
    patience: float = 1.0
    per_hour: int = 20
    reminder: timedelta | None = None


def due(
    troubles: Collection[Trouble], now: datetime, policy: Policy, told_of: Mapping[Flock, datetime]
) -> list[Trouble]:
    """The troubles that a mail is due about: those that begin, those that are over, those to be reminded of.

    ``told_of``: when a mail told of each flock last.
    """
    ends: dict[Flock, datetime] = {}
    for trouble in troubles:
        if trouble.ended_at is not None:
            ends[trouble.flock] = max(trouble.ended_at, ends.get(trouble.flock, trouble.ended_at))
    ripe = [trouble for trouble in troubles if _is_due(trouble, now, policy, told_of, ends)]
    begun = {trouble.flock for trouble in ripe if trouble.ended_at is None}
    # Those in the same trouble that have not lasted long enough by themselves come along.
    ripe += [
        one
        for one in troubles
        if one.told_at is None
        and one.ended_at is None
        and one.flock in begun
        and not _is_due(one, now, policy, told_of, ends)
    ]
    return ripe


def is_moot(trouble: Trouble, now: datetime, policy: Policy, *, mails: bool) -> bool:
    """True if it is over for good and nobody needs to know. ``mails``: there is somebody to tell.

    One that comes and goes within ``steady`` has lasted from its first coming: else a mailbox that is up for a moment
    every few minutes would never be worth a mail.
    """
    if trouble.ended_at is None or now - trouble.ended_at < policy.steady:
        return False
    brief = trouble.ended_at - trouble.raised_at < _patience(trouble, policy)
    return not mails or (trouble.told_at is None and brief)


def is_silent(trouble: Trouble, now: datetime, recalled_at: datetime) -> bool:
    """True for an alarm of an earlier run, read at ``recalled_at``, that nobody has raised again: what it was about is
    well, or no longer configured."""
    silent = trouble.recalled and now - recalled_at >= trouble.manner.silence
    return silent and trouble.manner.lasts and trouble.ended_at is None


def _patience(trouble: Trouble, policy: Policy) -> timedelta:
    return trouble.manner.patience * policy.patience


def _is_due(
    trouble: Trouble,
    now: datetime,
    policy: Policy,
    told_of: Mapping[Flock, datetime],
    ends: Mapping[Flock, datetime],
) -> bool:
    """``ends``: the latest end in each flock. What ends one by one, within a poll interval, is told when the last has
    ended."""
    told_at = told_of.get(trouble.flock)
    if told_at is not None and now - told_at < policy.quiet:
        return False
    if trouble.ended_at is not None:
        steady = policy.steady
        return now - ends[trouble.flock] >= steady or now - trouble.ended_at >= _FLOCK_PATIENCE * steady
    if trouble.recalled and trouble.manner.lasts:
        return False  # whether it is still so, its part will say
    if trouble.told_at is not None:
        return policy.reminder is not None and now - trouble.told_at >= policy.reminder
    return now - trouble.raised_at >= _patience(trouble, policy)
