"""What can go wrong that is worth a mail, and the words for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from mailpoller.engine.alarm_kinds import AnyKind, Kind, Manner, manner_of, word_of
from mailpoller.mail.compose import Section, printable

LISTED = 50
"""Troubles that one section lists; the rest is counted."""
Flock = tuple[AnyKind, str]
"""Kind and group."""
_ORDER = list(Kind)


def _rank(kind: AnyKind) -> tuple[int, str]:
    if isinstance(kind, Kind):
        return _ORDER.index(kind), ""
    return _ORDER.index(Kind.RECIPIENT_REFUSED), kind.name


@dataclass(slots=True)
class Trouble:
    """One alarm, while it is open and until its end is told.

    ``told``: the mail about it was sent at that instant; ``ended_at``: it has ended, but that was not
    told yet.

    ``recorded``: the ledger has it. ``recalled``: an earlier run raised it, and nobody in this one has yet.
    """

    kind: AnyKind
    subject: str
    group: str
    detail: str
    raised_at: datetime
    told_at: datetime | None = None
    ended_at: datetime | None = None
    recorded: bool = False
    recalled: bool = False

    @property
    def manner(self) -> Manner:
        return manner_of(self.kind)

    @property
    def key(self) -> str:
        return alarm_key(self.kind, self.subject, self.detail)

    @property
    def flock(self) -> Flock:
        """Troubles of one kind and group are told together."""
        return self.kind, self.group


def alarm_key(kind: AnyKind, subject: str, detail: str) -> str:
    """The alarm's key in the ledger: one for each subject, and one for each event."""
    word = word_of(kind)
    return f"{word}:{subject}" if manner_of(kind).lasts else f"{word}:{subject}:{detail}"


def section(flock: Sequence[Trouble], *, uncounted: int = 0) -> Section:
    """What a mail says about troubles of one kind and group that begin together, or end together."""
    first = flock[0]
    manner, over = first.manner, first.ended_at is not None
    count = len(flock) + uncounted
    sentence = (manner.one_over if over else manner.one) if count == 1 else (manner.many_over if over else manner.many)
    place = f" on {first.group}" if first.group and not first.group.endswith(first.subject) else ""
    lines = [_line(one) for one in flock[:LISTED]]
    if count > len(lines):
        lines.append(f"  … and {count - len(lines)} more")
    headline = sentence.format(subject=first.subject, count=count, place=place)
    return Section(headline, tuple(lines), "" if over else manner.advice)


def _line(trouble: Trouble) -> str:
    when = f"since {trouble.raised_at:%Y-%m-%d %H:%M} UTC"
    if trouble.ended_at is not None and trouble.recalled:
        when = f"raised at {trouble.raised_at:%Y-%m-%d %H:%M} UTC and not again since the service was started anew"
    elif trouble.ended_at is not None:
        when = f"from {trouble.raised_at:%Y-%m-%d %H:%M} to {trouble.ended_at:%Y-%m-%d %H:%M} UTC"
    elif not trouble.manner.lasts:
        when = f"at {trouble.raised_at:%Y-%m-%d %H:%M} UTC"
    return f"  {printable(trouble.subject)}, {when}: {printable(trouble.detail, 400)}"


def sections_of(due: Sequence[Trouble], uncounted: Mapping[Flock, int]) -> list[Section]:
    """One for each kind and group that begins, then one for each that is over.

    ``uncounted``: how many more there were of each flock than are open.
    """
    flocks: dict[tuple[bool, tuple[int, str], str], list[Trouble]] = {}
    for trouble in due:
        place = (trouble.ended_at is not None, _rank(trouble.kind), trouble.group)
        flocks.setdefault(place, []).append(trouble)
    return [
        section(flock, uncounted=uncounted.get(flock[0].flock, 0) if flock[0].ended_at is None else 0)
        for _, flock in sorted(flocks.items(), key=lambda item: item[0])
    ]
