"""When an alarm is worth a mail, asked of the schedule alone: no ledger, no relay, no loop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mailpoller.engine.alarm_kinds import MANNERS, Kind
from mailpoller.engine.alarm_texts import Trouble
from mailpoller.engine.schedule import Policy, due, is_moot, is_silent

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LASTING = MANNERS[Kind.MAILBOX_DOWN].patience
POLICY = Policy()
MOMENT = timedelta(seconds=1)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def down(
    subject: str = "support",
    *,
    raised: float = 0,
    told: float | None = None,
    ended: float | None = None,
    recalled: bool = False,
    kind: Kind = Kind.MAILBOX_DOWN,
) -> Trouble:
    return Trouble(
        kind,
        subject,
        "imap.test",
        "why",
        at(raised),
        told_at=None if told is None else at(told),
        ended_at=None if ended is None else at(ended),
        recalled=recalled,
    )


def subjects(*troubles: Trouble, now: datetime, policy: Policy = POLICY, told_of: float | None = None) -> list[str]:
    flocks = {} if told_of is None else {troubles[0].flock: at(told_of)}
    return [one.subject for one in due(troubles, now, policy, flocks)]


def test_trouble_is_due_once_it_has_lasted_as_long_as_its_kind_must() -> None:
    assert subjects(down(), now=START + LASTING - MOMENT) == []
    assert subjects(down(), now=START + LASTING) == ["support"]


def test_patience_of_the_policy_scales_that_of_each_kind() -> None:
    assert subjects(down(), now=START + LASTING, policy=Policy(patience=2)) == []
    assert subjects(down(), now=START + 2 * LASTING, policy=Policy(patience=2)) == ["support"]


def test_younger_trouble_of_the_same_kind_and_host_comes_along_and_none_of_another_kind() -> None:
    queue = down("queue", raised=4.5, kind=Kind.QUEUE_FAILING)
    assert subjects(down(), down("sales", raised=4.5), queue, now=START + LASTING) == ["support", "sales"]


def test_after_a_mail_its_kind_and_host_are_quiet_for_a_while() -> None:
    assert subjects(down(), now=at(10), told_of=5.1) == []
    assert subjects(down(), now=at(10), told_of=5) == ["support"]


def test_what_was_told_is_told_again_only_where_a_reminder_is_wanted() -> None:
    assert subjects(down(told=5), now=at(6000)) == []
    daily = Policy(reminder=timedelta(days=1))
    assert subjects(down(told=5), now=at(24 * 60 + 4), policy=daily) == []
    assert subjects(down(told=5), now=at(24 * 60 + 5), policy=daily) == ["support"]


def test_an_end_is_due_when_it_is_steady() -> None:
    assert subjects(down(told=5, ended=20), now=at(21) - MOMENT) == []
    assert subjects(down(told=5, ended=20), now=at(21)) == ["support"]


def test_an_end_waits_for_later_ends_of_its_flock_but_not_for_ever() -> None:
    first, second = down(told=5, ended=20), down("sales", told=5, ended=20.5)
    assert subjects(first, second, now=at(21)) == []
    assert subjects(first, second, now=at(21.5)) == ["support", "sales"]
    assert subjects(first, down("sales", told=5, ended=24.5), now=at(25)) == ["support"]


def test_trouble_of_an_earlier_run_is_not_due_before_somebody_raises_it_again() -> None:
    assert subjects(down(recalled=True), now=at(60)) == []
    event = down(recalled=True, kind=Kind.POISON_QUARANTINED)
    assert subjects(event, now=at(0)) == ["support"]


@pytest.mark.parametrize(
    ("trouble", "mails", "moot"),
    [
        (down(), True, False),
        (down(ended=2), True, True),  # never worth a mail
        (down(ended=8), True, False),  # it lasted: one note tells both
        (down(told=5, ended=6), True, False),
        (down(told=5, ended=6), False, True),
        (down(ended=9.5), False, False),  # it may come back yet
    ],
)
def test_moot_is_what_is_over_for_good_and_nobody_needs_to_know(trouble: Trouble, mails: bool, moot: bool) -> None:
    assert is_moot(trouble, at(10), POLICY, mails=mails) is moot


def test_silent_is_what_an_earlier_run_raised_and_this_one_has_not_for_long() -> None:
    silence = MANNERS[Kind.MAILBOX_DOWN].silence
    assert not is_silent(down(recalled=True), START + silence - MOMENT, START)
    assert is_silent(down(recalled=True), START + silence, START)
    assert not is_silent(down(), START + silence, START)
    assert not is_silent(down(recalled=True, ended=1), START + silence, START)
    assert not is_silent(down(recalled=True, kind=Kind.POISON_QUARANTINED), START + silence, START)
