"""Mailboxes, marks of queues, alarms and faults."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.delivery import (
    LEAVE,
)
from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.message import Folder
from mailpoller.core.ports import (
    Belief,
    Fault,
    Mark,
    QueueRecord,
)
from mailpoller.testing.ledger.ground import (
    ACCOUNT,
    INBOX,
    LedgerGround,
    SuiteClock,
    claims,
    outcome,
    refs,
)


class MarkPromises(LedgerGround):
    """Mailboxes, marks of queues, alarms and faults."""

    async def test_a_forgotten_mailbox_begins_again(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        billing = Folder("billing", "INBOX", "1")
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.open_folder(billing, ACCOUNT)
        await ledger.settle([outcome(c) for c in claims(await ledger.claim([*refs(INBOX, 1, 2), *refs(billing, 1)]))])
        await ledger.note([Fault(clock.now(), "support", "session.lost", "connection reset")])
        assert await ledger.forget("support") == 2
        assert await ledger.forget("support") == 0
        assert await ledger.mailboxes() == ["billing"]
        assert await ledger.faults() == []
        assert (await ledger.counts("support"))["settled"] == 0
        assert (await ledger.counts("billing"))["settled"] == 1
        with pytest.raises(LedgerUnavailable):
            await ledger.claim(refs(INBOX, 1))
        assert (await ledger.open_folder(INBOX, ACCOUNT)).first_run
        claims(await ledger.claim(refs(INBOX, 1)))
        await ledger.close()

    async def test_counts_tell_each_state(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        made = claims(await ledger.claim(refs(INBOX, *range(10))))
        await ledger.defer(made[:2], until=clock.now(), reason="queue-down")
        await ledger.settle([outcome(claim) for claim in made[2:5]])
        await ledger.settle([outcome(claim, disposition=LEAVE) for claim in made[5:6]])
        assert await ledger.counts("support") == {"claimed": 4, "deferred": 2, "settled": 4, "undisposed": 3}
        assert await ledger.counts("nobody") == {"claimed": 0, "deferred": 0, "settled": 0, "undisposed": 0}
        await ledger.close()

    async def test_a_queue_is_known_by_its_mark_from_the_first_note_on_also_across_restarts(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        assert await ledger.queue_mark("support") is None
        first_at = clock.now()
        await ledger.note_queue("support", Mark("one", 7, "/q/support.db"), 3)
        clock.move(timedelta(hours=1))
        await ledger.note_queue("support", Mark("one", 9, "/r/support.db"), 2)
        ledger = await self.reopened(ledger, tmp_path, clock)
        known = QueueRecord("support", Mark("one", 9, "/r/support.db"), 5, first_at, clock.now())
        assert await ledger.queue_mark("support") == known
        assert await ledger.queue_mark("other") is None
        await ledger.close()

    async def test_a_queue_of_another_identity_begins_anew_and_an_adopted_one_is_forgotten(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.note_queue("support", Mark("one", 7, "p"), 3)
        clock.move(timedelta(hours=1))
        await ledger.note_queue("support", Mark("two", 1, "p"), 1)
        known = QueueRecord("support", Mark("two", 1, "p"), 1, clock.now(), clock.now())
        assert await ledger.adopt_queue("support") == known
        assert await ledger.adopt_queue("support") is None
        assert await ledger.queue_mark("support") is None
        await ledger.close()

    async def test_what_was_believed_of_the_time_is_kept_and_begins_with_the_last_poll(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        assert await ledger.belief() is None
        await ledger.polled({"support": clock.now()})
        assert await ledger.belief() == Belief(clock.now(), timedelta(0))
        for doubted in (timedelta(0), timedelta(hours=7)):
            known = Belief(clock.now() - timedelta(days=1), doubted)
            await ledger.believe(known)
            assert await ledger.belief() == known
        ledger = await self.reopened(ledger, tmp_path, clock)
        assert await ledger.belief() == known
        await ledger.close()

    async def test_an_alarm_has_one_edge_up_and_one_down_also_across_restarts(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        raised_at = clock.now()
        assert await ledger.raise_alarm("down:support", "imap.example.com", "support is down")
        clock.move(timedelta(minutes=1))
        ledger = await self.reopened(ledger, tmp_path, clock)
        assert not await ledger.raise_alarm("down:support", "imap.example.com", "support is still down")
        (edge,) = await ledger.alarms()
        assert (edge.key, edge.group, edge.summary) == ("down:support", "imap.example.com", "support is down")
        assert (edge.raised_at, edge.notified) == (raised_at, False)
        await ledger.notified(["down:support", "no-such-alarm"])
        ledger = await self.reopened(ledger, tmp_path, clock)
        ended = await ledger.clear_alarm("down:support")
        assert ended is not None
        assert ended.notified
        assert await ledger.clear_alarm("down:support") is None
        assert await ledger.alarms() == []
        assert await ledger.raise_alarm("down:support", "imap.example.com", "again")
        await ledger.close()

    async def test_the_last_thousand_faults_of_each_subject_are_kept(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.note([Fault(clock.now(), "relay", "mail.refused", "550", mid="m")])
        for start in range(0, 1200, 300):
            await ledger.note(
                [Fault(clock.now(), "support", "session.lost", str(n)) for n in range(start, start + 300)]
            )
        kept = await ledger.faults("support", limit=5000)
        assert [fault.detail for fault in kept] == [str(n) for n in range(1199, 199, -1)]
        assert await ledger.faults("relay") == [Fault(clock.now(), "relay", "mail.refused", "550", mid="m")]
        assert [fault.detail for fault in await ledger.faults(limit=2)] == ["1199", "1198"]
        assert await ledger.clear_faults("support") == 1000
        assert await ledger.clear_faults() == 1
        assert await ledger.faults() == []
        await ledger.note([])
        await ledger.close()
