"""When trouble is worth a mail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

from clocks import SkippingClock
from mailpoller.core.errors import LedgerUnavailable, MessageRejected, TransientError
from mailpoller.core.ports import Answer, Mail
from mailpoller.engine.alarm import Alarm, Kind, Policy
from mailpoller.engine.alarm_kinds import MANNERS
from mailpoller.testing.memory_ledger import MemoryLedger


class FakeOutgoing:
    """Takes mail, or raises ``trouble``."""

    host = "relay.test"
    sender = "mailpoller@example.com"

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.trouble: BaseException | None = None
        self.answer = Answer("250 Ok")
        self.attempts = 0

    async def send(self, mail: Mail) -> str:
        self.attempts += 1
        await asyncio.sleep(0)
        if self.trouble is not None:
            raise self.trouble
        self.mails.append(mail)
        return self.answer

    def probe(self) -> None: ...
    async def close(self) -> None: ...

    @property
    def subjects(self) -> list[str]:
        return [str(read(mail)["Subject"]) for mail in self.mails]


def read(mail: Mail) -> EmailMessage:
    message = message_from_bytes(mail.octets, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


class Site:
    """An alarm with everything around it; ``restart`` is a kill and a new process on the same ledger."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.clock = SkippingClock()
        self.ledger = MemoryLedger(self.clock)
        self.outgoing = FakeOutgoing()
        self.policy = policy or Policy()
        self.alarm = self._alarm()

    def _alarm(self) -> Alarm:
        return Alarm(self.ledger, self.outgoing, ["ops@example.com"], self.clock, policy=self.policy)  # type: ignore[arg-type]

    def restart(self) -> None:
        self.ledger = self.ledger.restarted()
        self.alarm = self._alarm()

    async def minutes(self, number: float) -> None:
        """Let time pass, a step every five seconds."""
        for _ in range(int(number * 12)):
            await self.alarm.step()
            self.clock.seconds += 5
        await self.alarm.step()

    async def down(self, *names: str, host: str = "imap.example.com", why: str = "connection refused") -> None:
        for name in names:
            await self.alarm.raised(Kind.MAILBOX_DOWN, name, why, group=host)


@pytest.fixture
def site() -> Site:
    return Site()


async def test_trouble_that_lasts_is_told_once_and_its_end_once(site: Site) -> None:
    await site.down("support")
    await site.minutes(4)
    assert site.outgoing.subjects == []
    for _ in range(30):
        await site.down("support")
        await site.minutes(1)
    assert site.outgoing.subjects == ["[mailpoller] The mailbox support on imap.example.com is down"]
    await site.alarm.ended(Kind.MAILBOX_DOWN, "support")
    await site.minutes(30)
    assert site.outgoing.subjects[1:] == ["[mailpoller] The mailbox support on imap.example.com is up again"]
    assert await site.ledger.alarms() == []


async def test_a_thousand_mailboxes_down_at_once_are_one_mail(site: Site) -> None:
    names = [f"box{number:04d}" for number in range(1000)]
    for start in range(0, 1000, 100):  # they notice it one after the other, within a poll interval
        await site.down(*names[start : start + 100])
        await site.minutes(0.1)
    await site.minutes(60)
    assert site.outgoing.subjects == ["[mailpoller] 1000 mailboxes on imap.example.com are down"]
    text = read(site.outgoing.mails[0]).get_content()
    assert "box0000, since" in text
    assert "… and 950 more" in text
    for start in range(0, 1000, 100):
        for name in names[start : start + 100]:
            await site.alarm.ended(Kind.MAILBOX_DOWN, name)
        await site.minutes(0.2)
    await site.minutes(60)
    assert site.outgoing.subjects[1:] == ["[mailpoller] 1000 mailboxes on imap.example.com are up again"]


async def test_troubles_of_many_hosts_at_once_are_one_mail(site: Site) -> None:
    for number in range(300):
        await site.down(f"box{number}", host=f"imap{number}.example.com")
    await site.minutes(60)
    assert len(site.outgoing.mails) == 1
    assert site.outgoing.subjects[0].endswith("is down (and 299 more)")


async def test_a_crash_loop_is_not_an_alert_storm(site: Site) -> None:
    for _ in range(50):
        await site.down("support")
        await site.minutes(0.5)
        site.restart()
    assert len(site.outgoing.mails) == 1


async def test_patience_is_counted_over_restarts(site: Site) -> None:
    for _ in range(4):
        await site.down("support")
        await site.minutes(1)
        site.restart()
    assert site.outgoing.mails == []
    await site.down("support")
    await site.minutes(2)
    assert len(site.outgoing.mails) == 1


async def test_trouble_that_ended_while_the_service_was_down_is_not_told_as_new(site: Site) -> None:
    await site.down("support")
    await site.minutes(1)
    site.restart()
    await site.minutes(20)
    assert site.outgoing.mails == []


async def test_an_alarm_that_was_told_and_is_never_heard_of_again_after_a_restart_ends(site: Site) -> None:
    await site.down("support")
    await site.minutes(10)
    site.restart()
    await site.minutes(60)
    assert site.outgoing.subjects[1:] == ["[mailpoller] The mailbox support on imap.example.com is up again"]
    assert await site.ledger.alarms() == []


async def test_an_alarm_that_was_told_ends_as_usual_after_a_restart(site: Site) -> None:
    await site.down("support")
    await site.minutes(10)
    site.restart()
    await site.down("support")
    await site.minutes(10)
    assert len(site.outgoing.mails) == 1
    await site.alarm.ended(Kind.MAILBOX_DOWN, "support")
    await site.minutes(10)
    assert len(site.outgoing.mails) == 2


async def test_a_dead_relay_gets_the_edge_when_it_is_back(site: Site) -> None:
    site.outgoing.trouble = TransientError("connection refused")
    await site.down("support")
    await site.minutes(120)
    assert site.outgoing.mails == []
    assert site.outgoing.attempts < 20, "and it is not hammered"
    site.restart()
    await site.down("support")
    site.outgoing.trouble = None
    await site.minutes(1)
    assert site.outgoing.subjects == ["[mailpoller] The mailbox support on imap.example.com is down"]


async def test_what_began_and_ended_while_the_relay_was_dead_is_told_in_one_note(site: Site) -> None:
    site.outgoing.trouble = TransientError("connection refused")
    await site.down("support")
    await site.minutes(20)
    await site.alarm.ended(Kind.MAILBOX_DOWN, "support")
    await site.minutes(20)
    site.outgoing.trouble = None
    await site.minutes(20)
    assert site.outgoing.subjects == ["[mailpoller] The mailbox support on imap.example.com is up again"]
    assert "from 2026-11-22 10:00 to 2026-11-22 10:20 UTC" in read(site.outgoing.mails[0]).get_content()


@pytest.mark.parametrize("trouble", [MessageRejected("554 no"), RuntimeError("a bug")])
async def test_no_failure_of_the_mail_ends_the_alarm_or_loses_the_edge(site: Site, trouble: Exception) -> None:
    site.outgoing.trouble = trouble
    await site.down("support")
    await site.minutes(30)
    site.outgoing.trouble = None
    await site.minutes(20)
    assert len(site.outgoing.mails) == 1
    assert any(fault.event == "alert.deferred" for fault in await site.ledger.faults("alerts"))


async def test_who_is_refused_an_alert_for_good_is_told_and_the_others_have_it_once(site: Site) -> None:
    site.outgoing.answer = Answer("250 Ok", never={"gone@example.org": "550 5.1.1 Gone"})
    await site.down("support")
    await site.minutes(30)
    assert len(site.outgoing.mails) == 1
    (fault,) = await site.ledger.faults("alerts")
    assert fault.event == "alert.unserved"
    assert "(at example.org): 550 5.1.1 Gone" in fault.detail


async def test_a_short_trouble_is_never_told(site: Site) -> None:
    await site.down("support")
    await site.minutes(2)
    await site.alarm.ended(Kind.MAILBOX_DOWN, "support")
    await site.minutes(60)
    assert site.outgoing.mails == []
    assert await site.ledger.alarms() == []


async def test_a_mailbox_that_flaps_is_told_and_is_no_storm(site: Site) -> None:
    for _ in range(120):  # two hours: up for a moment every minute
        await site.down("support")
        await site.minutes(0.75)
        await site.alarm.ended(Kind.MAILBOX_DOWN, "support")
        await site.minutes(0.25)
    assert site.outgoing.subjects == ["[mailpoller] The mailbox support on imap.example.com is down"]


async def test_slow_flapping_is_held_to_one_mail_per_quiet_time(site: Site) -> None:
    for _ in range(30):  # credentials refused and accepted in turn, two minutes each
        await site.alarm.raised(Kind.CREDENTIALS_REFUSED, "support", "535 no", group="imap.example.com")
        await site.minutes(2)
        await site.alarm.ended(Kind.CREDENTIALS_REFUSED, "support")
        await site.minutes(2)
    assert 2 <= len(site.outgoing.mails) <= 120 / 5


async def test_the_brake_holds_mail_back_and_loses_nothing() -> None:
    site = Site(Policy(per_hour=3))
    for number in range(20):
        await site.alarm.raised(Kind.CREDENTIALS_REFUSED, f"box{number}", "535 no", group=f"host{number}")
        await site.minutes(1)
    assert len(site.outgoing.mails) == 3
    await site.minutes(60)
    assert len(site.outgoing.mails) == 4
    told = "".join(read(mail).get_content() for mail in site.outgoing.mails)
    assert all(f"box{number}, since" in told for number in range(20))


async def test_a_ledger_that_cannot_be_written_is_told_all_the_same(site: Site) -> None:
    for step in ("raise_alarm", "notified", "clear_alarm", "note"):
        site.ledger.fail(step, times=10_000)
    await site.alarm.raised(Kind.LEDGER_UNWRITABLE, "ledger", "disk full", group="ledger")
    site.alarm.fault("ledger", "ledger.unwritable", "disk full")
    await site.minutes(5)
    assert site.outgoing.subjects == ["[mailpoller] The ledger cannot be written"]
    site.ledger.heal()
    await site.minutes(1)
    assert [edge.notified for edge in await site.ledger.alarms()] == [True]
    assert [fault.event for fault in await site.ledger.faults()] == ["ledger.unwritable"]
    await site.alarm.ended(Kind.LEDGER_UNWRITABLE, "ledger")
    await site.minutes(10)
    assert site.outgoing.subjects[1:] == ["[mailpoller] The ledger can be written again"]
    assert await site.ledger.alarms() == []


class LockedLedger(MemoryLedger):
    """Another process holds the lock, and every call waits for it until its patience is at an end."""

    locked = True
    waits = 0

    async def _wait(self) -> None:
        if self.locked:
            self.waits += 1
            self._clock.seconds += 5  # type: ignore[attr-defined]
            raise LedgerUnavailable("database is locked")

    async def alarms(self) -> Any:
        await self._wait()
        return await super().alarms()

    async def raise_alarm(self, key: str, group: str, summary: str) -> Any:
        await self._wait()
        return await super().raise_alarm(key, group, summary)

    async def notified(self, keys: Sequence[str]) -> None:
        await self._wait()
        await super().notified(keys)

    async def clear_alarm(self, key: str) -> Any:
        await self._wait()
        return await super().clear_alarm(key)

    async def note(self, faults: Any) -> None:
        await self._wait()
        await super().note(faults)


@pytest.fixture
def locked(site: Site) -> LockedLedger:
    """The site's ledger, locked by another process."""
    site.ledger = ledger = LockedLedger(site.clock)
    site.alarm = site._alarm()
    return ledger


async def test_what_is_said_while_the_ledger_is_locked_waits_for_it_once(site: Site, locked: LockedLedger) -> None:
    for number in range(50):
        site.alarm.tell(Kind.MAILBOX_DOWN, f"box{number}", "gone", group="imap.example.com")
    await site.alarm.step()
    assert locked.waits == 1
    assert site.clock.seconds == 5


async def test_a_locked_ledger_does_not_hold_up_alerts_at_every_step(site: Site, locked: LockedLedger) -> None:
    await site.alarm.raised(Kind.LEDGER_UNWRITABLE, "ledger", "database is locked", group="ledger")
    site.alarm.fault("ledger", "mailbox.failed", "database is locked")
    while not site.outgoing.mails:
        await site.alarm.step()
        await site.clock.sleep(1)
    patience, window = MANNERS[Kind.LEDGER_UNWRITABLE].patience, site.policy.window
    assert site.clock.seconds <= (patience + window).total_seconds() + 5 + 2
    waits = locked.waits
    await site.minutes(10)
    assert locked.waits - waits <= 10 * 60 / 30, "a sixth of the time at most"
    locked.locked = False
    await site.minutes(1)
    assert [edge.notified for edge in await site.ledger.alarms()] == [True]
    assert [fault.event for fault in await site.ledger.faults()] == ["mailbox.failed"]


async def test_an_alarm_raised_before_the_ledger_could_be_read_is_not_told_twice(site: Site) -> None:
    await site.down("support")
    await site.minutes(10)
    site.restart()
    site.ledger.fail("alarms", times=3)
    site.ledger.fail("raise_alarm", times=3)
    await site.down("support")
    await site.minutes(30)
    assert len(site.outgoing.mails) == 1


async def test_poison_is_an_event_told_once_and_forgotten(site: Site) -> None:
    site.alarm.tell(Kind.POISON_QUARANTINED, "support", "message 1234", group="imap.example.com")
    site.alarm.tell(Kind.POISON_QUARANTINED, "support", "message 5678", group="imap.example.com")
    await site.minutes(30)
    assert site.outgoing.subjects == [
        "[mailpoller] 2 messages on imap.example.com killed the service and were quarantined"
    ]
    text = read(site.outgoing.mails[0]).get_content()
    assert "message 1234" in text
    assert "message 5678" in text
    assert await site.ledger.alarms() == []


async def test_an_event_that_was_not_told_is_told_by_the_next_process(site: Site) -> None:
    await site.alarm.raised(Kind.POISON_QUARANTINED, "support", "message 1234", group="imap.example.com")
    site.restart()
    await site.minutes(1)
    assert site.outgoing.subjects == [
        "[mailpoller] A message in support on imap.example.com killed the service and was quarantined"
    ]
    site.restart()
    await site.minutes(30)
    assert len(site.outgoing.mails) == 1


async def test_a_flood_of_events_is_counted_and_not_kept(site: Site) -> None:
    for number in range(5000):
        site.alarm.tell(Kind.POISON_QUARANTINED, "support", f"message {number}", group="imap.example.com")
    await site.minutes(1)
    assert site.outgoing.subjects == [
        "[mailpoller] 5000 messages on imap.example.com killed the service and were quarantined"
    ]
    assert len(site.outgoing.mails[0].octets) < 20_000


async def test_trouble_that_comes_back_before_its_end_was_told_has_not_ended(site: Site) -> None:
    await site.down("support")
    await site.minutes(10)
    await site.alarm.ended(Kind.MAILBOX_DOWN, "support")
    await site.minutes(0.5)
    await site.down("support")
    await site.minutes(30)
    assert len(site.outgoing.mails) == 1


async def test_an_end_while_the_mail_of_its_beginning_is_on_its_way_is_told_afterwards(site: Site) -> None:
    await site.down("support")
    await site.minutes(5)
    site.clock.seconds += 30
    send = site.outgoing.send

    async def slowly(mail: Mail) -> str:
        await site.alarm.ended(Kind.MAILBOX_DOWN, "support")
        return await send(mail)

    site.outgoing.send = slowly  # type: ignore[method-assign]
    await site.minutes(1)
    site.outgoing.send = send  # type: ignore[method-assign]
    await site.minutes(20)
    assert [subject.rpartition(" is ")[2] for subject in site.outgoing.subjects] == ["down", "up again"]


async def test_a_reminder_is_sent_if_one_is_wanted() -> None:
    site = Site(Policy(reminder=timedelta(hours=2)))
    await site.down("support")
    await site.minutes(250)
    assert len(site.outgoing.mails) == 3


async def test_callers_wait_for_the_ledger_alone(site: Site) -> None:
    site.outgoing.trouble = TransientError("dead")
    await site.down("support")
    calls = len(site.ledger.calls)
    for _ in range(100):
        await site.down("support")
        await site.alarm.ended(Kind.QUEUE_FAILING, "support")
    assert len(site.ledger.calls) == calls, "what is known costs nothing"
    assert site.outgoing.attempts == 0


async def test_without_an_outgoing_alarms_are_kept_for_status_and_forgotten_when_over(site: Site) -> None:
    alarm = Alarm(site.ledger, None, [], site.clock)  # type: ignore[arg-type]
    await alarm.raised(Kind.MAILBOX_DOWN, "support", "refused", group="imap.example.com")
    await alarm.raised(Kind.POISON_QUARANTINED, "support", "message 1", group="imap.example.com")
    assert [edge.key for edge in await site.ledger.alarms()] == ["mailbox-down:support"]
    await alarm.ended(Kind.MAILBOX_DOWN, "support")
    site.clock.seconds += 120
    await alarm.step()
    assert await site.ledger.alarms() == []


async def test_an_alarm_of_a_kind_that_is_no_longer_known_is_dropped(site: Site) -> None:
    await site.ledger.raise_alarm("sun-spots:support", "imap.example.com", "many")
    await site.minutes(1)
    assert await site.ledger.alarms() == []
    assert site.outgoing.mails == []


async def test_faults_reach_the_ledger_in_batches_and_in_order(site: Site) -> None:
    for number in range(100):
        site.alarm.fault("support", "mailbox.failed", f"number {number}", "")
    site.ledger.fail("note")
    await site.alarm.step()
    site.alarm.fault("support", "mailbox.failed", "number 100", "")
    await site.alarm.step()
    assert [fault.detail for fault in reversed(await site.ledger.faults())] == [f"number {n}" for n in range(101)]
    assert site.ledger.calls.count("note") == 2


async def test_mail_is_marked_as_ours_and_comes_from_nobody(site: Site) -> None:
    await site.down("support", why="no\r\nBcc: everybody@example.com\x00")
    await site.minutes(10)
    mail = site.outgoing.mails[0]
    message = read(mail)
    assert mail.sender == ""
    assert mail.recipients == ("ops@example.com",)
    assert message["From"] == "mailpoller <mailpoller@example.com>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Auto-Response-Suppress"] == "All"
    assert message["X-Mailpoller-Loop"]
    assert message["Bcc"] is None
    assert "no Bcc: everybody@example.com" in message.get_content()


async def test_the_service_stops_with_a_last_mail_of_what_is_due(site: Site) -> None:
    stop = asyncio.Event()
    await site.alarm.raised(Kind.CREDENTIALS_REFUSED, "support", "535 no", group="imap.example.com")
    stop.set()
    async with asyncio.timeout(60):
        await site.alarm.run(stop)
    assert len(site.outgoing.mails) == 1


async def test_a_mail_on_its_way_is_finished_before_the_service_stops(site: Site) -> None:
    stop = asyncio.Event()
    send = site.outgoing.send

    async def slowly(mail: Mail) -> str:
        stop.set()
        await asyncio.sleep(0.05)
        return await send(mail)

    site.outgoing.send = slowly  # type: ignore[method-assign]
    await site.alarm.raised(Kind.CREDENTIALS_REFUSED, "support", "535 no", group="imap.example.com")
    async with asyncio.timeout(60):
        await site.alarm.run(stop)
    assert len(site.outgoing.mails) == 1
    assert [edge.notified for edge in await site.ledger.alarms()] == [True]


async def test_a_relay_that_stalls_does_not_hold_up_the_stop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailpoller.engine.alarm._LAST_WORDS_S", 0.05)
    stop = asyncio.Event()

    async def never(mail: Mail) -> str:
        stop.set()
        await asyncio.sleep(3600)
        return ""

    site.outgoing.send = never  # type: ignore[method-assign]
    await site.alarm.raised(Kind.CREDENTIALS_REFUSED, "support", "535 no", group="imap.example.com")
    async with asyncio.timeout(60):
        await site.alarm.run(stop)
    assert [edge.notified for edge in await site.ledger.alarms()] == [False], "the next process tells it"


async def test_a_bug_in_one_step_does_not_end_the_alarms(site: Site) -> None:
    stop = asyncio.Event()
    site.ledger.fail("raise_alarm", ZeroDivisionError("a bug"), times=2)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(site.alarm.run(stop))
        for number in range(3):
            site.alarm.tell(Kind.MAILBOX_HELD, f"box{number}", "120 unknown", group="imap.example.com")
        while not site.outgoing.mails:
            await asyncio.sleep(0.001)
        stop.set()
    assert "3 mailboxes" in site.outgoing.subjects[0]


async def test_run_sends_by_itself(site: Site) -> None:
    stop = asyncio.Event()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(site.alarm.run(stop))
        site.alarm.tell(Kind.MAILBOX_HELD, "support", "120 unknown", group="imap.example.com")
        while not site.outgoing.mails:
            await asyncio.sleep(0.001)
        stop.set()


@pytest.mark.parametrize("kind", Kind)
async def test_every_kind_has_words_for_one_and_for_many(site: Site, kind: Kind) -> None:
    for name in ("alpha", "beta"):
        await site.alarm.raised(kind, name, f"because of {name}", group="host.example.com")
    await site.minutes(10)
    for name in ("alpha", "beta"):
        await site.alarm.ended(kind, name)
    await site.minutes(10)
    assert len(site.outgoing.mails) == (2 if MANNERS[kind].lasts else 1)
    assert all("2" in subject and "{" not in subject for subject in site.outgoing.subjects)


async def test_nothing_is_told_later_because_the_clock_was_ahead(site: Site) -> None:
    """A week ahead and back, while an alarm is raised, told, reminded of and ended."""
    week = timedelta(days=7).total_seconds()
    site.policy = Policy(reminder=timedelta(hours=6))
    site.restart()
    site.clock.seconds += week
    await site.down("support")
    site.clock.seconds -= week
    await site.minutes(30)
    assert len(site.outgoing.mails) == 1, "raised in the future"
    site.clock.seconds += week
    await site.down("billing", host="other.example.com")
    await site.minutes(30)
    told = len(site.outgoing.mails)
    site.clock.seconds -= week
    await site.minutes(7 * 60)
    assert len(site.outgoing.mails) > told, "the reminder of what was told in the future"
    site.clock.seconds += week
    await site.alarm.ended(Kind.MAILBOX_DOWN, "support")
    await site.alarm.ended(Kind.MAILBOX_DOWN, "billing")
    site.clock.seconds -= week
    told = len(site.outgoing.mails)
    await site.minutes(15)
    assert len(site.outgoing.mails) > told, "an end in the future"


async def test_an_alarm_that_another_run_raised_in_the_future_is_told_after_its_patience(site: Site) -> None:
    week = timedelta(days=7).total_seconds()
    site.clock.seconds += week
    await site.down("support")
    site.clock.seconds -= week
    site.restart()
    await site.down("support")
    await site.minutes(30)
    assert len(site.outgoing.mails) == 1
