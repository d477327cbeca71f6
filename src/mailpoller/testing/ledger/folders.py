"""Epochs, positions and plans of a folder."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mailpoller.core.delivery import (
    LEAVE,
    Held,
)
from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.message import Claim, Folder, MessageRef, Position
from mailpoller.testing.ledger.ground import (
    ACCOUNT,
    INBOX,
    OTHER_HOST,
    RENUMBERED,
    LedgerGround,
    SuiteClock,
    claims,
    outcome,
    refs,
)


class FolderPromises(LedgerGround):
    """Epochs, positions and plans of a folder."""

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
