"""Names that are gone, and messages that were on their way when theirs went."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from mailpoller.core.delivery import (
    LEAVE,
    Disposed,
    Disposition,
    Held,
    Question,
)
from mailpoller.core.identity import mint_mid
from mailpoller.core.message import Claim, MessageRef, Position
from mailpoller.core.ports import (
    Traits,
)
from mailpoller.testing.ledger.ground import (
    ACCOUNT,
    IDENTITY,
    INBOX,
    RENUMBERED,
    T0,
    LedgerGround,
    SuiteClock,
    claims,
    outcome,
    refs,
    settlement_of,
    told,
)


class GonePromises(LedgerGround):
    """Names that are gone, and messages that were on their way when theirs went."""

    async def test_what_waits_in_an_earlier_epoch_and_was_brought_to_a_queue_goes_on_under_its_mid(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        held, unheld = claims(await ledger.claim([told(1), told(2)]))
        for claim, receipts in ((held, {"support": "row 1"}), (unheld, None)):
            await ledger.defer(
                [claim], until=T0, reason="down", queue="second", route=("support", "second"), receipts=receipts,
                traits=[Traits(IDENTITY, T0, 1000, fingerprint=sha256(b"1").digest())],
            )  # fmt: skip
        assert await ledger.repeats("support", [sha256(b"1").digest()]) == {sha256(b"1").digest(): held.mid}
        state = await ledger.open_folder(RENUMBERED, ACCOUNT)
        assert state.heirless
        assert not await ledger.heirless(RENUMBERED, limit=10, earlier=False)
        (former,) = await ledger.heirless(RENUMBERED, limit=10, earlier=True)
        assert (former.mid, former.identity, former.size) == (held.mid, IDENTITY, 1000)
        (claim,) = claims(await ledger.claim(refs(RENUMBERED, 7)))
        heir = await ledger.inherit(claim, former)
        assert (heir.mid, heir.route, heir.receipts) == (held.mid, ("support", "second"), {"support": "row 1"})
        assert heir.ref == claim.ref
        assert not await ledger.heirless(RENUMBERED, limit=10, earlier=True)
        assert await ledger.inherit(heir, former) == heir, "once"
        await ledger.settle([outcome(heir, disposition=LEAVE)])
        assert [(one.uid, one.outcome) for one in await ledger.trace(held.mid)] == [("7", "delivered")]
        await ledger.close()

    async def test_what_is_gone_before_all_its_queues_had_it_is_nothing_that_another_one_may_stand_for(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim([told(1)]))
        await ledger.defer(
            [claim], until=T0, reason="down", queue="second", route=("support", "second"),
            receipts={"support": "row 1"},
            traits=[Traits(IDENTITY, T0, 1000, fingerprint=sha256(b"1").digest())],
        )  # fmt: skip
        (claim,) = claims(await ledger.claim([told(1)]))
        await ledger.settle([replace(outcome(claim, disposition=LEAVE), kind="gone", fingerprint=None)])
        await ledger.open_folder(RENUMBERED, ACCOUNT)
        assert await ledger.former(RENUMBERED, [sha256(b"1").digest()]) == {}
        await ledger.close()

    async def test_a_suspect_whose_name_a_whole_listing_lacked_may_have_another_name(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        claims(await ledger.claim([told(1), told(2)]))
        await ledger.close()
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        assert not await ledger.heirless(INBOX, limit=10, earlier=False)
        await ledger.note_absent(INBOX, {"2", "3"})
        (former,) = await ledger.heirless(INBOX, limit=10, earlier=False)
        assert (former.uid, former.identity) == ("1", None)
        (claim,) = claims(await ledger.claim([told(3)]))
        assert (await ledger.inherit(claim, former)).mid == former.mid
        await ledger.close()

    async def test_a_known_bearer_that_looks_different_now_is_settled_as_before(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await self.settled(ledger, 1)
        other = replace(told(1), size=999)
        await ledger.identified([other], [])
        assert isinstance((await ledger.claim([other]))[0], Held)
        assert isinstance((await ledger.claim([told(1)]))[0], Question)
        await ledger.close()

    async def test_another_bearer_is_claimed_under_a_mid_of_its_own_and_nothing_is_done_to_it_for_the_former(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (first,) = await self.settled(ledger, 1, disposition=Disposition(delete=True))
        other = replace(told(1), size=999)
        await ledger.identified([], [other])
        (second,) = claims(await ledger.claim([other]))
        assert second.mid != first.mid and (second.bearer, second.identity, second.receipts) == (1, None, None)
        assert second.mid == mint_mid("support", "INBOX", INBOX.epoch, "1", 1)
        clock.move(timedelta(days=2))
        assert await ledger.due(INBOX, limit=10) == [], "what is owed is owed to nobody"
        assert await ledger.former(INBOX, [sha256(b"1").digest()]) == {sha256(b"1").digest(): [first.mid]}
        (story,) = await ledger.trace(first.mid)
        assert (story.outcome, story.disposition_state) == ("delivered", "failed")
        await ledger.identified([], [replace(told(1), size=998)])
        assert len(await ledger.trace(second.mid)) == 1, "one that is in hand is left alone"
        await ledger.close()

    async def test_an_undelivered_message_whose_name_another_one_bears_is_gone(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (first,) = claims(await ledger.claim([told(1)]))
        traits = Traits(IDENTITY, T0, 1000, "<one@example.com>", "erika@example.com")
        await ledger.defer(
            [first], until=clock.now(), reason="down", queue="q", route=["q"], receipts={}, traits=[traits]
        )
        assert [story.mid for story in await ledger.trace("<one@example.com>")] == [first.mid], "also while it waits"
        assert [story.mid for story in await ledger.trace("ERIKA@example.com")] == [first.mid]
        assert isinstance((await ledger.claim([replace(told(1), size=999)]))[0], Question)
        await ledger.identified([], [replace(told(1), size=999)])
        (second,) = claims(await ledger.claim([replace(told(1), size=999)]))
        assert (second.route, second.attempts) == (None, 0)
        assert (await ledger.trace(first.mid))[0].outcome == "gone"
        assert await ledger.lost(INBOX, limit=10) == [], "there is no name to ask for it by"
        await ledger.close()

    async def test_a_numbering_that_was_set_back_keeps_what_bears_its_name_size_and_date(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        one, two, _three = await self.settled(ledger, 1, 2, 3)
        (four,) = claims(await ledger.claim([told(4)]))
        await ledger.defer([four], until=clock.now(), reason="down", queue="q", route=["q", "r"], receipts={"r": "1"})
        await ledger.advance(INBOX, Position("5"))
        await ledger.complete(INBOX)
        await ledger.begin_anew(INBOX, "other messages bear known numbers")
        state = await ledger.open_folder(INBOX, ACCOUNT)
        assert (state.position, state.complete, state.epoch_changed, state.settled_before) == (None, False, True, True)
        assert state.set_back
        assert state.left_before
        answers = await ledger.claim([told(1), replace(told(2), size=7), MessageRef(INBOX, "3", 1000), told(4)])
        assert [type(answer) for answer in answers] == [Held, Claim, Claim, Claim]
        other, undated, same = claims(answers[1:])
        assert other.mid not in (one.mid, two.mid) and undated.identity is None, "a size alone is no witness"
        assert (same.mid, same.route, same.receipts) == (four.mid, ("q", "r"), {"r": "1"})
        state = await ledger.open_folder(INBOX, ACCOUNT)
        assert state.epoch_changed, "the row is the new one's, under the source's own name of the epoch"
        await ledger.close()
        ledger = await self.open(tmp_path, clock)
        assert (await ledger.open_folder(INBOX, ACCOUNT)).epoch_changed
        await ledger.close()

    async def test_a_name_that_a_whole_listing_lacked_after_its_deletion_is_free(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (first,) = await self.settled(ledger, 1, disposition=Disposition(delete=True))
        await ledger.disposed([Disposed(settlement_of(first), "applied")])
        assert isinstance((await ledger.claim([told(1)]))[0], Held), "it may be there still"
        await ledger.note_absent(INBOX, ())
        (second,) = claims(await ledger.claim([told(1)]))
        assert second.mid != first.mid and second.bearer == 1
        await ledger.close()

    async def test_what_was_left_and_vanished_stays_settled_when_it_is_back(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await self.settled(ledger, 1, 2)
        for _ in range(2):  # what is not noted is told again
            census = await ledger.census(INBOX, [told(2), told(3)], {"2", "3"})
            assert (census.left, census.vanished.total(), census.strangers.total()) == (2, 1, 1)
            assert (set(census.vanished), set(census.strangers)) == ({told(1).size}, {told(3).size})
            assert census.changed
        await ledger.note_absent(INBOX, {"2", "3"})
        census = await ledger.census(INBOX, [told(2), told(3)], {"2", "3"})
        assert (census.left, census.vanished.total(), census.changed) == (1, 0, False), "each is missed once"
        assert isinstance((await ledger.claim([told(1)]))[0], Held)
        census = await ledger.census(INBOX, [told(1), told(2)], {"1", "2"})
        assert (census.left, census.vanished.total(), census.changed) == (1, 0, True)
        await ledger.note_absent(INBOX, {"1", "2"})
        assert (await ledger.census(INBOX, [told(1), told(2)], {"1", "2"})).left == 2
        await ledger.close()
