"""The outbox, and who asks at the same time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from mailpoller.core.errors import LedgerUnavailable
from mailpoller.core.message import Claim
from mailpoller.core.ports import (
    Draft,
    OutboxBacklog,
    OutboxMark,
    OutboxRefusal,
    RecipientState,
)
from mailpoller.core.ports.ledger.outbox import OUTBOX_WAITS_AT_MOST
from mailpoller.testing.ledger.ground import (
    ACCOUNT,
    INBOX,
    LedgerGround,
    SuiteClock,
    claim_now,
    claims,
    outbox_mail,
    refs,
)


class OutboxPromises(LedgerGround):
    """The outbox, and who asks at the same time."""

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
        assert await ledger.outbox_waiting() == {"relay": (1, mail.accepted_at)}
        clock.move(timedelta(minutes=1))
        (due,) = await ledger.outbox_due("relay", limit=10)
        assert (due.open, due.attempts) == (("bob@x.example",), 1)
        await ledger.outbox_answered("a1", {"bob@x.example": ("refused", "550 no")}, None)
        assert await ledger.outbox_backlog() == {}
        found = await ledger.outbox_mail("a1")
        assert found is not None
        assert [(one.state, one.words) for one in found.recipients] == [("accepted", "250 Ok"), ("refused", "550 no")]
        await ledger.close()

    async def test_what_was_put_off_by_a_clock_that_was_ahead_is_due_all_the_same(
        self, tmp_path: Path, clock: SuiteClock
    ) -> None:
        ledger = await self.open(tmp_path, clock)
        for name in ("a1", "b2", "c3"):
            await ledger.outbox_accept(outbox_mail(name, clock))
        said: dict[str, tuple[RecipientState, str]] = {"ada@x.example": ("deferred", "451 later")}
        await ledger.outbox_answered("a1", said, clock.now() + timedelta(days=365))
        await ledger.outbox_answered("b2", said, clock.now() + OUTBOX_WAITS_AT_MOST)
        assert [one.id for one in await ledger.outbox_due("relay", limit=9)] == ["c3", "a1"]
        assert [one.id for one in await ledger.outbox_due("relay", limit=1)] == ["c3"]
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
        task = asyncio.create_task(claim_now(ledger, refs(INBOX, 1)))
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

    async def test_a_draft_is_kept_and_its_message_id_is_the_mails(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        await ledger.outbox_accept(outbox_mail("a1", clock))
        assert [one.draft for one in await ledger.outbox_due("relay", limit=10)] == [None]
        draft = Draft("AAMk=", "<theirs@service>", "service user", ("ada@x.example",))
        for one in (draft, replace(draft, missed_at=clock.now()), replace(draft, message_id="")):
            await ledger.outbox_note_draft("a1", one)
            (mail,) = await ledger.outbox_due("relay", limit=10)
            assert (mail.draft, mail.message_id) == (one, "<theirs@service>")
        await ledger.close()
        again = await self.open(tmp_path, clock)
        await again.outbox_note_draft("a1", None)
        (mail,) = await again.outbox_due("relay", limit=10)
        assert (mail.draft, mail.message_id) == (None, "<theirs@service>")
        await again.close()

    async def test_a_refusal_is_owed_once_until_it_is_told(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        first = OutboxRefusal("a1", "desk", "order-17", 7, "mid-1", "this is no JSON", clock.now())
        assert await ledger.outbox_refuse(first)
        assert await ledger.outbox_refuse(first)
        assert await ledger.outbox_refuse(replace(first, id="b2", intake="shop", entry=None, key="", mid=""))
        await ledger.close()
        again = await self.open(tmp_path, clock)
        owed = await again.outbox_refusals(limit=10)
        assert replace(owed[0], number=0) == first
        assert [(one.id, one.entry) for one in owed] == [("a1", 7), ("b2", None)]
        assert [one.id for one in await again.outbox_refusals(but=["desk"], limit=10)] == ["b2"]
        await again.outbox_refusals_told([one.number for one in owed][:1])
        assert [one.id for one in await again.outbox_refusals(limit=10)] == ["b2"]
        await again.close()

    async def test_the_mark_of_an_outbox_is_the_last_that_was_noted(self, tmp_path: Path, clock: SuiteClock) -> None:
        ledger = await self.open(tmp_path, clock)
        assert await ledger.outbox_mark() is None
        for mark in (OutboxMark("one", 7, "here", "/a"), OutboxMark("two", 0, "", "/b")):
            await ledger.outbox_note_mark(mark)
            assert await ledger.outbox_mark() == mark
        await ledger.close()
        again = await self.open(tmp_path, clock)
        assert await again.outbox_mark() == OutboxMark("two", 0, "", "/b")
        await again.close()
