"""Repeats, and who bears a name."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.delivery import (
    LEAVE,
    Disposed,
    Disposition,
    Held,
    Outcome,
    Question,
)
from mailpoller.core.message import MessageRef
from mailpoller.core.ports import (
    Sight,
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
    told,
)


class BearerPromises(LedgerGround):
    """Repeats, and who bears a name."""

    async def test_equal_octets_name_the_earliest_settled_message_of_the_mailbox(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        first, second, only_claimed, other = claims(await ledger.claim(refs(INBOX, 2, 1, 3, 4)))
        await ledger.settle([outcome(first, octets=b"twice")])
        clock.move(timedelta(seconds=1))
        await ledger.settle([outcome(second, octets=b"twice"), outcome(other, octets=b"other")])
        twice, unseen = sha256(b"twice").digest(), sha256(b"unseen").digest()
        assert await ledger.repeats("support", [twice, unseen]) == {twice: first.mid}
        assert await ledger.repeats("billing", [twice]) == {}
        assert await ledger.repeats("support", []) == {}
        await ledger.open_folder(RENUMBERED, ACCOUNT)
        assert await ledger.repeats("support", [twice]) == {twice: first.mid}, "of any epoch"
        await ledger.release([only_claimed])
        await ledger.close()

    async def test_repeats_of_former_epochs_are_those_of_the_same_folder_and_of_no_other_epoch(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        former, new, elsewhere = sha256(b"former").digest(), sha256(b"new").digest(), sha256(b"elsewhere").digest()
        asked = [former, new, elsewhere]
        await ledger.open_folder(INBOX, ACCOUNT)
        (old,) = claims(await ledger.claim(refs(INBOX, 1)))
        await ledger.settle([outcome(old, octets=b"former")])
        archive = replace(INBOX, name="Archive")
        await ledger.open_folder(archive, ACCOUNT)
        (other,) = claims(await ledger.claim(refs(archive, 1)))
        await ledger.settle([outcome(other, octets=b"elsewhere")])
        await ledger.open_folder(RENUMBERED, ACCOUNT)
        (young,) = claims(await ledger.claim(refs(RENUMBERED, 1)))
        await ledger.settle([outcome(young, octets=b"new")])
        assert await ledger.former(RENUMBERED, asked) == {former: [old.mid]}
        assert set(await ledger.repeats("support", asked)) == set(asked)
        await ledger.close()

    async def test_a_fingerprint_that_shares_its_beginning_is_no_repeat(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        await ledger.settle([outcome(claim, octets=b"one")])
        fingerprint = sha256(b"one").digest()
        assert await ledger.repeats("support", [fingerprint[:31] + b"\0", b"\xff" * 32]) == {}
        await ledger.close()

    @pytest.mark.parametrize("seen", [{"size": 999}, {"received": T0 + timedelta(seconds=1)}])
    async def test_another_size_or_date_is_a_question_and_changes_nothing(
        self, tmp_path: Path, clock: SuiteClock, seen: dict[str, Any]
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = await self.settled(ledger, 1)
        other = replace(told(1), **seen)
        for _ in range(2):
            assert await ledger.claim([other]) == [Question(other, claim.mid, IDENTITY)]
            assert await ledger.recognise([other]) == [Sight(other, "question", claim.mid, IDENTITY)]
        assert isinstance((await ledger.claim([told(1)]))[0], Held)
        await ledger.close()

    async def test_what_was_not_told_contradicts_nothing_and_is_learnt(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim([MessageRef(INBOX, "1")]))
        await ledger.settle([replace(outcome(claim, disposition=LEAVE), identity=IDENTITY)])
        assert [sight.state for sight in await ledger.recognise([told(1), told(2)])] == ["same", "unknown"]
        assert isinstance((await ledger.claim([told(1)]))[0], Held)
        assert isinstance((await ledger.claim([replace(told(1), size=999)]))[0], Question)
        await ledger.close()

    async def test_a_message_without_an_identity_is_never_another_one(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim([told(1)]))
        await ledger.settle([outcome(claim, disposition=LEAVE)])
        assert isinstance((await ledger.claim([replace(told(1), size=999)]))[0], Held)
        await ledger.close()

    async def test_a_message_that_was_left_out_unread_is_asked_about_when_it_looks_different(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim([told(1)]))
        left_out_at = clock.now()
        await ledger.settle([Outcome(claim=claim, kind="skipped", disposition=LEAVE, receipts={})])
        other = replace(told(1), size=999)
        assert await ledger.claim([other]) == [Question(other, claim.mid, b"", left_out_at)]
        assert [(one.state, one.left_out_at) for one in await ledger.recognise([other])] == [("question", left_out_at)]
        await ledger.identified([other], [])
        assert isinstance((await ledger.claim([other]))[0], Held), "it was corrected"
        await ledger.close()

    async def test_a_message_whose_message_id_is_all_that_is_known_is_asked_about_when_it_looks_different(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        one, two = claims(await ledger.claim([MessageRef(INBOX, "1", 1000), MessageRef(INBOX, "2", 1000)]))
        await ledger.settle([replace(outcome(one, disposition=LEAVE), message_id="<1@example.com>", received=None)])
        (owed,) = await ledger.settle(
            [replace(outcome(two, disposition=Disposition(delete=True)), message_id="<2@example.com>", received=None)]
        )
        other = replace(told(1), size=999)
        assert await ledger.claim([other]) == [Question(other, one.mid, b"", None, "<1@example.com>")]
        assert isinstance((await ledger.claim([told(1)]))[0], Held)
        await ledger.disposed([Disposed(owed, "applied")])
        (sight,) = await ledger.recognise([MessageRef(INBOX, "2", 1000)])
        assert (sight.state, sight.message_id) == ("question", "<2@example.com>"), "it was deleted, and is there"
        await ledger.close()
