"""Outcomes, and what the server is told of them."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from mailpoller.core.delivery import (
    LEAVE,
    Disposed,
    Disposition,
    Held,
    OutcomeKind,
    Settlement,
)
from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.identity import mint_mid
from mailpoller.core.message import Claim, Folder, MessageRef
from mailpoller.core.ports import (
    Change,
    Fault,
    Pause,
    Standing,
)
from mailpoller.core.seals.ledger import SealedSettlement
from mailpoller.testing.ledger.ground import (
    ACCOUNT,
    INBOX,
    RENUMBERED,
    LedgerGround,
    SuiteClock,
    claims,
    outcome,
    refs,
)


class SettlementPromises(LedgerGround):
    """Outcomes, and what the server is told of them."""

    async def test_a_settled_message_is_answered_by_its_settlement_until_the_server_knows(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        disposition = Disposition(seen=True, flags=("$Taken", "\\Flagged"), move="Processed/Été")
        made = await ledger.settle([outcome(claim, "quarantined", disposition=disposition)])
        assert made == [SealedSettlement(claim.ref, claim.mid, "quarantined", disposition)]
        ledger = await self.reopened(ledger, tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        assert await ledger.due(INBOX, limit=10) == refs(INBOX, 1)
        assert await ledger.claim(refs(INBOX, 1)) == made
        await ledger.disposed([Disposed(made[0], "applied")])
        assert await ledger.due(INBOX, limit=10) == []
        (held,) = await ledger.claim(refs(INBOX, 1))
        assert isinstance(held, Held)
        assert held.reason == "settled"
        await ledger.close()

    @pytest.mark.parametrize("kind", ["delivered", "quarantined", "discarded", "gone", "repeated", "skipped"])
    async def test_an_outcome_that_leaves_the_message_needs_no_word_from_the_server(
        self, tmp_path: Path, clock: SuiteClock, kind: OutcomeKind
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        await ledger.settle([outcome(claim, kind, disposition=LEAVE)])
        clock.move(timedelta(days=30))
        assert await ledger.due(INBOX, limit=10) == []
        (held,) = await ledger.claim(refs(INBOX, 1))
        assert isinstance(held, Held)
        assert held.reason == "settled"
        assert await ledger.counts("support") == {"claimed": 0, "deferred": 0, "settled": 1, "undisposed": 0}
        await ledger.close()

    async def test_only_delivered_mail_that_a_queue_holds_whole_comes_due_when_it_is_old(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        seen, delete = Disposition(seen=True), Disposition(seen=True, delete=True)
        kinds: list[OutcomeKind] = ["delivered", "quarantined", "discarded", "skipped", *["delivered"] * 5]  # type: ignore[list-item]
        several = claims(await ledger.claim(refs(INBOX, *range(1, 10))))
        whole = [
            replace(
                outcome(claim, kind, disposition=seen),
                fingerprint=b"f" * 32,
                identity=b"i" * 16,
                receipts={"support": "1"},
            )
            for claim, kind in zip(several, kinds, strict=True)
        ]
        whole[4] = replace(whole[4], receipts={})
        whole[5] = replace(whole[5], receipts={"support": "1", "quarantine": "2"})
        whole[6] = replace(whole[6], fingerprint=None)
        whole[7] = replace(whole[7], identity=None)
        for one in whole:
            await ledger.disposed([Disposed(made, "applied") for made in await ledger.settle([one])])
        clock.move(timedelta(days=29))
        month = timedelta(days=30)
        none, reached = await ledger.come_due(INBOX, delete, beyond=None, until=clock.now() - month, limit=1)
        (young,) = claims(await ledger.claim(refs(INBOX, 10)))
        await ledger.settle([replace(whole[0], claim=young)])
        clock.move(timedelta(days=1, seconds=1))
        found = [none]
        for _ in range(3):
            count, reached = await ledger.come_due(INBOX, delete, beyond=reached, until=clock.now() - month, limit=1)
            found.append(count)
        assert found == [0, 1, 1, 0]
        answers = await ledger.claim([several[0].ref, several[8].ref])
        settlements = [one for one in answers if isinstance(one, Settlement)]
        assert [one.disposition for one in settlements] == [delete, delete]
        others = await ledger.claim([one.ref for one in several[1:8]])
        assert all(isinstance(one, Held) for one in others)
        before = clock.now() - timedelta(hours=1)
        assert [one for one in await ledger.stuck(before) if one.ref in [one.ref for one in several]] == []
        await ledger.disposed([Disposed(one, "pending") for one in settlements])
        clock.move(timedelta(hours=2))
        assert {one.ref for one in await ledger.stuck(clock.now() - timedelta(hours=1))} >= {
            one.ref for one in settlements
        }
        await ledger.disposed([Disposed(one, "applied") for one in settlements])
        assert (await ledger.come_due(INBOX, delete, beyond=None, until=clock.now() - month, limit=9))[0] == 0
        await ledger.close()

    async def test_what_is_paused_stays_so_until_it_is_resumed_also_over_a_restart(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        assert await ledger.pause("mailbox support", "ada")
        assert not await ledger.pause("mailbox support", "bob"), "who paused it first is kept"
        assert await ledger.pause("queue tickets", "bob")
        ledger = await self.reopened(ledger, tmp_path, clock)
        assert await ledger.pauses() == {
            "mailbox support": Pause(clock.now(), "ada"), "queue tickets": Pause(clock.now(), "bob")
        }  # fmt: skip
        assert await ledger.resume("mailbox support")
        assert not await ledger.resume("mailbox support")
        assert set(await ledger.pauses()) == {"queue tickets"}
        await ledger.close()

    async def test_changes_are_kept_newest_first_and_alarms_among_them(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.record("verb.poll", "ada", "mailbox support")
        clock.move(timedelta(hours=1))
        begin = clock.now()
        await ledger.raise_alarm("mailbox-down:support", "imap.example.com", "connection refused")
        await ledger.raise_alarm("mailbox-down:support", "imap.example.com", "connection refused")
        clock.move(timedelta(hours=1))
        await ledger.clear_alarm("mailbox-down:support")
        await ledger.clear_alarm("mailbox-down:support")
        found = await ledger.changes(begin)
        assert [(one.event, one.who, one.detail) for one in found] == [
            ("alarm.ended", "", "mailbox-down:support"),
            ("alarm.raised", "", "mailbox-down:support: connection refused"),
        ]
        assert len(await ledger.changes(begin, limit=1)) == 1
        (first,) = (await ledger.changes(begin - timedelta(days=1)))[2:]
        assert first == Change(begin - timedelta(hours=1), "verb.poll", "ada", "mailbox support")
        await ledger.close()

    async def test_what_the_configuration_was_is_told_once_it_is_another(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        first, second = {"a": {"x": "1"}, "b": {"y": "2"}}, {"b": {"y": "3"}, "c": {}}
        assert await ledger.configured(first) == {}
        assert await ledger.configured(second) == first
        ledger = await self.reopened(ledger, tmp_path, clock)
        assert await ledger.configured(second) == second
        await ledger.close()

    async def test_who_sent_a_message_can_be_forgotten_and_its_octets_are_known_all_the_same(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        first, second, third = claims(await ledger.claim(refs(INBOX, 1, 2, 3)))
        octets = sha256(b"one").digest()
        await ledger.settle(
            [
                replace(outcome(first), fingerprint=octets, sender="ada@x", message_id="<one@x>"),
                replace(outcome(second), sender="bob@x", message_id="<two@x>"),
            ]
        )
        await ledger.note(
            [
                Fault(clock.now(), "support", "x", "about one", first.mid),
                Fault(clock.now(), "support", "x", "550 ADA@x unknown"),
                Fault(clock.now(), "support", "x", "about two", second.mid),
            ]
        )
        await ledger.record("verb.x", "root", "something of ada@x")
        assert await ledger.erase([first.mid, third.mid, "nonsense"], "ada@x") == (1, 3)
        for term in ("ada@x", "<one@x>"):
            assert await ledger.trace(term) == []
        (story,) = await ledger.trace(first.mid)
        assert (story.sender, story.message_id, story.outcome) == ("", "", "delivered")
        assert len(await ledger.trace("bob@x")) == 1
        assert [one.detail for one in await ledger.faults()] == ["about two"]
        assert await ledger.repeats("support", [octets]) == {octets: first.mid}
        assert await ledger.erase([first.mid]) == (1, 0), "harmless when repeated"
        (held,) = await ledger.claim(refs(INBOX, 1))
        assert isinstance(held, (Held, Settlement))
        await ledger.close()

    async def test_how_all_mailboxes_stand_is_how_each_of_them_stands(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        other = Folder("sales", INBOX.name, INBOX.epoch)
        begun = clock.now()
        for folder in (INBOX, RENUMBERED, other):
            await ledger.open_folder(folder, ACCOUNT)
            first, second, third, _ = claims(await ledger.claim(refs(folder, 1, 2, 3, 4)))
            await ledger.settle([outcome(first), outcome(second, disposition=LEAVE)])
            await ledger.defer([third], until=clock.now(), reason="queue-down", queue="support")
            clock.move(timedelta(minutes=1))
        standings = await ledger.standings()
        assert set(standings) == {"support", "sales"}
        for mailbox, standing in standings.items():
            assert asdict(standing) == await ledger.counts(mailbox)
        assert standings["support"] == Standing(claimed=1, deferred=1, settled=4, undisposed=1)
        assert standings["sales"].waiting == 2
        oldest = await ledger.oldest()
        assert oldest["sales"] == begun + timedelta(minutes=2)
        assert oldest["support"] == begun + timedelta(minutes=1), "what waits in a former epoch is nobody's work"
        await ledger.close()

    async def test_a_disposition_that_failed_is_tried_seldom_and_one_unknown_soon(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        failed, unknown = await ledger.settle([outcome(c) for c in claims(await ledger.claim(refs(INBOX, 1, 2)))])
        await ledger.disposed([Disposed(failed, "failed", "no such folder"), Disposed(unknown, "pending")])
        assert await ledger.due(INBOX, limit=10) == []
        (held,) = await ledger.claim(refs(INBOX, 1))
        assert isinstance(held, Held)
        assert (held.reason, held.until) == ("settled", clock.now() + timedelta(days=1))
        clock.move(timedelta(minutes=1))
        assert await ledger.due(INBOX, limit=10) == refs(INBOX, 2)
        clock.move(timedelta(days=1))
        assert len(await ledger.due(INBOX, limit=10)) == 2
        assert await ledger.claim(refs(INBOX, 1)) == [failed]
        assert (await ledger.counts("support"))["undisposed"] == 2
        await ledger.close()

    async def test_settling_again_after_an_uncertain_commit_changes_nothing(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        first = await ledger.settle([outcome(claim)])
        assert await ledger.settle([outcome(claim)]) == first
        await ledger.defer([claim], until=clock.now(), reason="the answer was lost")
        await ledger.release([claim])
        assert await ledger.due(INBOX, limit=10) == [], "the server is being told"
        clock.move(timedelta(minutes=1))
        assert await ledger.claim(refs(INBOX, 1)) == first, "what is settled stays settled"
        assert (await ledger.counts("support"))["settled"] == 1
        await ledger.close()

    async def test_nothing_of_a_settle_is_recorded_if_one_of_it_cannot_be(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        stray = Claim(MessageRef(INBOX, "404"), mint_mid("support", "INBOX", INBOX.epoch, "404"))
        with pytest.raises(LedgerUnavailable):
            await ledger.settle([outcome(claim), outcome(stray)])
        assert await ledger.counts("support") == {"claimed": 1, "deferred": 0, "settled": 0, "undisposed": 0}
        await ledger.close()
