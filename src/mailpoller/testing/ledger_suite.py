"""The conformance suite of ledgers: subclass :class:`LedgerSuite` in a test module, give it a factory, run pytest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from mailpoller.core.delivery import (
    LEAVE,
    Cause,
    Disposed,
    Disposition,
    Held,
    Outcome,
    OutcomeKind,
    Question,
    Settlement,
)
from mailpoller.core.errors import LedgerUnavailable, MessageGone
from mailpoller.core.identity import mint_mid, redeliveries
from mailpoller.core.message import Account, Claim, Folder, MessageRef, Position
from mailpoller.core.ports import (
    Change,
    Clock,
    Fault,
    FormerOutcome,
    Ledger,
    Mark,
    OutboxBacklog,
    OutboxMail,
    OutboxRecipient,
    Pause,
    QueueRecord,
    RecipientState,
    Sight,
    Standing,
    Traits,
)
from mailpoller.core.seals.ledger import SealedSettlement

ACCOUNT = Account("imap", "imap.example.com", "support")
OTHER_HOST = Account("imap", "imap.example.net", "support")
INBOX = Folder("support", "INBOX", "imap:imap.example.com:support:1700000000")
RENUMBERED = Folder("support", "INBOX", "imap:imap.example.com:support:1800000000")
SEEN = Disposition(seen=True)
IDENTITY = bytes(range(16))
T0 = datetime(2026, 3, 14, 9, 0, tzinfo=UTC)


class SuiteClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.instant = datetime(2026, 3, 14, 9, 26, 53, 589793, UTC)

    def now(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return self.instant.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.move(timedelta(seconds=seconds))
        await asyncio.sleep(0)

    def move(self, by: timedelta) -> None:
        """Let time pass."""
        self.instant += by


def refs(folder: Folder, *uids: int | str, size: int | None = 1000) -> list[MessageRef]:
    """Refs as a listing shows them."""
    return [MessageRef(folder, str(uid), size) for uid in uids]


def told(number: int) -> MessageRef:
    """A ref whose size and date were told."""
    return MessageRef(INBOX, str(number), 1000, T0)


def outbox_mail(name: str, clock: SuiteClock, *recipients: str) -> OutboxMail:
    """A mail of 1,000 octets that was accepted now."""
    now, digest = clock.now(), sha256(name.encode()).digest()
    to = tuple(map(OutboxRecipient, recipients or ("ada@x.example",)))
    late = now + timedelta(days=5)
    return OutboxMail(
        name,
        "desk",
        "",
        digest,
        "relay",
        "support",
        "",
        f"<{name}@x>",
        "s@x.example",
        1000,
        digest,
        now,
        late,
        now,
        0,
        to,
    )


def settlement_of(claim: Claim) -> Settlement:
    """That of a delivered message that is to be deleted."""
    return SealedSettlement(claim.ref, claim.mid, "delivered", Disposition(delete=True))


def outcome(
    claim: Claim,
    kind: OutcomeKind = "delivered",
    *,
    disposition: Disposition = SEEN,
    octets: bytes | None = None,
    **more: str,
) -> Outcome:
    """An outcome of ``claim``; ``octets`` give it a fingerprint."""
    return Outcome(
        claim,
        kind,
        disposition,
        receipts={"support": "row 1"} if kind == "delivered" else {},
        rules=("invoices",),
        fingerprint=None if octets is None else sha256(octets).digest(),
        size=None if octets is None else len(octets),
        reason=more.get("reason", ""),
        message_id=more.get("message_id", ""),
        sender=more.get("sender", ""),
        repeat_of=more.get("repeat_of"),
    )


def claims(answers: Sequence[Claim | Held | Settlement | Question]) -> list[Claim]:
    """The answers, all of which must be claims."""
    assert all(isinstance(answer, Claim) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Claim)]


class LedgerSuite:
    """What every ledger must hold. A subclass is named ``Test…`` and implements :meth:`open`.

    Each test has its own directory and clock; whatever is opened is closed by the test. :meth:`open` called
    again after ``close`` with the same directory must find what the first one recorded.
    """

    pytestmark = pytest.mark.asyncio

    async def open(self, directory: Path, clock: Clock) -> Ledger:
        """Open the ledger that lives in ``directory``, making it if there is none."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> SuiteClock:
        return SuiteClock()

    async def reopened(self, ledger: Ledger, directory: Path, clock: Clock) -> Ledger:
        """The ledger as the next process finds it. Claims that were not released are those of a process that died."""
        await ledger.close()
        return await self.open(directory, clock)

    # --- folders -----------------------------------------------------------------------------------------------
    async def test_a_new_folder_begins_a_first_run_at_this_instant(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        state = await ledger.open_folder(INBOX, ACCOUNT)
        assert state.folder == INBOX
        assert (state.first_run, state.epoch_changed, state.complete) == (True, False, False)
        assert (state.position, state.baseline_at) == (None, clock.now())
        assert (state.settled_before, state.accepted) == (True, None)
        await ledger.close()

    async def test_the_first_run_lasts_until_a_full_listing_was_worked_through(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        begun = (await ledger.open_folder(INBOX, ACCOUNT)).baseline_at
        await ledger.advance(INBOX, Position("17"))
        clock.move(timedelta(hours=1))
        ledger = await self.reopened(ledger, tmp_path, clock)
        state = await ledger.open_folder(INBOX, ACCOUNT)
        assert (state.first_run, state.position, state.baseline_at) == (True, "17", begun)
        await ledger.complete(INBOX)
        ledger = await self.reopened(ledger, tmp_path, clock)
        state = await ledger.open_folder(INBOX, ACCOUNT)
        assert (state.first_run, state.complete, state.position, state.baseline_at) == (False, True, "17", begun)
        await ledger.close()

    async def test_a_folder_added_to_a_known_mailbox_has_its_own_first_run(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.complete(INBOX)
        clock.move(timedelta(days=1))
        state = await ledger.open_folder(Folder("support", "Sales", INBOX.epoch), ACCOUNT)
        assert (state.first_run, state.baseline_at) == (True, clock.now())
        await ledger.close()

    async def test_new_numbering_is_an_epoch_change_until_its_listing_is_complete(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        begun = (await ledger.open_folder(INBOX, ACCOUNT)).baseline_at
        await ledger.advance(INBOX, Position("17"))
        await ledger.complete(INBOX)
        clock.move(timedelta(days=1))
        state = await ledger.open_folder(RENUMBERED, ACCOUNT)
        assert (state.first_run, state.epoch_changed, state.complete) == (False, True, False)
        assert not state.set_back
        assert (state.position, state.baseline_at, state.settled_before) == (None, begun, True)
        ledger = await self.reopened(ledger, tmp_path, clock)
        assert (await ledger.open_folder(RENUMBERED, ACCOUNT)).epoch_changed
        await ledger.complete(RENUMBERED)
        assert not (await ledger.open_folder(RENUMBERED, ACCOUNT)).epoch_changed
        await ledger.close()

    async def test_old_mail_is_not_known_to_be_settled_if_the_earlier_listing_was_cut_short(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        state = await ledger.open_folder(RENUMBERED, ACCOUNT)
        assert (state.epoch_changed, state.settled_before) == (True, False)
        await ledger.close()

    async def test_another_host_never_inherits_what_was_settled(self, tmp_path: Path, clock: SuiteClock) -> None:
        """Even if the source forgot to put the host into the epoch."""
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (first,) = claims(await ledger.claim(refs(INBOX, 1)))
        await ledger.settle([outcome(first)])
        await ledger.complete(INBOX)
        assert (await ledger.open_folder(INBOX, OTHER_HOST)).epoch_changed
        (second,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert second.mid != first.mid
        await ledger.close()

    async def test_returning_to_an_earlier_epoch_takes_up_what_was_known_of_it(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.advance(INBOX, Position("17"))
        await ledger.complete(INBOX)
        await ledger.open_folder(RENUMBERED, ACCOUNT)
        state = await ledger.open_folder(INBOX, ACCOUNT)
        assert (state.position, state.complete, state.epoch_changed) == ("17", True, False)
        await ledger.close()

    async def test_a_renamed_mailbox_keeps_its_records_and_its_mids(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        old = Folder("help", INBOX.name, INBOX.epoch)
        await ledger.open_folder(old, ACCOUNT)
        settled, deferred = claims(await ledger.claim(refs(old, 1, 2)))
        await ledger.settle([outcome(settled, disposition=LEAVE)])
        await ledger.defer([deferred], until=clock.now(), reason="queue-down")
        await ledger.advance(old, Position("3"))
        await ledger.complete(old)
        ledger = await self.reopened(ledger, tmp_path, clock)
        state = await ledger.open_folder(INBOX, ACCOUNT, formerly="help")
        assert (state.first_run, state.position, state.complete) == (False, "3", True)
        assert await ledger.mailboxes() == ["support"]
        first, second = await ledger.claim(refs(INBOX, 1, 2))
        assert isinstance(first, Held)
        assert first.reason == "settled"
        assert isinstance(second, Claim)
        assert second.mid == deferred.mid
        await ledger.close()

    async def test_renaming_never_merges_two_mailboxes(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(Folder("help", INBOX.name, INBOX.epoch), ACCOUNT)
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.advance(INBOX, Position("9"))
        assert (await ledger.open_folder(INBOX, ACCOUNT, formerly="help")).position == "9"
        assert await ledger.mailboxes() == ["help", "support"]
        await ledger.close()

    async def test_a_held_folder_stays_held_until_an_operator_accepts(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.open_folder(RENUMBERED, ACCOUNT)
        await ledger.hold(RENUMBERED, "1200 unknown messages after an epoch change")
        ledger = await self.reopened(ledger, tmp_path, clock)
        assert (await ledger.open_folder(RENUMBERED, ACCOUNT)).accepted is None
        assert await ledger.accept("billing", "replay") == 0
        assert await ledger.accept("support", "baseline") == 1
        assert await ledger.accept("support", "baseline") == 0
        ledger = await self.reopened(ledger, tmp_path, clock)
        assert (await ledger.open_folder(RENUMBERED, ACCOUNT)).accepted == "baseline"
        await ledger.complete(RENUMBERED)
        assert (await ledger.open_folder(RENUMBERED, ACCOUNT)).accepted is None
        await ledger.close()

    async def test_unknown_mail_is_what_no_earlier_size_accounts_for(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        known = [*refs(INBOX, 1, 2, size=500), *refs(INBOX, 3, size=700), *refs(INBOX, 4, size=None)]
        settled = claims(await ledger.claim(known))
        # The size that a download had does not matter: two listings are compared.
        await ledger.settle([outcome(claim, octets=b"x" * 999) for claim in settled])
        await ledger.claim(refs(INBOX, 5, size=900))
        await ledger.open_folder(RENUMBERED, ACCOUNT)

        async def unknown(*sizes: int | None) -> int:
            listed = [MessageRef(RENUMBERED, str(n), size) for n, size in enumerate(sizes)]
            return await ledger.unknown(RENUMBERED, listed)

        assert await unknown(500, 500, 700) == 0
        assert await unknown(500, 500, 500) == 1, "a size counts as often as it occurred"
        assert await unknown(None, None) == 2, "no size is unknown"
        assert await unknown(999) == 1, "the listed size counts, not the downloaded one"
        assert await unknown(900) == 1, "what was claimed and never settled is unknown"
        assert await unknown() == 0
        await ledger.close()

    async def test_a_folder_that_was_never_opened_is_refused_and_nothing_is_recorded(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        with pytest.raises(LedgerUnavailable):
            await ledger.claim(refs(RENUMBERED, 1))
        assert (await ledger.counts("support"))["claimed"] == 0
        await ledger.close()

    # --- claims ------------------------------------------------------------------------------------------------
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

    # --- suspects and strikes ----------------------------------------------------------------------------------
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

    # --- deferral ----------------------------------------------------------------------------------------------
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

    # --- settlement --------------------------------------------------------------------------------------------
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

    # --- repeats -----------------------------------------------------------------------------------------------
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

    # --- who bears a name --------------------------------------------------------------------------------------
    async def settled(self, ledger: Ledger, *numbers: int, disposition: Disposition = LEAVE) -> list[Claim]:
        """Messages that were fetched, with an identity each, and delivered."""
        made = claims(await ledger.claim([told(number) for number in numbers]))
        await ledger.settle(
            [
                replace(
                    outcome(claim, octets=claim.ref.uid.encode(), disposition=disposition),
                    identity=IDENTITY,
                    received=T0,
                )
                for claim in made
            ]
        )
        return made

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

    # --- names that are gone -------------------------------------------------------------------------------------
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
        await ledger.census(INBOX, [told(2), told(3)])
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
        await ledger.census(INBOX, [])
        (second,) = claims(await ledger.claim([told(1)]))
        assert second.mid != first.mid and second.bearer == 1
        await ledger.close()

    async def test_what_was_left_and_vanished_stays_settled_when_it_is_back(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await self.settled(ledger, 1, 2)
        census = await ledger.census(INBOX, [told(2), told(3)])
        assert (census.left, [ref.uid for ref in census.vanished]) == (2, ["1"])
        assert [ref.uid for ref in census.strangers] == ["3"]
        census = await ledger.census(INBOX, [told(2), told(3)])
        assert (census.left, census.vanished) == (1, []), "each is missed once"
        assert isinstance((await ledger.claim([told(1)]))[0], Held)
        assert (await ledger.census(INBOX, [told(1), told(2)])).vanished == []
        assert (await ledger.census(INBOX, [told(1), told(2)])).left == 2
        await ledger.close()

    # --- absence and doubt ---------------------------------------------------------------------------------------
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

    # --- pruning -----------------------------------------------------------------------------------------------
    async def test_only_old_settled_mail_that_left_the_mailbox_is_forgotten(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        old_gone, old_there, _open, deferred = claims(await ledger.claim(refs(INBOX, 1, 2, 3, 4)))
        await ledger.settle([outcome(old_gone, disposition=LEAVE), outcome(old_there, disposition=LEAVE)])
        await ledger.defer([deferred], until=clock.now(), reason="queue-down")
        clock.move(timedelta(days=91))
        (young,) = claims(await ledger.claim(refs(INBOX, 5)))
        await ledger.settle([outcome(young, disposition=LEAVE)])
        before = clock.now() - timedelta(days=90)
        assert await ledger.prune(INBOX, {"2"}, before=before) == 0, "one look is none"
        clock.move(timedelta(hours=23))
        assert await ledger.prune(INBOX, {"2"}, before=before) == 0
        clock.move(timedelta(hours=2))
        assert await ledger.prune(INBOX, {"2"}, before=before) == 1
        assert await ledger.prune(INBOX, {"2"}, before=before) == 0
        assert (await ledger.open_folder(INBOX, ACCOUNT)).pruned_at == clock.now()
        assert await ledger.counts("support") == {"claimed": 1, "deferred": 1, "settled": 2, "undisposed": 0}
        assert len(await ledger.trace(old_gone.mid)) == 0
        assert len(await ledger.trace(old_there.mid)) == 1
        await ledger.close()

    async def test_a_message_is_found_by_what_answers_it_in_its_mailboxes_alone(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        one, two, three, four, five = claims(await ledger.claim(refs(INBOX, 1, 2, 3, 4, 5)))
        await ledger.settle(
            [
                replace(outcome(one, octets=b"1", message_id="<One@example.com>")),
                replace(outcome(two, octets=b"2", message_id="<two@example.com>"), conversation="case 4711"),
                replace(outcome(three, octets=b"3", message_id="<three@example.com>"), conversation=""),
                replace(outcome(four, octets=b"1", message_id="<four@example.com>"), repeat_of=one.mid),
            ]
        )
        await ledger.defer([five], until=clock.now(), reason="x", traits=[Traits(message_id="<five@example.com>")])
        asked = [f"<{name}@example.com>" for name in ("One", "two", "three", "four", "five", "six", "one")]
        known = {
            "<One@example.com>": one.mid,
            "<two@example.com>": "case 4711",
            "<three@example.com>": three.mid,
            "<four@example.com>": one.mid,
        }
        assert await ledger.conversations("support", asked, None) == known
        assert await ledger.conversations("support", asked, ["support", "sales"]) == known
        assert await ledger.conversations("support", asked, ["sales"]) == {}
        assert await ledger.conversations("support", [], None) == {}
        ledger = await self.reopened(ledger, tmp_path, clock)
        assert await ledger.conversations("support", asked, ["support"]) == known
        await ledger.close()

    async def test_of_a_message_to_two_mailboxes_its_own_copy_is_found_first(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        copies: dict[str, str] = {}
        for name in ("support", "sales", "house"):
            folder = replace(INBOX, mailbox=name)
            await ledger.open_folder(folder, ACCOUNT)
            (one,) = claims(await ledger.claim(refs(folder, 1)))
            await ledger.settle([outcome(one, octets=b"1", message_id="<one@example.com>")])
            copies[name] = one.mid
            clock.move(timedelta(seconds=1))
        for name in copies:
            assert await ledger.conversations(name, ["<one@example.com>"], None) == {"<one@example.com>": copies[name]}
        assert await ledger.conversations("other", ["<one@example.com>"], None) == {
            "<one@example.com>": copies["house"]
        }
        await ledger.close()

    async def test_a_message_that_was_pruned_is_not_found_by_what_answers_it(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        one, two = claims(await ledger.claim(refs(INBOX, 1, 2)))
        await ledger.settle([outcome(one, octets=b"1", message_id="<one@example.com>", disposition=LEAVE)])
        answer = outcome(two, octets=b"2", message_id="<two@example.com>", disposition=LEAVE)
        await ledger.settle([replace(answer, conversation=one.mid)])
        clock.move(timedelta(days=91))
        for _ in range(2):
            await ledger.prune(INBOX, {"2"}, before=clock.now() - timedelta(days=90))
            clock.move(timedelta(hours=25))
        asked = ["<one@example.com>", "<two@example.com>"]
        assert await ledger.conversations("support", asked, None) == {"<two@example.com>": one.mid}
        await ledger.close()

    async def test_the_conversation_that_a_queue_was_told_stays_the_same(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        (one,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert one.conversation is None
        for said in (None, "case 1", "case 2", None):
            await ledger.defer(
                [one],
                until=clock.now(),
                reason="down",
                queue="q",
                receipts={"r": "1"},
                traits=[Traits(conversation=said)],
            )
            (one,) = claims(await ledger.claim(refs(INBOX, 1)))
            assert one.conversation == (None if said is None and not one.conversation else "case 1")
        await ledger.settle([replace(outcome(one, octets=b"1"), conversation="case 3")])
        await ledger.reopen(one.mid)
        (one,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert one.conversation == "case 1"
        await ledger.close()

    async def test_a_former_epoch_is_forgotten_once_the_present_one_is_complete(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        settled, deferred = claims(await ledger.claim(refs(INBOX, 1, 2)))
        await ledger.settle([outcome(settled, octets=b"a", disposition=LEAVE)])
        await ledger.defer([deferred], until=clock.now(), reason="queue-down")
        await ledger.advance(INBOX, Position("3"))
        await ledger.complete(INBOX)
        await ledger.open_folder(RENUMBERED, ACCOUNT)
        clock.move(timedelta(days=91))
        assert (await ledger.counts("support"))["deferred"] == 0, "nobody works on a former epoch"
        assert await ledger.prune(RENUMBERED, (), before=clock.now()) == 0, "its fingerprints are still needed"
        await ledger.complete(RENUMBERED)
        assert await ledger.prune(RENUMBERED, (), before=clock.now()) == 0
        clock.move(timedelta(days=1))
        assert await ledger.prune(RENUMBERED, (), before=clock.now()) == 1
        state = await ledger.open_folder(INBOX, ACCOUNT)
        assert (state.position, state.complete) == (None, False), "mail was left there that nobody settled"
        await ledger.close()

    # --- mailboxes ---------------------------------------------------------------------------------------------
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

    # --- queues ------------------------------------------------------------------------------------------------
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

    # --- alarms and faults -------------------------------------------------------------------------------------
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

    # --- operators ---------------------------------------------------------------------------------------------
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

    # --- outbox ------------------------------------------------------------------------------------------------
    async def test_a_mail_is_due_until_nobody_is_to_get_it_any_more(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        mail = outbox_mail("a1", clock, "ada@x.example", "bob@x.example")
        assert await ledger.outbox_accept(mail) == mail
        assert await ledger.outbox_due("relay", limit=10) == [mail]
        assert await ledger.outbox_due("other", limit=10) == []
        again = clock.now() + timedelta(minutes=1)
        said: dict[str, tuple[RecipientState, str]] = {
            "ada@x.example": ("accepted", "250 Ok"),
            "bob@x.example": ("deferred", "451 later"),
        }
        await ledger.outbox_answered("a1", said, again)
        assert await ledger.outbox_due("relay", limit=10) == []
        assert (await ledger.outbox_backlog())["relay"] == OutboxBacklog(1, 1000, again)
        clock.move(timedelta(minutes=1))
        (due,) = await ledger.outbox_due("relay", limit=10)
        assert (due.open, due.attempts) == (("bob@x.example",), 1)
        await ledger.outbox_answered("a1", {"bob@x.example": ("refused", "550 no")}, None)
        assert await ledger.outbox_backlog() == {}
        found = await ledger.outbox_mail("a1")
        assert found is not None
        assert [(one.state, one.words) for one in found.recipients] == [("accepted", "250 Ok"), ("refused", "550 no")]
        await ledger.close()

    async def test_an_address_is_forgotten_in_mail_that_was_sent_and_kept_in_mail_that_is_to_be(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        for name in ("a1", "a2"):
            await ledger.outbox_accept(outbox_mail(name, clock, "Ada@x.example", "bob@x.example"))
        await ledger.outbox_accept(outbox_mail("a3", clock, "bob@x.example"))
        await ledger.outbox_cancel("a1")
        assert await ledger.erase_outbox("ada@X.example", count_only=True) == (0, 2), "nobody was told yet"
        await ledger.outbox_told([event.number for event in await ledger.outbox_events(limit=9)])
        assert await ledger.erase_outbox("ada@X.example", count_only=True) == (1, 1)
        assert await ledger.erase_outbox("ada@X.example") == (1, 1)
        mails = {mail.id: mail for mail in await ledger.outbox_list(all=True, limit=9)}
        assert [one.address for one in mails["a1"].recipients] == ["", "bob@x.example"]
        assert [one.address for one in mails["a2"].recipients] == ["Ada@x.example", "bob@x.example"]
        assert await ledger.erase_outbox("ada@X.example") == (0, 1)
        await ledger.outbox_cancel("a3")
        await ledger.outbox_told([event.number for event in await ledger.outbox_events(limit=9)])
        assert await ledger.erase_outbox("s@x.example") == (2, 1)
        mails = {mail.id: mail for mail in await ledger.outbox_list(all=True, limit=9)}
        assert {name: mail.sender for name, mail in mails.items()} == {"a1": "", "a2": "s@x.example", "a3": ""}
        await ledger.close()

    async def test_a_key_is_known_for_ever_and_of_its_intake_alone(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        mail = replace(outbox_mail("a1", clock), key="order-17")
        await ledger.outbox_accept(mail)
        assert (await ledger.outbox_accept(replace(outbox_mail("a2", clock), key="order-17"))).id == "a1"
        other = replace(outbox_mail("a3", clock), key="order-17", intake="shop")
        assert (await ledger.outbox_accept(other)).id == "a3"
        await ledger.outbox_answered("a1", {"ada@x.example": ("accepted", "250 Ok")}, None)
        assert (known := await ledger.outbox_known("desk", "order-17")) is not None and known.id == "a1"
        assert await ledger.outbox_known("desk", "order-18") is None
        assert {one.id for one in await ledger.outbox_list(all=True, limit=10)} == {"a1", "a3"}
        assert [one.id for one in await ledger.outbox_list(limit=10)] == ["a3"]
        await ledger.close()

    async def test_what_is_cancelled_is_due_no_more_and_what_is_retried_is_due_now(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        for name in ("a1", "b2"):
            await ledger.outbox_accept(outbox_mail(name, clock, "ada@x.example", "bob@x.example"))
            said: dict[str, tuple[RecipientState, str]] = {"ada@x.example": ("accepted", "250 Ok")}
            await ledger.outbox_answered(name, said, clock.now() + timedelta(hours=1))
        assert await ledger.outbox_due("relay", limit=10) == []
        assert await ledger.outbox_retry("a1") == 1
        assert [one.id for one in await ledger.outbox_due("relay", limit=10)] == ["a1"]
        assert await ledger.outbox_cancel("a1") == 1
        assert await ledger.outbox_cancel("a1") == await ledger.outbox_retry("a1") == 0
        assert await ledger.outbox_due("relay", limit=10) == []
        found = await ledger.outbox_mail("a1")
        assert found is not None and [one.state for one in found.recipients] == ["accepted", "cancelled"]
        assert await ledger.outbox_rename("relay", "support") == 1
        assert list(await ledger.outbox_backlog()) == ["support"]
        await ledger.close()

    async def test_a_file_is_done_with_when_every_mail_of_it_is(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        for name in ("a1", "b2"):
            await ledger.outbox_accept(outbox_mail(name, clock))
        same, unknown = sha256(b"a1").digest(), sha256(b"nobody's").digest()
        assert await ledger.outbox_done([same, unknown]) == []
        await ledger.outbox_answered("a1", {"ada@x.example": ("accepted", "250 Ok")}, None)
        assert await ledger.outbox_done([same, unknown]) == [same]
        assert await ledger.outbox_forget(clock.now()) == 0
        clock.move(timedelta(days=1))
        assert await ledger.outbox_forget(clock.now()) == 1
        assert [one.id for one in await ledger.outbox_list(all=True, limit=10)] == ["b2"]
        await ledger.close()

    # --- concurrency -------------------------------------------------------------------------------------------
    async def test_one_message_is_never_claimed_by_two_callers(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        wanted = refs(INBOX, *range(20))
        answers = await asyncio.gather(*(ledger.claim(wanted) for _ in range(5)))
        made = [answer.mid for batch in answers for answer in batch if isinstance(answer, Claim)]
        assert len(made) == len(set(made)) == 20
        await ledger.close()

    async def test_a_cancelled_claim_is_in_nobodys_hands(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        task = asyncio.create_task(_claim(ledger, refs(INBOX, 1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (claim,) = claims(await ledger.claim(refs(INBOX, 1)))
        assert not claim.suspect
        await ledger.close()

    async def test_nothing_is_taken_after_close(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.open_folder(INBOX, ACCOUNT)
        await ledger.close()
        await ledger.close()
        with pytest.raises(LedgerUnavailable):
            await ledger.claim(refs(INBOX, 1))


async def _claim(ledger: Ledger, wanted: Sequence[MessageRef]) -> Sequence[Claim | Held | Settlement | Question]:
    return await ledger.claim(wanted)
