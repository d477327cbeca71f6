"""Watermarks: an alarm at high, its end at low; what cannot be told is neither."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from mailpoller.assembly.senders import senders_of
from mailpoller.config import load
from mailpoller.core.component import Watermarks
from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.ports import Depth, Standing
from mailpoller.engine.alarm import Alarm, Kind
from mailpoller.engine.health import MailboxHealth
from mailpoller.engine.watermarks import Tide
from mailpoller.testing.memory_ledger import MemoryLedger
from unit.sink_runtime import HandClock
from unit.test_alarm import FakeOutgoing


class Ledger:
    """What it tells of one mailbox."""

    def __init__(self) -> None:
        self.waiting = 0
        self.since: datetime | None = None
        self.down = False
        self.outbox: dict[str, tuple[int, datetime]] = {}

    async def standings(self) -> Mapping[str, Standing]:
        if self.down:
            raise LedgerUnavailable("full")
        return {"box": Standing(deferred=self.waiting)}

    async def outbox_waiting(self) -> Mapping[str, tuple[int, datetime]]:
        return self.outbox

    async def oldest(self) -> Mapping[str, datetime]:
        return {} if self.since is None else {"box": self.since}


class Shore:
    """A mailbox and a queue whose levels a test sets."""

    def __init__(self, marks: Watermarks | None, own: Watermarks | None = None) -> None:
        self.clock, self.ledger, self.outgoing = HandClock(), Ledger(), FakeOutgoing()
        journal = MemoryLedger(self.clock)
        self.alarm = Alarm(journal, self.outgoing, ("usual@example.com",), self.clock)  # type: ignore[arg-type]
        self.box = MailboxHealth("box", timedelta(minutes=1))
        self.watcher = SimpleNamespace(polls=1, source=SimpleNamespace(account=SimpleNamespace(host="imap")))
        self.queue = SimpleNamespace(name="q", depth=None)
        self.queues = [self.queue]
        self.outbox_marks: dict[str, Watermarks] = {}
        self.marks = marks if own is None else own.over(marks)
        self.tide = Tide(
            SimpleNamespace(mailboxes={"box": self.box}),  # type: ignore[arg-type]
            {"box": self.watcher},  # type: ignore[dict-item]
            lambda: self.queues,  # type: ignore[arg-type, return-value]
            self.ledger,  # type: ignore[arg-type]
            self.alarm,
            self.clock,
            marks_of=lambda name: self.marks,
            queue_marks=marks,
            outbox_marks=lambda: self.outbox_marks,
        )

    async def look(self) -> set[str]:
        """The alarms that stand after a look."""
        await self.tide.look()
        return {
            f"{kind.value}:{name}"
            for kind in (Kind.MAILBOX_BACKLOG, Kind.QUEUE_BACKLOG, Kind.OUTBOX_BACKLOG)
            for name in await self.alarm.standing(kind)
        }


MARKS = Watermarks(high=100, low=40)


async def test_a_mailbox_is_told_of_at_high_and_its_end_at_low_and_not_in_between() -> None:
    shore = Shore(MARKS)
    levels = [(99, set()), (100, {"mailbox-backlog:box"}), (41, {"mailbox-backlog:box"}), (40, set()), (99, set())]
    for level, expected in levels:
        shore.box.listed = level
        assert await shore.look() == expected, level
    shore.box.listed, shore.ledger.waiting = 0, 100
    assert await shore.look() == {"mailbox-backlog:box"}, "what is put off waits on the server, too"


async def test_what_nobody_fetches_for_its_queue_is_down_counts_by_number_and_by_age() -> None:
    shore = Shore(MARKS.over(Watermarks(max_age=timedelta(hours=1))))
    shore.ledger.waiting = 40
    shore.box.unfetched["INBOX"] = 60
    assert await shore.look() == {"mailbox-backlog:box"}
    shore.box.unfetched["INBOX"] = 0
    assert await shore.look() == set()
    shore.box.unfetched_since = shore.clock.now()
    shore.clock.advance(timedelta(hours=2))
    assert await shore.look() == {"mailbox-backlog:box"}


async def test_age_is_an_alarm_of_its_own_however_few_wait() -> None:
    shore = Shore(Watermarks(max_age=timedelta(hours=1)))
    shore.ledger.since = shore.clock.now()
    assert await shore.look() == set()
    shore.clock.advance(timedelta(hours=2))
    assert await shore.look() == {"mailbox-backlog:box"}
    shore.ledger.since = None
    assert await shore.look() == set()


async def test_a_queue_that_tells_its_depth_is_told_of() -> None:
    shore = Shore(MARKS)
    assert await shore.look() == set()
    shore.queue.depth = Depth(90, 10, shore.clock.now())
    assert await shore.look() == {"queue-backlog:q"}
    shore.queue.depth = None
    assert await shore.look() == {"queue-backlog:q"}, "silence is not the end of it"
    shore.queue.depth = Depth(40, 0, shore.clock.now())
    assert await shore.look() == set()
    shore.queue.depth = Depth(500, 0, None)
    await shore.look()
    shore.queues.clear()
    assert await shore.look() == set(), "the queue has left"


async def test_what_cannot_be_told_is_neither_an_alarm_nor_its_end() -> None:
    shore = Shore(MARKS)
    shore.box.listed = 500
    shore.watcher.polls = 0
    assert await shore.look() == set()
    shore.watcher.polls = 1
    assert await shore.look() == {"mailbox-backlog:box"}
    shore.box.listed, shore.watcher.polls = 0, 0
    assert await shore.look() == {"mailbox-backlog:box"}, "after a restart nobody knows yet"
    shore.watcher.polls, shore.ledger.down = 1, True
    with pytest.raises(LedgerUnavailable):
        await shore.look()
    shore.ledger.down, shore.marks = False, None
    assert await shore.look() == set(), "it has no marks any more"


async def test_a_mailboxs_own_marks_are_merged_key_by_key() -> None:
    shore = Shore(Watermarks(high=100, low=40, max_age=timedelta(hours=1)), Watermarks(high=10, low=0))
    assert shore.marks == Watermarks(high=10, low=0, max_age=timedelta(hours=1))
    shore.box.listed = 10
    assert await shore.look() == {"mailbox-backlog:box"}
    shore.box.listed = 1
    assert await shore.look() == {"mailbox-backlog:box"}
    shore.box.listed = 0
    assert await shore.look() == set()


async def test_the_end_comes_also_where_low_is_left_out_or_lies_above_high_by_merging() -> None:
    assert Watermarks(high=100).floor == 50 and Watermarks(high=1).floor == 0
    assert Watermarks(high=10).over(Watermarks(high=100, low=40)).floor == 9


async def test_who_is_named_is_told_in_place_of_the_usual_recipients_of_begin_and_end() -> None:
    shore = Shore(MARKS)
    shore.alarm.addressees = lambda kind, subject: ("boss@example.com",) if kind is Kind.MAILBOX_BACKLOG else ()
    shore.box.listed, shore.queue.depth = 500, Depth(500, 0, None)
    await shore.look()
    await shore.alarm.step(last=True)
    to = [mail.recipients for mail in shore.outgoing.mails]
    assert sorted(to) == [("boss@example.com",), ("usual@example.com",)]
    shore.box.listed = 0
    await shore.look()
    shore.clock.advance(timedelta(hours=1))
    await shore.alarm.step(last=True)
    assert [mail.recipients for mail in shore.outgoing.mails[2:]] == [("boss@example.com",)]


def test_check_doubts_marks_that_nobody_can_be_told_of(tmp_path: Path) -> None:
    file = tmp_path / "mailpoller.yaml"
    file.write_text(
        f"service: {{state_directory: {tmp_path}}}\nqueues: {{q: {{type: jsonl, path: {tmp_path / 'q'}}}}}\n"
        "watermarks: {high: 100, low: 50, alert_to: boss@example.com}\n"
        f"mailboxes: {{box: {{type: maildir, path: {tmp_path / 'in'}, watermarks: {{high: 20}}}}}}\n"
    )
    told = [problem.path for problem in load(file).warnings]
    assert sorted(told) == [
        "mailboxes.box.watermarks.alert_to", "mailboxes.box.watermarks.low", "watermarks.alert_to"
    ]  # fmt: skip


async def test_what_waits_to_be_sent_is_told_of_at_high_or_when_it_is_too_old_and_ends_when_it_went() -> None:
    shore = Shore(None)
    alarm, ledger, now = {"outbox-backlog:relay"}, shore.ledger, shore.clock.now()
    shore.outbox_marks = {"relay": Watermarks(high=3, low=1, max_age=timedelta(hours=1)), "other": MARKS}
    for mails, hours, expected in [(2, 0, set()), (3, 0, alarm), (2, 0, alarm), (1, 0, set()), (1, 2, alarm)]:
        ledger.outbox = {"relay": (mails, now - timedelta(hours=hours)), "gone": (1000, now)}
        assert await shore.look() == expected
    ledger.outbox = {}
    assert await shore.look() == set()


async def test_an_outgoing_whose_marks_are_taken_away_has_no_alarm_left() -> None:
    shore = Shore(None)
    shore.outbox_marks = {"relay": Watermarks(high=1)}
    shore.ledger.outbox = {"relay": (5, shore.clock.now())}
    assert await shore.look() == {"outbox-backlog:relay"}
    shore.outbox_marks = {}
    assert await shore.look() == set()


def test_an_outgoing_has_watermarks_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "mailpoller.yaml"
    file.write_text("""\
queues: {q: {type: maildir, path: /var/q}}
outgoing:
  relay: {type: smtp, host: r.example.com, sender: a@example.com, watermarks: {high: 5}, default: true}
  other: {type: smtp, host: r.example.com, sender: b@example.com}
""")
    found = senders_of(load(file)).identities
    own = found["relay"].watermarks
    assert own is not None and own.over(MARKS).high == 5 and own.over(MARKS).low == 40
    assert found["other"].watermarks is None
