"""What operators ask and order."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from mailpoller.core.delivery import (
    LEAVE,
    Disposed,
)
from mailpoller.core.errors import MessageGone
from mailpoller.core.identity import BACKFILLED, mint_mid, redeliveries
from mailpoller.core.message import MessageRef
from mailpoller.core.ports import (
    FormerOutcome,
)
from mailpoller.testing.ledger.ground import (
    ACCOUNT,
    INBOX,
    RENUMBERED,
    T0,
    LedgerGround,
    SuiteClock,
    claims,
    outcome,
    refs,
)


class OperatorPromises(LedgerGround):
    """What operators ask and order."""

    async def test_a_story_is_found_by_mid_message_id_uid_and_sender(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        claim, other = claims(await ledger.claim(refs(INBOX, 7, 8)))
        claimed_at = clock.now()
        clock.move(timedelta(seconds=2))
        (settlement,) = await ledger.settle(
            [
                outcome(
                    claim,
                    "delivered",
                    octets=b"octets",
                    message_id="<a@example.com>",
                    sender="erika@example.com",
                    repeat_of="an earlier one",
                )
            ]
        )
        await ledger.disposed([Disposed(settlement, "failed", "no right")])
        for term in (claim.mid, "<a@example.com>", "7", "erika@example.com", "Erika@Example.com"):
            (story,) = await ledger.trace(term)
            assert story.mid == claim.mid, term
        assert (story.mailbox, story.folder, story.epoch, story.uid) == ("support", "INBOX", INBOX.epoch, "7")
        assert (story.state, story.outcome, story.rules) == ("settled", "delivered", ("invoices",))
        assert (story.receipts, story.size, story.repeat_of) == ({"support": "row 1"}, 6, "an earlier one")
        assert (story.disposition_state, story.disposition_reason) == ("failed", "no right")
        assert (story.claimed_at, story.settled_at) == (claimed_at, clock.now())
        assert (story.disposed_at, story.due_at) == (None, clock.now() + timedelta(days=1))
        (story,) = await ledger.trace(other.mid)
        assert (story.state, story.outcome, story.size, story.settled_at, story.due_at) == (
            "claimed",
            "",
            1000,
            None,
            None,
        )
        assert await ledger.trace("nobody@example.com") == []
        await ledger.close()

    async def test_stories_come_newest_first_and_no_more_than_asked(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        for claim in claims(await ledger.claim(refs(INBOX, 1, 2, 3))):
            clock.move(timedelta(seconds=1))
            await ledger.settle([outcome(claim, sender="erika@example.com")])
        assert [story.uid for story in await ledger.trace("erika@example.com", limit=2)] == ["3", "2"]
        await ledger.close()

    async def test_it_is_told_which_of_several_messages_are_not_settled(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        first, second, third = claims(await ledger.claim(refs(INBOX, 1, 2, 3)))
        await ledger.settle([outcome(first)])
        await ledger.defer([second], until=T0 + timedelta(days=400), reason="later")
        unknown = mint_mid("support", "INBOX", INBOX.epoch, "4")
        assert set(await ledger.still_owed([first.mid, second.mid, third.mid, unknown])) == {second.mid, third.mid}
        assert list(await ledger.still_owed([])) == []
        await ledger.close()

    async def test_receipts_of_queues_that_a_settled_message_was_brought_to_later_are_added(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert not await ledger.brought(claim.mid, {"support": "row 7"}), "it is not settled"
        await ledger.settle([outcome(claim)])
        before = (await ledger.trace(claim.mid))[0].receipts
        assert await ledger.brought(claim.mid, {"other": "row 7"})
        (story,) = await ledger.trace(claim.mid)
        assert story.receipts == {**before, "other": "row 7"} and story.state == "settled"
        assert not await ledger.brought("no mid", {"support": "row 7"})
        await ledger.close()

    async def test_a_reopened_message_is_due_under_a_new_generation(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        await ledger.defer([claim], until=clock.now(), reason="x", route=["support"], receipts={"support": "row 1"})
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        (settlement,) = await ledger.settle([outcome(claim, octets=b"octets")])
        assert await ledger.reopen(claim.mid) == MessageRef(INBOX, "1", 1000)
        await ledger.disposed([Disposed(settlement, "applied")])
        assert await ledger.due(INBOX, limit=10) == refs(INBOX, 1), "a late word from the server does not undo it"
        assert await ledger.repeats("support", [sha256(b"octets").digest()]) == {}, "it is no repeat of itself"
        (again,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert (again.mid, redeliveries(again.generation), again.route, again.receipts) == (claim.mid, 1, None, None)
        assert (again.attempts, again.suspect) == (0, False)
        await ledger.settle([outcome(again)])
        await ledger.reopen(claim.mid)
        (again,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert redeliveries(again.generation) == 2
        await ledger.close()

    async def test_a_reopened_message_keeps_the_story_of_its_former_deliveries(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        settled = []
        for receipts in ({"support": "row 1"}, {"support": "row 7", "billing": "row 1"}, {}):
            (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
            made = outcome(claim, kind="delivered" if receipts else "gone")
            await ledger.settle(
                [replace(made, receipts=receipts, reason=f"because of {len(receipts)}", rules=("vip",))]
            )
            settled.append(clock.now())
            clock.move(timedelta(hours=1))
            (story,) = await ledger.trace(claim.mid)
            assert story.receipts == receipts
            if receipts:
                await ledger.reopen(claim.mid)
        ledger = await self.reopened(ledger, tmp_path, clock)
        (story,) = await ledger.trace(claim.mid)
        assert (story.outcome, story.receipts) == ("gone", {})
        assert list(story.former) == [
            FormerOutcome(settled[0], "delivered", "because of 1", ("vip",), {"support": "row 1"}),
            FormerOutcome(settled[1], "delivered", "because of 2", ("vip",), {"support": "row 7", "billing": "row 1"}),
        ]
        await ledger.close()

    async def test_of_a_message_that_is_reopened_again_and_again_the_latest_deliveries_are_kept(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        for _ in range(30):
            (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
            await ledger.settle([outcome(claim)])
            await ledger.reopen(claim.mid)
            clock.move(timedelta(hours=1))
        (story,) = await ledger.trace(claim.mid)
        assert 1 < len(story.former) < 30
        assert story.former[-1].settled_at == clock.now() - timedelta(hours=1)
        await ledger.close()

    async def test_what_was_left_out_is_taken_up_once_and_nothing_else_is_touched(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        skipped, delivered, other, _ = claims(await ledger.claim(refs(INBOX, 1, 2, 3, 4)))
        await ledger.settle([replace(outcome(one, disposition=LEAVE), kind="skipped") for one in (skipped, other)])
        await ledger.settle([outcome(delivered, disposition=LEAVE)])
        changed = replace(other.ref, size=77)
        wanted = [*refs(INBOX, 1, 2), changed, *refs(INBOX, 4, 5)]
        assert await ledger.take_up(wanted) == 2, "the skipped one, and the one that nobody knows"
        assert await ledger.take_up(wanted) == 0
        assert await ledger.take_up([]) == 0
        ledger = await self.reopened(ledger, tmp_path, clock)
        due = await ledger.due(INBOX, limit=10)
        assert {ref.uid for ref in due} == {"1", "5"}
        taken = claims(await ledger.claim(refs(INBOX, 1, 5)))
        assert [(one.generation, redeliveries(one.generation)) for one in taken] == [(BACKFILLED, 0)] * 2
        assert {one.mid for one in taken} == {skipped.mid, mint_mid("support", "INBOX", INBOX.epoch, "5")}
        await ledger.settle([outcome(one) for one in taken])
        assert await ledger.take_up(wanted) == 0
        (story,) = await ledger.trace(skipped.mid)
        assert [one.outcome for one in story.former] == ["skipped"]
        assert (await ledger.counts("support"))["settled"] == 4
        await ledger.open_folder(RENUMBERED, ACCOUNT)
        with pytest.raises(MessageGone):
            await ledger.take_up(refs(INBOX, 6))
        await ledger.close()

    async def test_a_message_that_cannot_be_had_again_is_said_to_be_gone(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        await ledger.settle([outcome(claim)])
        for mid in (mint_mid("support", "INBOX", INBOX.epoch, "2"), "no mid at all"):
            with pytest.raises(MessageGone):
                await ledger.reopen(mid)
        await ledger.open_folder(RENUMBERED, ACCOUNT)
        with pytest.raises(MessageGone):
            await ledger.reopen(claim.mid)
        await ledger.close()
