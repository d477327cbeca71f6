"""Messages that do not come, and octets in doubt."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from mailpoller.core.delivery import (
    LEAVE,
    Cause,
    Disposition,
    Settlement,
)
from mailpoller.core.message import Claim, Folder, MessageRef
from mailpoller.testing.ledger.ground import (
    ACCOUNT,
    INBOX,
    RENUMBERED,
    LedgerGround,
    SuiteClock,
    claims,
    outcome,
    refs,
    told,
)


class AbsencePromises(LedgerGround):
    """Messages that do not come, and octets in doubt."""

    async def test_the_first_look_that_missed_a_message_is_kept_for_the_next_process(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        first_look = clock.now()
        (claim, other) = claims(await ledger.claim([told(1), told(2)]))
        await ledger.defer([claim], until=clock.now(), reason="not there", cause="absent")
        await ledger.defer([other], until=clock.now(), reason="down", queue="q")
        await ledger.close()
        clock.move(timedelta(minutes=2))
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim([told(1)]))
        assert (claim.absent_at, claim.attempts) == (first_look, 0)
        assert await ledger.sighted(INBOX, [], []) == (1, 2)
        await ledger.defer([claim], until=clock.now(), reason="not there", cause="absent")
        assert await ledger.accept("support", "absence") == 1
        assert (await ledger.open_folder(INBOX, ACCOUNT)).absence_accepted
        assert await ledger.sighted(INBOX, [told(1)], []) == (0, 2)
        assert not (await ledger.open_folder(INBOX, ACCOUNT)).absence_accepted, "of that absence"
        assert claims(await ledger.claim([told(1)]))[0].absent_at is None
        await ledger.close()

    async def test_what_ended_as_gone_is_asked_for_and_claimed_anew(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        one, two, three = claims(await ledger.claim([told(1), told(2), told(3)]))
        await ledger.settle(
            [
                replace(outcome(one, disposition=LEAVE), kind="gone", receipts={}),
                replace(outcome(two, disposition=LEAVE), kind="gone", receipts={"support": "1"}, reason="redelivery"),
                replace(outcome(three, disposition=LEAVE), kind="doubtful", receipts={}),
            ]
        )
        assert {ref.uid for ref in await ledger.lost(INBOX, limit=10)} == {"1", "3"}
        assert await ledger.revive([told(1), told(2), told(3)]) == 1
        assert await ledger.revive([replace(told(3), size=9)]) == 1, "it shows another size"
        again = claims(await ledger.claim([told(1), replace(told(3), size=9)]))
        assert [claim.mid for claim in again] == [one.mid, three.mid]
        await ledger.close()

    async def test_whoever_ended_as_gone_has_his_turn_however_many_there_are(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        assert await ledger.lost(INBOX, limit=2, turn=7) == []
        for claim in claims(await ledger.claim([told(number) for number in range(1, 6)])):
            await ledger.settle([replace(outcome(claim, disposition=LEAVE), kind="gone", receipts={})])
            clock.move(timedelta(seconds=1))
        asked = [[ref.uid for ref in await ledger.lost(INBOX, limit=2, turn=turn)] for turn in (0, 2, 4, 6, 8)]
        assert asked == [["5", "4"], ["3", "2"], ["1"], ["4", "3"], ["2", "1"]]
        await ledger.close()

    async def test_doubts_about_octets_are_counted_apart_from_attempts(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        began = clock.now()
        for expected in range(3):
            (claim,) = claims(await ledger.claim([told(1)]))
            assert (claim.doubts, claim.attempts) == (expected, 0)
            assert claim.doubted_at == (began if expected else None)
            await ledger.defer([claim], until=clock.now(), reason="no proper end", cause="doubtful")
            clock.move(timedelta(minutes=1))
        await ledger.close()

    async def test_each_cause_is_counted_apart_and_the_machine_s_nowhere(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        causes: list[tuple[Cause, tuple[int, int, int]]] = [
            ("", (1, 0, 0)),
            ("unprocessable", (1, 1, 0)),
            ("refused", (1, 1, 1)),
            ("machine", (1, 1, 1)),
            ("queue", (2, 1, 1)),
            ("refused", (2, 1, 2)),
        ]
        (claim,) = claims(await ledger.claim([told(1)]))
        for cause, expected in causes:
            await ledger.defer([claim], until=clock.now(), reason="once more", cause=cause)
            (claim,) = claims(await ledger.claim([told(1)]))
            assert (claim.attempts, claim.failures, claim.refusals) == expected
        await ledger.close()

    async def test_blame_outlives_the_process_and_ends_with_an_outcome(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        made = claims(await ledger.claim([told(1), told(2), told(3)]))
        await ledger.release(made)
        await ledger.blame([told(1), told(2), told(3)])
        await ledger.blame([told(2)])
        await ledger.absolve([told(3)])
        await ledger.close()
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        assert [(ref.uid, count) for ref, count in await ledger.blamed(INBOX)] == [("2", 2), ("1", 1)]
        await ledger.settle([outcome(claim) for claim in claims(await ledger.claim([told(2)]))])
        assert [ref.uid for ref, _ in await ledger.blamed(INBOX)] == ["1"]
        await ledger.close()

    async def test_who_is_to_blame_is_told_by_his_claim_and_absolved_in_his_own_folder(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        sales = Folder("support", "Sales", INBOX.epoch)
        for folder in (INBOX, sales):
            await ledger.open_folder(folder, ACCOUNT)
            made = claims(await ledger.claim([MessageRef(folder, "1"), MessageRef(folder, "2")]))
            assert [claim.blame for claim in made] == [0, 0]
            await ledger.release(made)
        await ledger.blame([MessageRef(INBOX, "1"), MessageRef(sales, "1"), MessageRef(sales, "2")])
        await ledger.absolve([MessageRef(INBOX, "1"), MessageRef(sales, "2")])
        told_of = claims(await ledger.claim([MessageRef(INBOX, "1"), MessageRef(sales, "1"), MessageRef(sales, "2")]))
        assert [claim.blame for claim in told_of] == [0, 1, 0]
        await ledger.close()

    async def test_a_fingerprint_stands_for_one_earlier_message(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        equal = sha256(b"equal").digest()
        await ledger.open_folder(INBOX, ACCOUNT)
        one, two = claims(await ledger.claim([told(1), told(2)]))
        await ledger.settle([outcome(one, octets=b"equal")])
        clock.move(timedelta(seconds=1))
        await ledger.settle([outcome(two, octets=b"equal")])
        await ledger.open_folder(RENUMBERED, ACCOUNT)
        assert await ledger.former(RENUMBERED, [equal]) == {equal: [one.mid, two.mid]}
        (again,) = claims(await ledger.claim(refs(RENUMBERED, 1)))
        await ledger.settle([replace(outcome(again, octets=b"equal"), kind="repeated", receipts={}, repeat_of=one.mid)])
        assert await ledger.former(RENUMBERED, [equal]) == {equal: [two.mid]}
        third = replace(INBOX, epoch="third")
        await ledger.open_folder(third, ACCOUNT)
        found = await ledger.former(third, [equal])
        assert set(found[equal]) == {two.mid, again.mid}, "two messages, whatever numbers they had"
        await ledger.close()

    async def test_a_decision_is_not_undone_by_a_hold(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        assert await ledger.hold(INBOX, "much unknown mail")
        assert await ledger.accept("support", "baseline") == 1
        assert not await ledger.hold(INBOX, "much unknown mail")
        assert (await ledger.open_folder(INBOX, ACCOUNT)).accepted == "baseline"
        await ledger.close()

    async def test_nothing_waits_for_a_clock_that_was_ahead(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        clock.move(timedelta(days=7))
        made = claims(await ledger.claim([told(1), told(2)]))
        await ledger.defer(made[:1], until=clock.now() + timedelta(hours=4), reason="x")
        await ledger.settle([outcome(made[1], disposition=Disposition(seen=True))])
        clock.move(timedelta(days=-7))
        assert {ref.uid for ref in await ledger.due(INBOX, limit=10)} == {"1", "2"}
        answers = await ledger.claim([told(1), told(2)])
        assert [isinstance(answer, Settlement) for answer in answers] == [False, True]
        assert isinstance(answers[0], Claim)
        await ledger.close()

    async def test_the_last_poll_is_known_to_the_next_process(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.polled({"support": clock.now(), "billing": clock.now()})
        later = clock.now() + timedelta(minutes=1)
        await ledger.polled({"support": later})
        await ledger.close()
        ledger = await self.open(tmp_path, clock)
        assert await ledger.last_polls() == {"support": later, "billing": clock.now()}
        await ledger.close()
