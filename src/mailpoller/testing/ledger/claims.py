"""Claims, suspects and their strikes, and what is put off."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from mailpoller.core.delivery import (
    LEAVE,
    Held,
)
from mailpoller.core.identity import mint_mid
from mailpoller.core.message import Claim, Folder
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


class ClaimPromises(LedgerGround):
    """Claims, suspects and their strikes, and what is put off."""

    async def test_every_ref_is_answered_in_order_and_claimed_once(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        wanted = refs(INBOX, 3, 1, 2, "uidl-<x>'\"é")
        made = claims(await ledger.claim(wanted))
        assert [claim.ref for claim in made] == wanted
        assert [claim.mid for claim in made] == [mint_mid("support", "INBOX", INBOX.epoch, ref.uid) for ref in wanted]
        assert not any(claim.suspect or claim.strikes or claim.attempts or claim.generation for claim in made)
        again = await ledger.claim([*wanted, *refs(INBOX, 4, 4)])
        assert [type(answer) for answer in again] == [Held, Held, Held, Held, Claim, Held]
        assert {answer.reason for answer in again if isinstance(answer, Held)} == {"claimed"}
        assert (await ledger.counts("support"))["claimed"] == 5
        assert await ledger.claim([]) == []
        await ledger.close()

    async def test_the_same_uid_in_two_folders_or_epochs_is_two_messages(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        sales = Folder("support", "Sales", INBOX.epoch)
        for folder in (INBOX, sales, RENUMBERED):
            await ledger.open_folder(folder, ACCOUNT)
        made = claims(await ledger.claim([*refs(INBOX, 1), *refs(sales, 1), *refs(RENUMBERED, 1)]))
        assert len({claim.mid for claim in made}) == 3
        await ledger.close()

    async def test_a_released_claim_is_due_at_once_and_counts_nothing(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.release(claims(await ledger.claim(refs(INBOX, 1, 2))))
        assert sorted(ref.uid for ref in await ledger.due(INBOX, limit=10)) == ["1", "2"]
        for claim in claims(await ledger.claim(refs(INBOX, 1, 2))):
            assert (claim.suspect, claim.strikes, claim.attempts) == (False, 0, 0)
        await ledger.close()

    async def test_a_clean_stop_leaves_no_suspects(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.release(claims(await ledger.claim(refs(INBOX, 1, 2))))
        ledger = await self.reopened(ledger, tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        due = await ledger.due(INBOX, limit=10)
        assert len(due) == 2
        assert not any(claim.suspect for claim in claims(await ledger.claim(due)))
        await ledger.close()

    async def test_a_crash_makes_every_open_claim_a_suspect_and_strikes_nobody(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        made = claims(await ledger.claim(refs(INBOX, 1, 2, 3)))
        await ledger.settle([outcome(made[0], disposition=LEAVE)])
        for _ in range(2):
            ledger = await self.reopened(ledger, tmp_path, clock)
            await ledger.open_folder(INBOX, ACCOUNT)
            suspects = await ledger.suspects(INBOX, limit=10)
            assert sorted(ref.uid for ref in suspects) == ["2", "3"]
            assert len(await ledger.suspects(INBOX, limit=1)) == 1
            assert await ledger.due(INBOX, limit=10) == [], "suspects are none of the others' business"
            assert [(claim.suspect, claim.strikes) for claim in claims(await ledger.claim(suspects))] == [(True, 0)] * 2
            assert await ledger.suspects(INBOX, limit=10) == [], "they are in hand"
        await ledger.close()

    async def test_only_a_crash_past_the_at_risk_mark_is_a_strike(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.claim(refs(INBOX, 1, 2))
        for strikes in range(3):
            ledger = await self.reopened(ledger, tmp_path, clock)
            await ledger.open_folder(INBOX, ACCOUNT)
            poison, innocent = claims(await ledger.claim(refs(INBOX, 1, 2)))
            assert (poison.suspect, poison.strikes) == (True, strikes)
            assert (innocent.suspect, innocent.strikes) == (True, 0)
            await ledger.at_risk(poison)
        ledger = await self.reopened(ledger, tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        assert [ref.uid for ref in await ledger.suspects(INBOX, limit=10)] == ["2", "1"], "those without strikes first"
        await ledger.close()

    async def test_a_verdict_clears_the_suspect(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.claim(refs(INBOX, 1))
        ledger = await self.reopened(ledger, tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (suspect,) = claims(await ledger.claim(refs(INBOX, 1)))
        await ledger.at_risk(suspect)
        await ledger.cleared(suspect)
        await ledger.release([suspect])
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert (claim.suspect, claim.strikes) == (False, 0)
        ledger = await self.reopened(ledger, tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert (claim.suspect, claim.strikes) == (True, 0), "a crash after the verdict is no strike"
        await ledger.close()

    async def test_a_suspect_that_nobody_worked_on_stays_suspect(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.claim(refs(INBOX, 1, 2))
        ledger = await self.reopened(ledger, tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        released, deferred = claims(await ledger.claim(refs(INBOX, 1, 2)))
        (innocent,) = claims(await ledger.claim(refs(INBOX, 3)))
        until = clock.now() + timedelta(minutes=1)
        await ledger.defer([innocent], until=clock.now() - timedelta(hours=1), reason="queue-down")
        await ledger.at_risk(released)
        await ledger.release([released])
        await ledger.defer([deferred], until=until, reason="session-lost")
        assert await ledger.suspects(INBOX, limit=10) == refs(INBOX, 1)
        assert await ledger.due(INBOX, limit=10) == refs(INBOX, 3)
        (held,) = await ledger.claim(refs(INBOX, 2))
        assert isinstance(held, Held)
        assert held.until == until
        clock.move(timedelta(minutes=1))
        assert await ledger.suspects(INBOX, limit=10) == refs(INBOX, 1, 2)
        assert await ledger.counts("support") == {"claimed": 0, "deferred": 3, "settled": 0, "undisposed": 0}
        ledger = await self.reopened(ledger, tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        made = claims(await ledger.claim(refs(INBOX, 1, 2)))
        assert [(claim.suspect, claim.strikes) for claim in made] == [(True, 0), (True, 0)]
        await ledger.close()

    async def test_deferred_mail_is_held_until_its_time_and_then_claimed_with_all_it_had(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        until = clock.now() + timedelta(minutes=5)
        await ledger.defer(
            [claim],
            until=until,
            reason="queue-down",
            queue="billing",
            route=["support", "billing"],
            receipts={"support": "row 7"},
        )
        (held,) = await ledger.claim(refs(INBOX, 1))
        assert isinstance(held, Held)
        assert held.until == until
        assert await ledger.due(INBOX, limit=10) == []
        ledger = await self.reopened(ledger, tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        clock.move(timedelta(minutes=5))
        assert await ledger.due(INBOX, limit=10) == refs(INBOX, 1)
        (again,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert (again.route, again.receipts) == (("support", "billing"), {"support": "row 7"})
        assert (again.mid, again.attempts, again.suspect) == (claim.mid, 0, False), "waiting for a queue is no attempt"
        await ledger.close()

    async def test_a_receipt_is_never_forgotten_by_a_later_deferral(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        until = clock.now()
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        await ledger.defer([claim], until=until, reason="a", route=["x", "y", "z"], receipts={"x": "1"})
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        await ledger.defer([claim], until=until, reason="b", receipts={"y": "2"})
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        await ledger.defer([claim], until=until, reason="c")
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert (claim.route, claim.receipts, claim.attempts) == (("x", "y", "z"), {"x": "1", "y": "2"}, 3)
        await ledger.close()

    async def test_mail_for_a_queue_that_is_down_is_not_due(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        first, second, third = claims(await ledger.claim(refs(INBOX, 1, 2, 3)))
        await ledger.defer([first], until=clock.now(), reason="queue-down", queue="billing")
        await ledger.defer([second], until=clock.now(), reason="queue-down", queue="support")
        await ledger.defer([third], until=clock.now(), reason="size")

        async def due(*down: str) -> list[str]:
            return sorted(ref.uid for ref in await ledger.due(INBOX, limit=10, down=down))

        assert await due("billing") == ["2", "3"]
        assert await due("billing", "support") == ["3"]
        assert await due() == ["1", "2", "3"]
        assert [await ledger.owed(queue) for queue in ("billing", "support", "other")] == [1, 1, 0]
        await ledger.close()

    async def test_mail_that_is_given_back_unworked_still_waits_for_its_queue(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.defer(
            claims(await ledger.claim(refs(INBOX, 1))), until=clock.now(), reason="down", queue="billing"
        )
        await ledger.release(claims(await ledger.claim(refs(INBOX, 1))))
        assert await ledger.due(INBOX, limit=10, down=("billing",)) == []
        assert [ref.uid for ref in await ledger.due(INBOX, limit=10)] == ["1"]
        await ledger.defer(claims(await ledger.claim(refs(INBOX, 1))), until=clock.now(), reason="size")
        assert [ref.uid for ref in await ledger.due(INBOX, limit=10, down=("billing",))] == ["1"]
        await ledger.close()

    async def test_due_mail_comes_dispositions_first_then_the_oldest(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        made = claims(await ledger.claim(refs(INBOX, 1, 2, 3, 4, 5)))
        now = clock.now()
        await ledger.defer([made[0]], until=now - timedelta(minutes=1), reason="later")
        await ledger.defer([made[1]], until=now - timedelta(minutes=2), reason="sooner")
        await ledger.defer([made[2]], until=now + timedelta(minutes=2), reason="not yet")
        await ledger.settle([outcome(made[3])])
        ledger = await self.reopened(ledger, tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        assert [ref.uid for ref in await ledger.due(INBOX, limit=10)] == ["4", "2", "1"]
        assert [ref.uid for ref in await ledger.due(INBOX, limit=2)] == ["4", "2"]
        assert await ledger.due(INBOX, limit=0) == []
        await ledger.close()
