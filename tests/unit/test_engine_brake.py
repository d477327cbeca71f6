"""Loops and floods: one sender's flood is quarantined and told once, and nobody else notices."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine_rig import Rig, log  # noqa: F401
from pydantic import ValidationError

from mailpoller.core.delivery import LEAVE, Outcome
from mailpoller.core.message import Message
from mailpoller.core.source_config import SourceConfig
from mailpoller.core.verdict import Deliver, Quarantine
from mailpoller.engine.alarm import Kind
from mailpoller.engine.brake import Brake
from mailpoller.engine.pipeline import Pipeline
from mailpoller.engine.reports import Reports
from mailpoller.testing.builders import plain
from pace import paced
from unit.rule_message import a_message, addresses

START = datetime(2026, 3, 14, tzinfo=UTC)
TEN_MINUTES = timedelta(minutes=10)


def mail(second: float | None, sender: str = "loop@x.example", mid: str = "") -> Message:
    message = a_message(from_=addresses(sender))
    claim = replace(message.raw.claim, mid=mid or f"{sender} {second}")
    received = None if second is None else START + timedelta(seconds=second)
    message.raw = replace(message.raw, claim=claim, received=received)
    return message


def test_what_one_sender_writes_beyond_the_rate_is_stopped_and_others_are_not() -> None:
    brake = Brake(3, TEN_MINUTES)

    assert [brake.stops(mail(second)) for second in range(5)] == [False, False, False, True, True]
    assert not brake.stops(mail(6, "other@x.example"))
    assert brake.stops(mail(7, "LOOP@x.example"))


def test_sender_who_writes_less_often_is_let_through_again() -> None:
    brake = Brake(3, TEN_MINUTES)
    assert [brake.stops(mail(second)) for second in (0, 1, 2, 3, 400)] == [False, False, False, True, True]

    assert [brake.stops(mail(second)) for second in (800, 1000, 1300, 1601)] == [False] * 4


def test_backlog_is_no_flood_however_fast_it_is_read() -> None:
    brake = Brake(3, TEN_MINUTES)

    assert not any(brake.stops(mail(300 * number)) for number in range(1000))
    assert not any(brake.stops(mail(-300 * number, "b@x.example")) for number in range(1000))


def test_mail_that_is_tried_again_gets_the_same_answer_and_counts_once() -> None:
    brake = Brake(2, TEN_MINUTES)
    first = [brake.stops(mail(second)) for second in range(3)]

    assert [brake.stops(mail(second)) for second in range(3)] == first == [False, False, True]


def test_mail_that_an_operator_wants_once_more_is_let_through() -> None:
    brake = Brake(2, TEN_MINUTES)
    assert [brake.stops(mail(second)) for second in range(3)][2]
    again = mail(2)
    again.raw = replace(again.raw, claim=replace(again.raw.claim, generation=1))

    assert not brake.stops(again)


class Told:
    """What an alarm was told."""

    def __init__(self) -> None:
        self.details: list[str] = []
        self.faults: list[str] = []

    def tell(self, kind: Kind, subject: str, detail: str, *, group: str = "") -> None:
        assert (kind, subject, group) == (Kind.FLOOD_QUARANTINED, "support", "host")
        self.details.append(detail)

    def tell_end(self, *_: object) -> None: ...

    def fault(self, subject: str, event: str, detail: str, mid: str = "") -> None:
        self.faults.append(event)


def test_flood_is_told_once_until_an_hour_was_calm() -> None:
    alarm = Told()
    at = SimpleNamespace(now=lambda: at.instant, instant=START)
    health = SimpleNamespace(settled=lambda *_: None)
    attended = SimpleNamespace(mailbox="support", health=health, alarm=alarm, clock=at, group="host")
    reports = Reports(attended, deadline=None, patience=SimpleNamespace(), numbering=None)  # type: ignore[arg-type]
    claim = mail(0).raw.claim
    for minute in (0, 1, 50, 100, 170):
        at.instant = START + timedelta(minutes=minute)
        for reason in ("flood", "auto-reply"):
            claim = replace(claim, mid=f"{minute}")
            reports.settled(Outcome(claim=claim, kind="quarantined", disposition=LEAVE, receipts={}, reason=reason))

    assert alarm.details == ["message 0 is the first of them", "message 170 is the first of them"]
    assert alarm.faults == ["sender.braked"] * 2


async def test_flood_goes_to_quarantine_and_other_mail_to_its_queue() -> None:
    rig = Rig(brake={"mails": 2})
    for number in range(5):
        rig.mailbox.deliver(plain(subject=f"again {number}", sender="loop@x.example"))
    for number in range(3):
        rig.mailbox.deliver(plain(subject=f"other {number}", sender=f"{number}@x.example"))
    await rig.carry()

    assert [held.reason for held in rig.sinks["quarantine"].held.values()] == ["flood"] * 3
    assert len(rig.sinks["support"].held) == 5


def test_mail_without_a_time_or_a_sender_is_never_stopped() -> None:
    brake = Brake(2, TEN_MINUTES)

    assert not any(brake.stops(mail(None, mid=str(number))) for number in range(9))
    nameless = [replace(mail(0).raw, claim=replace(mail(0).raw.claim, mid=str(number))) for number in range(9)]
    for raw in nameless:
        message = a_message()
        message.raw = raw
        assert not brake.stops(message)


def test_whom_it_spares_may_write_any_number(tmp_path: Path) -> None:
    file = tmp_path / "shops"
    file.write_text("shop.example\n", "utf-8")
    brake = Brake(2, TEN_MINUTES, spared=frozenset(("x.example",)), files=(file,))

    assert not any(
        brake.stops(mail(number, f"a@{name}")) for name in ("x.example", "shop.example") for number in range(9)
    )
    assert [brake.stops(mail(number, "a@y.example")) for number in range(3)] == [False, False, True]


def test_memory_is_bounded_whatever_strangers_call_themselves() -> None:
    brake = Brake(10_000, TEN_MINUTES)
    begun = time.process_time()
    for number in range(20_000):
        brake.stops(mail(0, f"{number}@x.example"))

    assert (len(brake._senders), len(brake._judged)) == (100, 10_000)
    assert time.process_time() - begun < paced(5)


def pipeline(**settings: Any) -> Pipeline:
    return Pipeline(mailbox="m", default_queue="q", **settings)


def test_flood_is_quarantined_before_a_rule_is_asked() -> None:
    judge = pipeline(brake=Brake(2, TEN_MINUTES))
    verdicts = [judge.judge(mail(second)).verdict for second in range(3)]

    assert [type(verdict) for verdict in verdicts] == [Deliver, Deliver, Quarantine]
    assert verdicts[2].reason == "flood"  # type: ignore[union-attr]


def test_what_is_held_is_judged_again_as_if_its_sender_had_not_written_so_often() -> None:
    """A brake that asked the same of it again would hold it for ever."""
    judging = pipeline(brake=Brake(2, TEN_MINUTES))
    flood = [judging.judge(mail(second)).verdict for second in range(3)]
    assert isinstance(flood[2], Quarantine) and flood[2].reason == "flood"
    for _ in range(3):
        assert not isinstance(judging.judge(mail(2), again=True).verdict, Quarantine)


def test_mail_that_goes_in_a_circle_is_quarantined() -> None:
    for hops, expected in ((20, Deliver), (21, Quarantine)):
        message = a_message(headers=(("Subject", "x"), *(("received", "by x"),) * hops))
        verdict = pipeline(max_hops=20).judge(message).verdict
        assert type(verdict) is expected
    assert verdict.reason == "too-many-hops"  # type: ignore[union-attr]
    many = tuple(("X-Field", "x") for _ in range(200))
    assert isinstance(pipeline(max_hops=20).judge(a_message(headers=many)).verdict, Deliver)


@pytest.mark.parametrize(
    "written", [{"mails": 1}, {"mails": 50, "window": "2d"}, {"window": "1m"}, {"mails": 5, "window": 0}]
)
def test_wrong_brake_is_refused(written: object) -> None:
    with pytest.raises(ValidationError):
        SourceConfig.model_validate({"type": "x", "brake": written})
